"""MLflow's pyfunc flavour of a model: its folder as it is, loaded by this module; nothing is pickled."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from store.errors import WorkspaceError

if TYPE_CHECKING:
    from ensemble.model.price_model import PriceModel

LOADER = "ensemble.model.mlflow"  # the module that MLflow calls
INTERVAL = 0.9  # where no other is asked for
REQUIREMENTS = ("shelfprice[starter]",)


def save_mlflow(folder: str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Write a model's folder as an MLflow model, for `mlflow.pyfunc.load_model` and `mlflow models serve`.

    Args:
        folder: that `shelfprice ensemble pack` or `PriceModel.save` wrote.

    Raises:
        WorkspaceError: MLflow is not installed.
    """
    with _without_an_example():
        mlflow_pyfunc().save_model(os.fspath(to), **_options(folder))


def log_mlflow(folder: str | os.PathLike[str], name: str = "price-model") -> Any:
    """Log a model's folder in the run that is active, as `mlflow.pyfunc.log_model` does; returns its record.

    Raises:
        WorkspaceError: MLflow is not installed.
    """
    with _without_an_example():
        return mlflow_pyfunc().log_model(name=name, **_options(folder))


def mlflow_pyfunc() -> Any:
    """MLflow's module of Python models.

    Raises:
        WorkspaceError: it is not installed.
    """
    try:
        import mlflow.pyfunc
    except ImportError as error:
        raise WorkspaceError(f"MLflow is needed ({error}): pip install 'shelfprice[mlflow]'") from error
    return mlflow.pyfunc


@contextmanager
def _without_an_example() -> Iterator[None]:
    """MLflow warns of a signature without an input example: ours names a parameter alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).*An input example was not provided", UserWarning)
        yield


def _options(folder: str | os.PathLike[str]) -> dict[str, Any]:
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec

    interval = ParamSpec("interval", "double", INTERVAL)  # parameters that no signature names are ignored
    return {
        "signature": ModelSignature(params=ParamSchema([interval])),
        "loader_module": LOADER,
        "data_path": os.fspath(folder),
        "pip_requirements": list(REQUIREMENTS),
    }


def _load_pyfunc(path: str) -> "LoadedPriceModel":
    """What MLflow calls with the path of the folder."""
    from ensemble.model.price_model import PriceModel

    return LoadedPriceModel(PriceModel.load(path))


class LoadedPriceModel:
    """A model as MLflow calls it."""

    def __init__(self, model: "PriceModel") -> None:
        self.model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """A frame of `price`, `low`, `high`, `flags` and `reason`, one row for each.

        Args:
            params: `interval`, the probability that a row's interval holds its price.
        """
        return self.model.predict(model_input, interval=(params or {}).get("interval", INTERVAL))
