"""How alike item names are, each respect by itself."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from heads.features.tfidf import Tokens, WordPairs

RESPECTS = ("item name", "words of the name", "numbers of the name", "first word of the name")
BLOCK_ROWS = 1024


@dataclass
class NameSimilarities:
    """Item names of the training rows, for comparison with other names.

    In the order of `RESPECTS`: cosines of the TF-IDF of words and pairs of words, of words alone, and of words with a digit,
    such as sizes and model numbers; then 1 where both names begin with the same word, which is often the brand, else 0.

    Args:
        n_respects: how many of them, the first ones.
    """

    n_respects: int = len(RESPECTS)
    words_: WordPairs = field(init=False, repr=False)
    held_: Any = field(init=False, repr=False)  # (n_train, n_terms) sparse float32
    first_: np.ndarray = field(init=False, repr=False)  # (n_train,) number of the first word, -1: none
    views_: np.ndarray = field(init=False, repr=False)  # (n_terms, n_cosines) float32, 1: is of it

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
        views = np.zeros((n_terms, 3), np.float32)
        views[:, 0] = 1.0
        views[:n_words, 1] = 1.0
        views[:n_words, 2] = has_digit
        self.views_ = np.ascontiguousarray(views[:, : self.n_respects])
        vars(self).pop("_held_lengths", None)
        return self

    def compare(self, names: np.ndarray, tokens: Tokens | None, position: np.ndarray) -> np.ndarray:
        """Of each name with some training rows.

        Args:
            names: shape (n_rows,) of str.
            position: into the training rows, (n_rows, n_candidates); whatever, where there is none.

        Returns:
            Shape (n_respects, n_rows, n_candidates) float32; 0 where a name has no such words.
        """
        asked = self.words_.transform(names, tokens)
        lengths, n_cosines = self._lengths(asked), self.views_.shape[1]
        found = np.empty((self.n_respects, *position.shape), np.float32)
        for start in range(0, len(position), BLOCK_ROWS):
            here = position[start : start + BLOCK_ROWS]
            rows = np.arange(start, start + len(here))
            repeated, held = np.repeat(rows, here.shape[1]), here.ravel()
            products = asked[repeated].multiply(self.held_[held]) @ self.views_
            products /= np.maximum(lengths[repeated] * self._held_lengths[held], 1e-12)
            found[:n_cosines, rows] = products.T.reshape(n_cosines, *here.shape)
        if self.n_respects > n_cosines:
            first = self.words_.first_words(names, tokens)[:, None]
            found[n_cosines] = (first == self.first_[position]) & (first >= 0)
        return found

    @cached_property
    def _held_lengths(self) -> np.ndarray:
        return self._lengths(self.held_)

    def _lengths(self, X: Any) -> np.ndarray:
        """Of each row in each cosine, shape (n_rows, n_cosines)."""
        return np.asarray(np.sqrt(X.multiply(X) @ self.views_))
