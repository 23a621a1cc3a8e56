"""Nearest training rows by cosine, a row's own group left out.

Exact below 20,000 rows. From there on vectors of many columns are searched by their principal axes, and from 200,000
rows on one IVF list in 32 is.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from heads.features.components import principal_axes
from heads.features.products import row_products
from store.vectors.matrix import Matrix

EXACT_BELOW = 200_000  # rows; above, one IVF list in 32 is searched
PROBED_SHARE = 32  # one in 8 takes longer than all rows, which are compared as one product
AXES_FROM = 20_000  # rows from which vectors are searched by their axes …
AXES = 128  # … so many, where they have twice as many columns or more
AXES_ROWS = 10_000  # rows that axes are found on
WHITENED_AXES = 512  # principal axes that whitened vectors have, at most …
ROWS_PER_AXIS = 8  # … and so many rows for each
WHITENING = 0.75  # 0 leaves the variance of each axis as it is, 1 makes all alike
TRAINED_ROWS = 100_000  # rows that IVF's lists are placed by
LEAST_VARIANCE = 1e-6  # of an axis, by that of the first: what is less is rounding
BLOCK_ROWS = 8192


@dataclass
class Nearest:
    """Index over the training rows that have a vector in one set, their mean taken off all vectors.

    Vectors of one encoder share a large common part, which carries no information and hides differences. So do the few
    directions in which they differ most, such as the kind of product: whitening makes them count less.
    Source: Jegou and Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
    whitening", 2012.

    Args:
        exact_below: rows from which an inverted-file index takes over from exhaustive search.
        whitened: whether vectors are compared by their principal axes, each divided by a power of its deviation.
        steady: whether, of training rows that are equally near, those are found that come first; else whichever the index
            comes upon, which depends on the rows that are asked about together.
    """

    exact_below: int = EXACT_BELOW
    whitened: bool = False
    steady: bool = False
    centre_: np.ndarray = field(init=False, repr=False)  # (dim,)
    whitening_: np.ndarray | None = field(init=False, default=None, repr=False)  # (dim, n_axes) float32
    axes_: np.ndarray | None = field(init=False, default=None, repr=False)  # (n_axes, AXES) float32
    _unit: np.ndarray = field(init=False, repr=False)  # (n_train, n_axes) float32, rows of length 1, or 0
    valid_: np.ndarray = field(init=False, repr=False)  # (n_train,)
    group_: np.ndarray = field(init=False, repr=False)  # (n_train,)

    def fit(self, matrix: Matrix, group: np.ndarray) -> Self:
        self.centre_ = np.zeros(matrix.dim, np.float32)
        if matrix.valid.any():
            self.centre_ = matrix.X[matrix.valid].mean(axis=0, dtype=np.float32)
        self.valid_, self.group_ = matrix.valid, group
        held = np.flatnonzero(matrix.valid)
        sampled = held[:: max(1, len(held) // AXES_ROWS)]
        self.whitening_ = self.axes_ = None
        if self.whitened:
            self.whitening_ = whitening_axes(centred(matrix.rows(sampled), self.centre_))
        n_columns = matrix.dim if self.whitening_ is None else self.whitening_.shape[1]
        if len(held) >= AXES_FROM and n_columns >= 2 * AXES:
            unit = self.unit_rows(matrix.rows(sampled))
            self.axes_ = principal_axes(unit.T @ unit, AXES)
        return self.fill(matrix)

    def fill(self, matrix: Matrix) -> Self:
        """Take in the vectors of the rows fitted on; what `fit` found out about them stays."""
        import faiss

        self._unit = self.unit_rows(matrix)
        position = np.flatnonzero(matrix.valid)
        first = entry = np.arange(len(position))
        if self.steady:
            first, entry = distinct_rows(self._unit[position])
        self._first = position[first]
        self._members = position[np.argsort(entry, kind="stable")]
        self._n_members = np.bincount(entry, minlength=len(first))
        held = np.ascontiguousarray(self._searched(self._unit[self._first]))
        dim = held.shape[1]
        if len(held) < self.exact_below:
            self._index: Any = faiss.IndexFlatIP(dim)
        else:
            lists = max(1, int(4 * np.sqrt(len(held))))
            flat = faiss.IndexFlatIP(dim)
            self._index = faiss.IndexIVFFlat(flat, dim, lists, faiss.METRIC_INNER_PRODUCT)
            self._flat = flat  # faiss keeps only a pointer to it
            self._index.nprobe = max(1, lists // PROBED_SHARE)
            self._index.cp.seed = 0
            step = max(1, len(held) // TRAINED_ROWS)
            self._index.train(held[::step])
        self._index.add(held)
        return self

    def search(self, matrix: Matrix, group: np.ndarray, k: int, unit: np.ndarray | None = None) -> np.ndarray:
        """Training rows nearest to each row, its own group left out.

        Args:
            group: shape (n_rows,), of the rows asked about.
            unit: what `unit_rows` makes of the rows, where that is known.

        Returns:
            Positions in the training rows, nearest first, shape (n_rows, k); -1 where there are no more.
        """
        unit = self.unit_rows(matrix) if unit is None else unit
        found = np.full((len(unit), k), -1, dtype=np.int64)
        todo, asked = np.flatnonzero(matrix.valid), min(2 * k, len(self._members))
        while len(todo) and asked:
            short = []
            for start in range(0, len(todo), BLOCK_ROWS):
                rows = todo[start : start + BLOCK_ROWS]
                short.append(rows[self._keep(self._near(unit[rows], asked), rows, group, k, found)])
            todo = np.concatenate(short)
            if asked == len(self._members):
                break
            asked = min(4 * asked, len(self._members))
        return found

    def _near(self, unit: np.ndarray, asked: int) -> np.ndarray:
        """So many nearest training rows of each row, nearest first, shape (n_rows, asked); -1 where there are no more.

        The index rounds the same cosine in one way for one row and in another for many, so that they are computed anew.
        """
        _, near = self._index.search(self._searched(unit), min(asked, len(self._first)))
        if not self.steady:
            return np.where(near >= 0, self._members[near], -1)
        near = np.sort(near, axis=1)
        cosine = np.where(near >= 0, self._products(unit, self._first[near]), -np.inf)
        near = np.take_along_axis(near, np.argsort(-cosine, axis=1, kind="stable"), axis=1)
        # Each place of the index stands for all training rows with that vector.
        count = np.where(near >= 0, self._n_members[near], 0)
        start = count.cumsum(axis=1) - count
        count = np.clip(asked - start, 0, count)
        row = np.repeat(np.arange(len(near)), count.sum(axis=1))
        step = np.arange(len(row)) - np.repeat(count.ravel().cumsum() - count.ravel(), count.ravel())
        found = np.full((len(near), asked), -1, dtype=np.int64)
        of = np.repeat(near.ravel(), count.ravel())
        member = (self._n_members.cumsum() - self._n_members)[of] + step
        found[row, np.repeat(start.ravel(), count.ravel()) + step] = self._members[member]
        return found

    def unit_rows(self, matrix: Matrix) -> np.ndarray:
        """Rows as they are compared, shape (n_rows, n_axes)."""
        return unit_rows(matrix, self.centre_, self.whitening_)

    def _searched(self, unit: np.ndarray) -> np.ndarray:
        """Rows of length 1 as the index holds them."""
        return unit if self.axes_ is None else row_products(unit, self.axes_)

    def _keep(
        self, position: np.ndarray, rows: np.ndarray, group: np.ndarray, k: int, found: np.ndarray
    ) -> np.ndarray:
        """Write what was found into `found`; True for a row that lacks some because of its own group."""
        own = (position >= 0) & (self.group_[position] == group[rows][:, None])
        allowed = (position >= 0) & ~own
        order = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
        kept = np.where(
            np.take_along_axis(allowed, order, axis=1), np.take_along_axis(position, order, axis=1), -1
        )
        found[rows, : kept.shape[1]] = kept
        return np.asarray((allowed.sum(axis=1) < k) & own.any(axis=1))

    def cosine(self, matrix: Matrix, candidates: np.ndarray, unit: np.ndarray | None = None) -> np.ndarray:
        """Cosine of each row with each of its candidates, shape (n_rows, n_candidates); NaN where unknown.

        Args:
            unit: what `unit_rows` makes of the rows, where that is known.
        """
        unit = self.unit_rows(matrix) if unit is None else unit
        known = self.valid_[candidates] & matrix.valid[:, None] & (candidates >= 0)
        return np.where(known, self._products(unit, candidates), np.nan)

    def _products(self, unit: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Cosine of each row with each of its candidates, the same bits whatever other rows and candidates there are."""
        import faiss

        ids = np.ascontiguousarray(candidates, np.int64)
        cosines = np.zeros(candidates.shape, np.float32)
        if unit.shape[1]:
            pointers = map(faiss.swig_ptr, (cosines, unit, self._unit, ids))
            products_by_position = faiss.fvec_inner_products_by_idx  # type: ignore[attr-defined]
            products_by_position(*pointers, unit.shape[1], *candidates.shape)
        return cosines


def distinct_rows(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows that differ from all before them, (n_distinct,), and which of these each row is, (n_rows,)."""
    if not X.shape[1]:
        return np.arange(min(1, len(X))), np.zeros(len(X), np.int64)
    whole = np.ascontiguousarray(X).view(np.dtype((np.void, X.shape[1] * X.itemsize))).ravel()
    _, first, entry = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[entry.ravel()]


def unit_rows(matrix: Matrix, centre: np.ndarray, whitening: np.ndarray | None = None) -> np.ndarray:
    """Rows less `centre`, scaled to length 1, shape (n_rows, n_axes) float32; zero where there is no vector.

    Args:
        whitening: what they are multiplied by before they are scaled, shape (dim, n_axes); None: nothing.
    """
    X = centred(matrix, centre)
    if whitening is not None:
        X = row_products(X, whitening)
    X /= np.maximum(np.sqrt(np.einsum("ij,ij->i", X, X)), 1e-12)[:, None]
    X[~matrix.valid] = 0.0
    return X


def centred(matrix: Matrix, centre: np.ndarray) -> np.ndarray:
    """Rows less `centre`, shape (n_rows, dim) float32."""
    X = np.ascontiguousarray(matrix.X.astype(np.float32))
    X -= centre
    return X


def whitening_axes(X: np.ndarray) -> np.ndarray | None:
    """Principal axes of centred rows, each divided by a power of its deviation, shape (dim, n_axes) float32.

    None where there are too few rows to find any, or where they are all alike.
    """
    count = min(WHITENED_AXES, X.shape[1], len(X) // ROWS_PER_AXIS)
    if not count:
        return None
    axes = principal_axes(X.T @ X, count)
    variance = (X @ axes).var(axis=0)
    told = variance > LEAST_VARIANCE * variance.max()
    if not told.any():
        return None
    scale = (variance[told] / variance.max()) ** (-WHITENING / 2)
    return np.asarray(axes[:, told] * scale, np.float32)
