"""`PriceModel`: fitted once, saved as one folder, prices anything anywhere."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ensemble.model.answers import Explanation, Priced


@dataclass(frozen=True)
class ModelInputs:
    """Names of the columns that a model reads."""

    text: tuple[str, ...]
    image: str | None  # None: the model knows no images
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]


class PriceModel:
    """Prices of catalogue rows by a blend of heads over cached vectors; a scikit-learn regressor on frames.

        >>> from ensemble import PriceModel
        >>> model = PriceModel(text=["title", "description"], image="photo", numeric=["rating"], categorical=["brand"])
        >>> model.fit(train, price="price")
        >>> model.predict(new)
        >>> model.save("model/")
        >>> PriceModel.load("model/").price([{"title": "green tea, 20 bags"}])

    Args:
        text: columns of text, the first one the main one.
        image: column of images: paths, or links that the workspace has fetched; None: there is none.
        numeric: columns read as numbers.
        categorical: columns read as categories.
        workspace: folder that keeps vectors, folds and predictions between fits; None: a temporary one.
        encoders: vector sets, see `embed.vectors` of `shelfprice.toml`; None: the defaults.
        heads: heads that are trained and blended; None: the defaults.
        random_state: decides folds and heads.
    """

    def __init__(
        self,
        text: str | Sequence[str] = "catalog_content",
        image: str | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        *,
        workspace: str | os.PathLike[str] | None = None,
        encoders: Sequence[str] | None = None,
        heads: Sequence[str] | None = None,
        random_state: int = 42,
    ) -> None:
        self.text = text
        self.image = image
        self.numeric = numeric
        self.categorical = categorical
        self.workspace = workspace
        self.encoders = encoders
        self.heads = heads
        self.random_state = random_state

    # ---- what a fitted or loaded model knows -----------------------------------------------------

    @property
    def inputs(self) -> ModelInputs:
        """Names of the columns that it reads."""
        raise NotImplementedError

    @property
    def currency(self) -> str | None:
        """The currency of its prices, as the training file wrote it; None: it named none."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides its prices, 16 hexadecimal digits."""
        raise NotImplementedError

    # ---- pricing ---------------------------------------------------------------------------------

    def price(self, rows: Sequence[Mapping[str, Any]], interval: float = 0.9) -> list[Priced]:
        """Price rows given as mappings: one answer for each, in their order; safe to call from several threads.

        A column may be left out or None. An image may be a path, the bytes of an image file, or a Pillow image. What a
        row lacks is flagged, and a row about which nothing at all is known is refused with a reason; neither is an
        exception.

        Args:
            interval: probability that a row's interval holds its price, 0.5 to 0.999.

        Raises:
            ConfigError: interval is out of its range.
        """
        raise NotImplementedError

    def explain(self, rows: Any, interval: float = 0.9) -> list[Explanation]:
        """Why rows have their prices: heads, what moved the price, and near training rows, one answer for each.

        Args:
            rows: mappings as of `price`, or a frame or file as of `predict`.
        """
        raise NotImplementedError

    def predict(self, X: Any, interval: float | None = None) -> Any:
        """Prices of the rows of a frame or file.

        Args:
            X: pandas, Polars or Arrow frame, or the path of a CSV or Parquet file.
            interval: probability that a row's interval holds its price.

        Returns:
            Shape (n_rows,) float64, NaN where a row was refused; with `interval` a frame of `price`, `low`, `high`,
            `flags` and `reason` instead.
        """
        raise NotImplementedError

    # ---- fitting, keeping ------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, price: str | None = None, warm: bool = False) -> Self:
        """Fit on a frame or file.

        Args:
            X: pandas, Polars or Arrow frame, or the path of a CSV or Parquet file.
            y: prices, shape (n_rows,); None: they are the column `price` of X.
            price: column of prices.
            warm: X are further rows of the catalogue that the model was fitted on: they join it, and only what is new is
                embedded.
        """
        raise NotImplementedError

    def evaluate(self, X: Any, y: Any = None, *, price: str | None = None) -> dict[str, Any]:
        """SMAPE, MAE, R2 and coverage on rows with prices, beside what was promised."""
        raise NotImplementedError

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model into a folder; nothing of it is a pickle."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """A model from its folder; every file is held against its digest, and torch is not imported.

        Raises:
            CorruptFileError: a file is missing or was changed.
            WorkspaceError: the folder is no model, of a newer format, or needs a package that is not installed.
        """
        raise NotImplementedError

    def score(self, X: Any, y: np.ndarray) -> float:
        """R2 of prices, as scikit-learn's regressors have it."""
        raise NotImplementedError
