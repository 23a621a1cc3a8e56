"""`sparse`: TF-IDF of words, word pairs and characters, then ridge: what dense vectors can't replace."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.rows import Rows


@dataclass(kw_only=True, eq=False)
class Sparse(Head):
    """Ridge on TF-IDF; vocabulary and document frequencies are those of the rows it is fitted on."""

    name: ClassVar[str] = "sparse"
    summary: ClassVar[str] = "TF-IDF of words, pairs and characters, then ridge"
    vectors: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)
    texts: ClassVar[tuple[str, ...]] = ("full",)

    alpha: float = 0.3  # penalty
    min_rows: int = 2  # rows that must hold a word or character run
    max_features: int = 300_000  # of each of the two vocabularies

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge

        shared: dict[str, Any] = {
            "sublinear_tf": True,
            "min_df": min(self.min_rows, len(rows)),
            "max_features": self.max_features,
            "dtype": np.float32,
        }
        self.words_ = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **shared)
        self.mean_ = float(log_price.mean())
        X = self.words_.fit_transform(rows.text("full"))
        self.ridge_ = Ridge(alpha=self.alpha, solver="sparse_cg", fit_intercept=False)
        self.ridge_.fit(X, log_price - self.mean_)

    def _predict(self, rows: Rows) -> np.ndarray:
        predicted: np.ndarray = self.ridge_.predict(self.words_.transform(rows.text("full"))) + self.mean_
        return predicted
