"""Heads by name. One line per head; its module is imported only when it is asked for."""

import difflib
from importlib import import_module
from typing import Any

from heads.base import Head
from heads.params import current_params, defaults_of
from store.errors import HeadError
from store.vectors.sets import TUNED

HEADS: dict[str, str] = {  # name -> module:class
    "fusion": "heads.networks.fusion:Fusion",
    "kernel-ridge": "heads.kernels.kernel_ridge:KernelRidge",
    "lightgbm": "heads.trees.lightgbm:LightGBM",
    "mlp-batchnorm": "heads.networks.mlp:MlpBatchNorm",
    "mlp-layernorm": "heads.networks.mlp:MlpLayerNorm",
    "neighbours": "heads.kernels.neighbours:Neighbours",
    "ridge": "heads.linear.ridge:Ridge",
    "sparse": "heads.linear.sparse:Sparse",
    "sparse-mlp": "heads.networks.sparse_mlp:SparseMlp",
    "svr": "heads.kernels.svr:SVR",
    "tabm": "heads.networks.tabm:TabM",
    "xgboost": "heads.trees.xgboost:XGBoost",
    "xgboost-baseline": "heads.trees.baseline:XGBoostBaseline",
}


def head_class(name: str) -> type[Head]:
    """The class of a head. `ridge:images` is `ridge` under a name of its own, with parameters of its own.

    Raises:
        HeadError: no such head; offers the nearest names.
    """
    family = name.partition(":")[0]
    if name.startswith(TUNED):
        raise HeadError(f"{name} is tuned along with its encoders: run 'shelfprice embed finetune'")
    if family not in HEADS:
        near = difflib.get_close_matches(family, HEADS, cutoff=0.5) or sorted(HEADS)
        raise HeadError(
            f"unknown head {name!r}, did you mean {' or '.join(near)}? See 'shelfprice heads list'"
        )
    module, _, attribute = HEADS[family].partition(":")
    cls: type[Head] = getattr(import_module(module), attribute)
    return cls


def make_head(name: str, params: dict[str, Any], seed: int) -> Head:
    """An unfitted head.

    Args:
        params: those that differ from the defaults.
        seed: becomes `random_state` where the head has one and `params` does not say.

    Raises:
        HeadError: the head or a parameter is unknown, or a value is not one that the parameter takes.
    """
    cls = head_class(name)
    params, defaults = current_params(cls, params), defaults_of(cls)
    if "random_state" in defaults:
        params = {"random_state": seed} | params
    head = cls(
        **{
            k: tuple(v) if isinstance(defaults[k], tuple) and isinstance(v, list) else v
            for k, v in params.items()
        }
    )
    head.check(name)
    return head
