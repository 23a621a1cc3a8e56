"""TF-IDF in two steps: counting, which fits nothing and is done once, and weighting, fitted inside the fold."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Terms:
    """One family of terms: which text, cut how."""

    composition: str
    analyzer: str  # "word" or "char_wb"
    shortest: int  # terms of so many words or characters …
    longest: int  # … to so many

    def vectorizer(self, min_rows: int) -> Any:
        """A scikit-learn counter; terms held by fewer rows than that in all could never be used in a fold."""
        from sklearn.feature_extraction.text import CountVectorizer

        return CountVectorizer(
            analyzer=self.analyzer,
            ngram_range=(self.shortest, self.longest),
            token_pattern=r"(?u)\b\w+\b" if self.analyzer == "word" else None,
            min_df=min_rows,
            dtype=np.float32,
        )


@dataclass(frozen=True)
class Weighting:
    """TF-IDF of counts: 1 + log of the count, times idf, each row scaled to length 1."""

    columns: np.ndarray  # (n_kept,) of the counts: terms frequent enough in the fitted rows
    idf: np.ndarray  # (n_kept,) float32

    @classmethod
    def fit(cls, counts: Any, min_rows: int, max_terms: int) -> "Weighting":
        """From the counts of the fitted rows alone, sparse of shape (n_rows, n_terms)."""
        n_rows, n_terms = counts.shape
        held_by = np.bincount(counts.indices, minlength=n_terms)
        columns = np.flatnonzero(held_by >= min(min_rows, n_rows))
        if len(columns) > max_terms:
            columns = np.sort(columns[np.argsort(-held_by[columns], kind="stable")[:max_terms]])
        idf = np.log((1 + n_rows) / (1 + held_by[columns])) + 1
        return cls(columns, idf.astype(np.float32))

    def transform(self, counts: Any) -> Any:
        """Sparse float32 of shape (n_rows, n_kept)."""
        from sklearn.preprocessing import normalize

        X = counts[:, self.columns]
        X.data = (1 + np.log(X.data)) * self.idf[X.indices]
        return normalize(X, copy=False)


def counts_of(vectorizer: Any, texts: np.ndarray, *, fit: bool) -> Any:
    """Counts, sparse of shape (n_rows, n_terms); no columns where no text holds a frequent term."""
    import scipy.sparse as sp

    if not fit:
        known = getattr(vectorizer, "vocabulary_", None)
        return vectorizer.transform(texts) if known else sp.csr_matrix((len(texts), 0), dtype=np.float32)
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's words for an empty vocabulary
        if "vocabulary" not in str(error) and "no terms remain" not in str(error).lower():
            raise
        return sp.csr_matrix((len(texts), 0), dtype=np.float32)
