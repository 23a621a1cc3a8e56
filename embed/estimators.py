"""Encoders as scikit-learn transformers: for a pipeline, a ColumnTransformer, skrub's TableVectorizer."""

import os
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from embed.encoding import Cache, Missing, check_missing, encode, find_encoder
from store.vectors.spec import EncoderSpec, Modality, slug


class _ColumnEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What both have in common. Nothing is learned: `fit` looks at the name of the column alone."""

    modality: ClassVar[Modality]
    # skrub gives such a transformer each column for itself.
    __single_column_transformer__ = True

    encoder: str
    cache: Cache | None
    device: str
    precision: str
    missing: Missing
    models_dir: str | os.PathLike[str] | None
    offline: bool

    def fit(self, X: Any, y: Any = None) -> "_ColumnEncoder":
        """Check the options and take note of the column's name; no model is loaded.

        Raises:
            EncoderError, ConfigError, ValueError: see `transform`.
        """
        check_missing(self.missing)
        self._spec()
        _, name = _column(X)
        self.n_features_in_ = 1
        if name is not None:
            self.feature_names_in_ = np.array([name], object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Vectors of a column, see `embed.encode`.

        Args:
            X: a column, a table of one column, or a list, of n_rows items.

        Returns:
            Shape (n_rows, dim), float32, or the table that `set_output` asks for.

        Raises:
            ValueError: there are several columns.
            TypeError: an item is not what the encoder takes.
            EncoderError, MissingVectorsError: see `embed.encode`.
        """
        items, _ = _column(X)
        return encode(
            items,
            self._spec().name,
            self.cache,
            device=self.device,
            precision=self.precision,
            missing=self.missing,
            models_dir=self.models_dir,
            offline=self.offline,
        )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """`<column>_<number>` for each dimension; the encoder's name stands for a column without one."""
        dim = self._spec().dim
        names = getattr(self, "feature_names_in_", [slug(self.encoder)])
        prefix = (names if input_features is None else np.atleast_1d(input_features))[0]
        return np.array([f"{prefix}_{i:0{len(str(dim - 1))}d}" for i in range(dim)], object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False  # of numbers, that is
        tags.input_tags.string = tags.input_tags.one_d_array = tags.input_tags.allow_nan = True
        return tags

    def _spec(self) -> EncoderSpec:
        found = find_encoder(
            self.encoder, self.modality, self.cache, self.precision, self.models_dir, self.offline
        )
        return found.spec


class _FramedEncoder(_ColumnEncoder):
    """The same with a column made a table, whose index scikit-learn hands on to the output."""

    def transform(self, X: Any) -> np.ndarray:
        """See `_ColumnEncoder`."""
        return super().transform(X.to_frame() if _is_series(X) else X)


class TextEncoder(_FramedEncoder):
    """A column of texts -> their vectors, as a scikit-learn transformer.

    Nothing is fitted, so nothing can leak. It holds its options alone and can be cloned, pickled and sent
    to other processes; the model is loaded where it is used, once in each process, and stays for the next call. With
    `cache` a vector is computed once for all folds, processes and sessions.

        >>> from sklearn.compose import make_column_transformer
        >>> from sklearn.linear_model import Ridge
        >>> from sklearn.pipeline import make_pipeline
        >>> from embed import TextEncoder
        >>> model = make_pipeline(
        ...     make_column_transformer((TextEncoder("minilm", cache="run"), "description"), ("passthrough", ["weight"])),
        ...     Ridge(),
        ... )

    In skrub: `TableVectorizer(high_cardinality=TextEncoder("minilm"))`.

    Args:
        encoder: a short name, an address or a folder (docs/encoders.md); of a model with two towers its text tower.
        cache: a workspace, or the folder or address of one, as of `embed.encode`.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", "all"; several as "cuda:0,cuda:1".
        precision: "auto", "fp32", "bf16", "fp16" or "int8".
        missing: what None, NaN and an empty text become: a row of "zero", of "nan", or an "error".
        models_dir: folder of models carried over from a connected machine.
        offline: never ask the model hub.
    """

    modality = "text"

    def __init__(
        self,
        encoder: str = "minilm",
        *,
        cache: Cache | None = None,
        device: str = "auto",
        precision: str = "auto",
        missing: Missing = "zero",
        models_dir: str | os.PathLike[str] | None = None,
        offline: bool = False,
    ) -> None:
        self.encoder = encoder
        self.cache = cache
        self.device = device
        self.precision = precision
        self.missing = missing
        self.models_dir = models_dir
        self.offline = offline


class ImageEncoder(_FramedEncoder):
    """A column of images -> their vectors, as a scikit-learn transformer.

    Items are paths, bytes of image files or Pillow images. All else is as in `TextEncoder`.

        >>> from embed import ImageEncoder
        >>> X = ImageEncoder("efficientnet-lite0-stages").fit_transform(["tea.jpg", "oil.jpg"])  # doctest: +SKIP

    Args:
        encoder: a short name, an address or a folder (docs/encoders.md); of a model with two towers its image tower.
        cache: a workspace, or the folder or address of one, as of `embed.encode`.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", "all"; several as "cuda:0,cuda:1".
        precision: "auto", "fp32", "bf16", "fp16" or "int8".
        missing: what None, NaN, a file that is not there and a broken image become: a row of "zero", of "nan", or an
            "error". A warning counts those that are there and can't be read or decoded.
        models_dir: folder of models carried over from a connected machine.
        offline: never ask the model hub.
    """

    modality = "image"

    def __init__(
        self,
        encoder: str = "efficientnet-lite0-stages",
        *,
        cache: Cache | None = None,
        device: str = "auto",
        precision: str = "auto",
        missing: Missing = "zero",
        models_dir: str | os.PathLike[str] | None = None,
        offline: bool = False,
    ) -> None:
        self.encoder = encoder
        self.cache = cache
        self.device = device
        self.precision = precision
        self.missing = missing
        self.models_dir = models_dir
        self.offline = offline


def _is_series(X: Any) -> bool:
    """A column of pandas or Polars."""
    return hasattr(X, "to_frame") and getattr(X, "ndim", 1) == 1


def _column(X: Any) -> tuple[Any, str | None]:
    """The items of a column or of a table of one column, and its name where it has one that is a string.

    Raises:
        ValueError: there are several columns.
    """
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) == 2:
        if shape[1] != 1:
            raise ValueError(
                f"one column is encoded at a time, got {shape[1]}: put an encoder for each into a ColumnTransformer"
            )
        if isinstance(X, np.ndarray):
            return X[:, 0], None
        X = X[X.columns[0]] if hasattr(X, "columns") else X[:, 0]
    name = getattr(X, "name", None)
    return X, name if isinstance(name, str) and name else None
