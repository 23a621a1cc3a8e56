"""How alike item names are, each respect by itself."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from heads.features.tfidf import Tokens, WordPairs

RESPECTS = ("item name", "words of the name", "numbers of the name", "first word of the name")
BLOCK_ROWS = 1024


@dataclass
class NameSimilarities:
    """Item names of the training rows, for comparison with other names.

    In the order of `RESPECTS`, of which the first few can be asked for: cosines of the TF-IDF of words and pairs of words, of words alone, and of words with a digit,
    such as sizes and model numbers; then 1 where both names begin with the same word, which is often the brand, else 0.
    """

    n_respects: int = len(RESPECTS)
    words_: WordPairs = field(init=False, repr=False)
    held_: Any = field(init=False, repr=False)  # (n_train, n_terms) sparse float32
    first_: np.ndarray = field(init=False, repr=False)  # (n_train,) number of the first word, -1: none
    views_: np.ndarray = field(init=False, repr=False)  # (n_terms, 3) float32, 1 for the terms of a cosine

    @property
    def respects(self) -> tuple[str, ...]:
        """What `compare` gives, in its order."""
        return RESPECTS[: self.n_respects]

    def fit(self, names: np.ndarray, tokens: Tokens | None) -> Self:
        """Take in the names of the training rows, shape (n_train,) of str.

        Args:
            tokens: of the names, where they were cut before.
        """
        words = WordPairs()
        held = words.fit_transform(names, tokens)
        return self.take(words, held, words.first_words(names, tokens))

    def take(self, words: WordPairs, held: Any, first: np.ndarray) -> Self:
        """Take in names that were counted, see `words_`, `held_` and `first_`."""
        self.words_, self.held_, self.first_ = words, held, first
        has_digit = [any(map(str.isdigit, word)) for word in self.words_.words_]
        n_words, n_terms = len(has_digit), self.held_.shape[1]
        self.views_ = np.zeros((n_terms, 3), np.float32)
        self.views_[:, 0] = 1.0
        self.views_[:n_words, 1] = 1.0
        self.views_[:n_words, 2] = has_digit
        return self

    def compare(self, names: np.ndarray, tokens: Tokens | None, position: np.ndarray) -> np.ndarray:
        """Of each name with some training rows.

        Args:
            names: shape (n_rows,) of str.
            position: into the training rows, (n_rows, n_candidates); whatever, where there is none.

        Returns:
            Shape (n_respects, n_rows, n_candidates) float32; 0 where a name has no such words.
        """
        asked, first = self.words_.transform(names, tokens), self.words_.first_words(names, tokens)
        asked_length, held_length = self._lengths(asked), self._lengths(self.held_)
        found = np.empty((len(RESPECTS), *position.shape), np.float32)
        for start in range(0, len(position), BLOCK_ROWS):
            here = position[start : start + BLOCK_ROWS]
            rows = np.arange(start, start + len(here))
            repeated = np.repeat(rows, here.shape[1])
            products = asked[repeated].multiply(self.held_[here.ravel()]) @ self.views_
            products /= np.maximum(asked_length[repeated] * held_length[here.ravel()], 1e-12)
            found[:3, rows] = products.T.reshape(3, *here.shape)
            found[3, rows] = (first[rows, None] == self.first_[here]) & (first[rows, None] >= 0)
        return found[: self.n_respects]

    def _lengths(self, X: Any) -> np.ndarray:
        """Of each row in each view, shape (n_rows, 3)."""
        return np.asarray(np.sqrt(X.multiply(X) @ self.views_))
