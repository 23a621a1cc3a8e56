"""Heads by name: those of the project, those of installed packages, and those that a program registers.

A head's module is imported only when the head is asked for.
"""

import difflib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from heads.base import Head
from heads.params import current_params, declared_of, defaults_of
from store.errors import HeadError, UnknownHeadError
from store.vectors.sets import TUNED

OWN = "shelfprice"
GROUP = "shelfprice.heads"  # entry points of packages that bring heads
HEADS: dict[str, str] = {  # name -> module:class
    "additive": "heads.linear.additive:Additive",
    "boosted": "heads.trees.boosted:Boosted",
    "catboost": "heads.trees.catboost:CatBoost",
    "fusion": "heads.networks.fusion:Fusion",
    "gaussian-process": "heads.kernels.gaussian_process:GaussianProcess",
    "kernel-ridge": "heads.kernels.kernel_ridge:KernelRidge",
    "lightgbm": "heads.trees.lightgbm:LightGBM",
    "mlp-batchnorm": "heads.networks.mlp:MlpBatchNorm",
    "mlp-layernorm": "heads.networks.mlp:MlpLayerNorm",
    "neighbours": "heads.kernels.neighbours:Neighbours",
    "reranked-neighbours": "heads.trees.reranked:RerankedNeighbours",
    "ridge": "heads.linear.ridge:Ridge",
    "sparse": "heads.linear.sparse:Sparse",
    "sparse-mlp": "heads.networks.sparse_mlp:SparseMlp",
    "stacked": "heads.trees.stacked:Stacked",
    "svr": "heads.kernels.svr:SVR",
    "tabicl": "heads.networks.tabicl:TabICL",
    "tabm": "heads.networks.tabm:TabM",
    "xgboost": "heads.trees.xgboost:XGBoost",
    "xgboost-baseline": "heads.trees.baseline:XGBoostBaseline",
}


@dataclass(frozen=True)
class HeadSource:
    """Where a head comes from."""

    origin: str  # "shelfprice", a package and its version, or "register_head"
    head: str | type[Head]  # module:class, or the class

    def load(self, name: str) -> type[Head]:
        """The class.

        Raises:
            HeadError: it can't be imported, or is no head of that name.
        """
        head: Any = self.head
        if isinstance(head, str):
            module, _, attribute = head.partition(":")
            try:
                head = getattr(import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise HeadError(
                    f"head {name!r} of {self.origin} can't be loaded from {self.head!r}: {error}"
                ) from error
        if not (isinstance(head, type) and issubclass(head, Head)):
            raise HeadError(f"head {name!r} of {self.origin} must be a subclass of heads.Head, got {head!r}")
        if getattr(head, "name", None) != name:
            raise HeadError(
                f"head {name!r} of {self.origin}: its class says name = {getattr(head, 'name', None)!r}, "
                "which names its predictions: make them the same"
            )
        return head


@dataclass(frozen=True)
class HeadListing:
    """One head as `shelfprice heads list` shows it."""

    head: str
    origin: str  # see `HeadSource`
    summary: str = ""
    reads: tuple[str, ...] = ()  # vector sets and texts
    extra: str | None = None  # of shelfprice, without which it can't run
    test: str = ""  # how test rows are predicted: "refit" or "average"
    params: dict[str, Any] = field(default_factory=dict)  # and their defaults
    problem: str | None = None  # why a package's head can't be used


_registered: dict[str, HeadSource] = {}


def register_head(name: str, head: type[Head] | str) -> None:
    """Make a head known by name in this process; a package does so by an entry point of the group `shelfprice.heads`.

    Registering a class of the same module and name again replaces it, as happens in a notebook.

    >>> from heads import Ridge
    >>> from heads.registry import head_class
    >>> class Firm(Ridge):
    ...     name = "firm"
    >>> register_head("firm", Firm)
    >>> head_class("firm").__name__
    'Firm'

    Args:
        name: lower-case letters, digits and hyphens; the class attribute `name` as well.
        head: a class, or `module:class`, imported when the head is asked for.

    Raises:
        HeadError: the name is taken or can't be one, or the class is no head.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise HeadError(f"a head's name holds lower-case letters, digits and hyphens alone, got {name!r}")
    source = HeadSource("register_head", head)
    if not isinstance(head, str):
        source.load(name)
    for taken in _sources().get(name, ()):
        if taken != _registered.get(name) or _path(taken.head) != _path(head):
            raise HeadError(
                f"the name {name!r} is taken by {_path(taken.head)} of {taken.origin}: choose another for {_path(head)}"
            )
    _registered[name] = source


def _path(head: str | type[Head]) -> str:
    return head if isinstance(head, str) else f"{head.__module__}:{head.__qualname__}"


@cache
def _installed() -> tuple[tuple[str, HeadSource], ...]:
    """Name and source of every head that a package brings."""
    points = entry_points(group=GROUP)
    return tuple(
        (one.name, HeadSource(f"{one.dist.name} {one.dist.version}" if one.dist else "a package", one.value))
        for one in points
    )


def _sources() -> dict[str, list[HeadSource]]:
    """Every head's sources by name; more than one where packages clash."""
    found = {name: [HeadSource(OWN, path)] for name, path in HEADS.items()}
    for name, source in (*_installed(), *_registered.items()):
        found.setdefault(name, []).append(source)
    return found


def head_source(name: str) -> HeadSource:
    """Where a head comes from. `ridge:images` is `ridge` under a name of its own, with parameters of its own.

    Raises:
        HeadError: no such head, offers the nearest names; or several have that name.
    """
    family = name.partition(":")[0]
    if name.startswith(TUNED):
        raise HeadError(f"{name} is tuned along with its encoders: run 'shelfprice embed finetune'")
    sources = _sources()
    if family not in sources:
        near = difflib.get_close_matches(family, sources, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(sorted(sources))}:"
        raise UnknownHeadError(f"unknown head {name!r}, {hint} See 'shelfprice heads list'")
    if len(sources[family]) > 1:
        origins = " and ".join(source.origin for source in sources[family])
        raise HeadError(
            f"{origins} each bring a head {family!r}: uninstall the package whose head is not wanted"
        )
    return sources[family][0]


def head_class(name: str) -> type[Head]:
    """The class of a head.

    Raises:
        HeadError: see `head_source`; or the class can't be loaded, or is no head.
    """
    return head_source(name).load(name.partition(":")[0])


def learning_exponent(name: str) -> float:
    """`Head.learning_exponent` of a head; that of most heads where it is of a package that is not installed here."""
    try:
        return head_class(name).learning_exponent
    except HeadError:
        return Head.learning_exponent


def list_heads() -> list[HeadListing]:
    """Every head by name: where it comes from, what it reads and its parameters.

    >>> {head.head: head.reads for head in list_heads()}["sparse"]
    ('text full', 'text name')

    Returns:
        One entry for each name; `problem` says why a head of another package can't be used.
    """
    listed = []
    for name, sources in sorted(_sources().items()):
        origin = " and ".join(source.origin for source in sources)
        try:
            cls = head_class(name)
        except HeadError as error:
            listed.append(HeadListing(name, origin, problem=str(error)))
            continue
        reads = ("vectors of the configuration",) if cls.vectors is None else cls.vectors
        texts = (f"text {composition}" for composition in cls.texts)
        params = {
            name: value for name, value in cls().get_params().items() if declared_of(cls, name).recorded
        }
        listed.append(
            HeadListing(name, origin, cls.summary, (*reads, *texts), cls.extra, cls.test_mode, params)
        )
    return listed


def make_head(name: str, params: dict[str, Any] | None = None, seed: int = 42) -> Head:
    """Make an unfitted head by its name.

    >>> make_head("lightgbm", {"num_leaves": 15}).num_leaves
    15
    >>> make_head("lightgbm", {"leaves": 15})
    Traceback (most recent call last):
        ...
    store.errors.HeadError: lightgbm has no parameter 'leaves', it takes ...

    Args:
        name: of the head, as in `shelfprice heads list`.
        params: parameters that differ from the defaults.
        seed: becomes `random_state` where the head has one and `params` does not set it.

    Returns:
        The head; `fit` trains it.

    Raises:
        HeadError: the head or a parameter is unknown, or a value is not one that the parameter takes.
    """
    cls = head_class(name)
    params, defaults = current_params(cls, params or {}), defaults_of(cls)
    if "random_state" in defaults:
        params = {"random_state": seed} | params
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(defaults[k], tuple) and isinstance(v, list) else v
        for k, v in params.items()
    }
    head = cls(**given)
    head.check(name)
    return head
