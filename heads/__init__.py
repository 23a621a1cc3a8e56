"""Heads: models that predict prices from cached vectors, fields and texts, out of fold and for test rows."""

from typing import TYPE_CHECKING

from store.lazy import lazy_names

if TYPE_CHECKING:
    from heads.base import Head as Head
    from heads.features.design import Design as Design
    from heads.features.rows import Rows as Rows
    from heads.folds.crossfit import cross_predict as cross_predict
    from heads.kernels.gaussian_process import GaussianProcess as GaussianProcess
    from heads.kernels.kernel_ridge import KernelRidge as KernelRidge
    from heads.kernels.neighbours import Neighbours as Neighbours
    from heads.kernels.svr import SVR as SVR
    from heads.linear.additive import Additive as Additive
    from heads.linear.ridge import Ridge as Ridge
    from heads.linear.sparse import Sparse as Sparse
    from heads.networks.fusion import Fusion as Fusion
    from heads.networks.mlp import MlpBatchNorm as MlpBatchNorm
    from heads.networks.mlp import MlpLayerNorm as MlpLayerNorm
    from heads.networks.sparse_mlp import SparseMlp as SparseMlp
    from heads.networks.tabicl import TabICL as TabICL
    from heads.networks.tabm import TabM as TabM
    from heads.params import param as param
    from heads.registry import list_heads as list_heads
    from heads.registry import make_head as make_head
    from heads.registry import register_head as register_head
    from heads.run import train_heads as train_heads
    from heads.testing import check_head as check_head
    from heads.trees.baseline import XGBoostBaseline as XGBoostBaseline
    from heads.trees.boosted import Boosted as Boosted
    from heads.trees.catboost import CatBoost as CatBoost
    from heads.trees.lightgbm import LightGBM as LightGBM
    from heads.trees.reranked import RerankedNeighbours as RerankedNeighbours
    from heads.trees.stacked import Stacked as Stacked
    from heads.trees.xgboost import XGBoost as XGBoost

_MODULES = {
    "Additive": "heads.linear.additive",
    "Boosted": "heads.trees.boosted",
    "CatBoost": "heads.trees.catboost",
    "Design": "heads.features.design",
    "Fusion": "heads.networks.fusion",
    "GaussianProcess": "heads.kernels.gaussian_process",
    "Head": "heads.base",
    "KernelRidge": "heads.kernels.kernel_ridge",
    "LightGBM": "heads.trees.lightgbm",
    "MlpBatchNorm": "heads.networks.mlp",
    "MlpLayerNorm": "heads.networks.mlp",
    "Neighbours": "heads.kernels.neighbours",
    "Ridge": "heads.linear.ridge",
    "Rows": "heads.features.rows",
    "SVR": "heads.kernels.svr",
    "Sparse": "heads.linear.sparse",
    "SparseMlp": "heads.networks.sparse_mlp",
    "RerankedNeighbours": "heads.trees.reranked",
    "Stacked": "heads.trees.stacked",
    "TabICL": "heads.networks.tabicl",
    "TabM": "heads.networks.tabm",
    "XGBoost": "heads.trees.xgboost",
    "XGBoostBaseline": "heads.trees.baseline",
    "check_head": "heads.testing",
    "cross_predict": "heads.folds.crossfit",
    "list_heads": "heads.registry",
    "make_head": "heads.registry",
    "param": "heads.params",
    "register_head": "heads.registry",
    "train_heads": "heads.run",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
