"""What `shelfprice heads tune` may try: the parameters of each head that are worth a search, and their ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heads.registry import head_class
from store.errors import HeadError

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class Real:
    """A number between two others."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Whole:
    """A whole number between two others, both included."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]


Space = Mapping[str, Real | Whole | OneOf]

LOSS = OneOf(("smape", "huber-log", "mae-log"))
NETWORK: Space = {
    "loss": LOSS,
    "learning_rate": Real(2e-4, 5e-3, log=True),
    "weight_decay": Real(1e-5, 1e-1, log=True),
    "dropout": Real(0.0, 0.5),
    "batch_rows": OneOf((0, 128, 512)),
}
SPACES: dict[str, Space] = {
    "fusion": NETWORK,
    "lightgbm": {
        "loss": OneOf(("smape", "huber-log", "mae-log", "mse-log")),
        "components": OneOf((0, 32, 64, 128)),
        "learning_rate": Real(0.02, 0.2, log=True),
        "num_leaves": Whole(7, 127, log=True),
        "min_data_in_leaf": Whole(3, 50, log=True),
        "colsample_bytree": Real(0.05, 1.0, log=True),
        "subsample": Real(0.5, 1.0),
        "reg_lambda": Real(0.01, 30.0, log=True),
    },
    "mlp-batchnorm": NETWORK,
    "mlp-layernorm": NETWORK,
    "sparse-mlp": {
        "loss": LOSS,
        "learning_rate": Real(5e-4, 1e-2, log=True),
        "weight_decay": Real(1e-5, 1e-1, log=True),
        "batch_rows": OneOf((256, 512, 1024)),
    },
    "svr": {
        "components": OneOf((32, 64, 128, 256)),
        "C": Real(0.3, 100.0, log=True),
        "epsilon": Real(0.003, 0.2, log=True),
        "width": Real(0.03, 2.0, log=True),
    },
    "tabm": {
        **NETWORK,
        "batch_rows": OneOf((128, 256, 512)),
        "components": OneOf((32, 64, 128, 256)),
        "width": OneOf((128, 256, 512)),
        "blocks": Whole(1, 3),
    },
    "xgboost": {
        "loss": OneOf(("smape", "huber-log", "mae-log", "mse-log")),
        "learning_rate": Real(0.02, 0.3, log=True),
        "max_depth": Whole(3, 9),
        "min_child_weight": Real(1.0, 50.0, log=True),
        "colsample_bytree": Real(0.05, 0.6, log=True),
        "subsample": Real(0.5, 1.0),
        "reg_lambda": Real(0.1, 30.0, log=True),
        "components": OneOf((0, 64, 128, 256)),
    },
}


def space_of(head: str) -> Space:
    """The search space of a head, `lightgbm:images` included.

    Raises:
        HeadError: the head is unknown, or chooses all that matters inside its own fit.
    """
    cls = head_class(head)
    if cls.name not in SPACES:
        raise HeadError(
            f"{head} has nothing to tune: it chooses its parameters inside every fit. "
            f"Heads to tune: {', '.join(sorted(SPACES))}"
        )
    return SPACES[cls.name]


def suggest(trial: "Trial", space: Space) -> dict[str, Any]:
    """The parameters that a trial tries."""
    found: dict[str, Any] = {}
    for name, spread in space.items():
        if isinstance(spread, Real):
            found[name] = trial.suggest_float(name, spread.low, spread.high, log=spread.log)
        elif isinstance(spread, Whole):
            found[name] = trial.suggest_int(name, spread.low, spread.high, log=spread.log)
        else:
            found[name] = trial.suggest_categorical(name, spread.values)
    return found
