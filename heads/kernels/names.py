"""How alike item names are, each respect by itself."""

import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from heads.features.tfidf import Tokens, Weighting, WordPairs

NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s?([a-z]{1,3}\b)?")  # and the unit after it
NUMBERS = "numbers of the name"
RESPECTS = ("item name", "words of the name", NUMBERS, "first word of the name")
BLOCK_ROWS = 1024


@dataclass
class NameSimilarities:
    """Item names of the training rows, for comparison with other names.

    In the order of `RESPECTS`: cosines of the TF-IDF of words and pairs of words, of words alone, and of numbers, alone and
    with their units; then 1 where both names begin with the same word, which is often the brand, else 0.

    Args:
        n_respects: how many of them, the first ones.
    """

    n_respects: int = len(RESPECTS)
    words_: WordPairs = field(init=False, repr=False)
    held_: Any = field(init=False, repr=False)  # (n_train, n_terms) sparse float32
    numbers_: "Numbers | None" = field(init=False, default=None, repr=False)
    held_numbers_: Any = field(init=False, default=None, repr=False)  # (n_train, n_numbers) sparse float32
    first_: np.ndarray = field(init=False, repr=False)  # (n_train,) number of the first word, -1: none

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
        if self.n_respects > RESPECTS.index(NUMBERS):
            self.numbers_ = Numbers()
            self.held_numbers_ = self.numbers_.fit_transform(names)
        return self.take(words, held, words.first_words(names, tokens))

    def take(self, words: WordPairs, held: Any, first: np.ndarray) -> Self:
        """Take in names whose words were counted, see `words_`, `held_` and `first_`."""
        self.words_, self.held_, self.first_ = words, held, first
        for of_other_names in ("_views", "_held_lengths"):
            vars(self).pop(of_other_names, None)
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
        numbers = None if self.numbers_ is None else self.numbers_.transform(names)
        lengths, n_cosines = self._lengths(asked), self._views.shape[1]
        found = np.empty((self.n_respects, *position.shape), np.float32)
        for start in range(0, len(position), BLOCK_ROWS):
            here = position[start : start + BLOCK_ROWS]
            rows = np.arange(start, start + len(here))
            repeated, held = np.repeat(rows, here.shape[1]), here.ravel()
            products = asked[repeated].multiply(self.held_[held]) @ self._views
            products /= np.maximum(lengths[repeated] * self._held_lengths[held], 1e-12)
            found[:n_cosines, rows] = products.T.reshape(n_cosines, *here.shape)
            if numbers is not None:
                alike = numbers[repeated].multiply(self.held_numbers_[held]).sum(axis=1)
                found[RESPECTS.index(NUMBERS), rows] = np.asarray(alike).reshape(here.shape)
        if self.n_respects == len(RESPECTS):
            first = self.words_.first_words(names, tokens)[:, None]
            found[-1] = (first == self.first_[position]) & (first >= 0)
        return found

    @cached_property
    def _views(self) -> np.ndarray:
        """Terms of each cosine of words, shape (n_terms, n_cosines) float32: 1 for those that it is of."""
        views = np.ones((self.held_.shape[1], 2), np.float32)
        views[len(self.words_.words_) :, 1] = 0.0
        return np.ascontiguousarray(views[:, : self.n_respects])

    @cached_property
    def _held_lengths(self) -> np.ndarray:
        return self._lengths(self.held_)

    def _lengths(self, X: Any) -> np.ndarray:
        """Of each row in each cosine of words, shape (n_rows, n_cosines)."""
        return np.asarray(np.sqrt(X.multiply(X) @ self._views))


@dataclass
class Numbers:
    """TF-IDF of the numbers in names, each counted by itself and, where a unit follows, with it: `1.5` and `1.5l`."""

    known_: dict[str, int] = field(init=False, repr=False)  # number -> column
    weighting_: Weighting = field(init=False, repr=False)

    def fit_transform(self, names: np.ndarray) -> Any:
        """Sparse float32 of shape (n_names, n_numbers)."""
        self.known_ = {}
        for name in names:
            for number in numbers_of(name):
                self.known_.setdefault(number, len(self.known_))
        counts = self._count(names)
        self.weighting_ = Weighting.fit(counts)
        return self.weighting_.transform(counts)

    def transform(self, names: np.ndarray) -> Any:
        """Sparse float32 of shape (n_names, n_numbers); a number never seen is not counted."""
        return self.weighting_.transform(self._count(names))

    def _count(self, names: Iterable[str]) -> Any:
        import scipy.sparse as sp

        columns, start = array("i"), [0]
        for name in names:
            columns.extend(at for number in numbers_of(name) if (at := self.known_.get(number)) is not None)
            start.append(len(columns))
        shape = len(start) - 1, len(self.known_)
        counts = sp.csr_matrix((np.ones(len(columns), np.float32), columns, start), shape)
        counts.sum_duplicates()
        return counts


def numbers_of(name: str) -> list[str]:
    """The numbers of a name, each alone and with a unit of up to three letters.

    >>> numbers_of("Omega-3 1.5 L, pack of 2x500ml")
    ['3', '1.5', '1.5l', '2', '500', '500ml']
    """
    found = []
    for number, unit in NUMBER.findall(name.lower()):
        found += [number, number + unit] if unit else [number]
    return found
