"""Rows -> dense blocks of numbers for heads that need them, fitted on the training rows of the fold.

A row without a vector gets the mean vector of the training rows and an indicator, never unmarked zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from heads.features.categories import LevelColumns
from heads.features.rows import Rows
from store.vectors.matrix import Matrix

PART_ROWS = 1024  # small enough that the memory of their float64 copies is reused


@dataclass
class VectorBlock:
    """One vector set: mean of the training rows where there is none, centred and scaled.

    Args:
        scale: "block" divides by one number, so that the block has a mean squared length of 1 and the
            geometry stays; "column" gives each column unit variance; "none" only fills.
    """

    scale: str = "block"
    mean_: np.ndarray = field(init=False, repr=False)
    divisor_: np.ndarray = field(init=False, repr=False)
    indicates_: bool = field(init=False, default=False)

    def fit(self, matrix: Matrix) -> Self:
        mean, variance = _moments(matrix)
        self.mean_ = mean.astype(np.float32)
        if self.scale == "block":
            variance = np.full(matrix.dim, variance.sum())
        self.divisor_ = np.sqrt(np.where(variance > 1e-12, variance, 1.0)).astype(np.float32)
        self.indicates_ = bool((~matrix.valid).any() and matrix.valid.any())
        return self

    def transform(self, matrix: Matrix) -> np.ndarray:
        """Shape (n_rows, dim, plus one indicator where the training rows lack some) float32."""
        X = matrix.X.astype(np.float32)
        X[~matrix.valid] = self.mean_
        if self.scale != "none":
            X -= self.mean_
            X /= self.divisor_
        if not self.indicates_:
            return X
        return np.column_stack([X, (~matrix.valid).astype(np.float32)])


@dataclass
class FieldBlock:
    """Parsed fields: standardised numbers with an indicator where missing, one column a frequent category.

    Args:
        min_count: training rows that must hold a category for it to have a column.
        max_levels: at most so many columns a category, the most frequent ones.
        fill: False leaves missing numbers NaN and numbers unscaled, for trees.
    """

    min_count: int = 5
    max_levels: int = 1000
    fill: bool = True
    names_: list[str] = field(init=False, repr=False)
    mean_: np.ndarray = field(init=False, repr=False)
    divisor_: np.ndarray = field(init=False, repr=False)
    indicated_: np.ndarray = field(init=False, repr=False)
    levels_: LevelColumns = field(init=False, repr=False)

    def fit(self, rows: Rows) -> Self:
        X = rows.fields.X
        present = np.isfinite(X)
        count = np.maximum(present.sum(axis=0), 1)
        self.mean_ = np.where(present, X, 0.0).sum(axis=0) / count
        variance = np.where(present, (X - self.mean_) ** 2, 0.0).sum(axis=0) / count
        self.divisor_ = np.sqrt(np.where(variance > 1e-12, variance, 1.0))
        share = present.mean(axis=0) if len(X) else np.ones(X.shape[1])
        self.indicated_ = (share > 0) & (share < 1) & self.fill
        self.names_ = [*rows.fields.names]
        self.names_ += [f"missing:{rows.fields.names[i]}" for i in np.flatnonzero(self.indicated_)]
        self.levels_ = LevelColumns.of(rows.fields, len(self.names_), self.min_count, self.max_levels)
        self.names_ += self.levels_.names
        return self

    def transform(self, rows: Rows) -> np.ndarray:
        """Shape (n_rows, len(names_)) float32."""
        X = np.zeros((len(rows), len(self.names_)), np.float32)
        numbers = rows.fields.X
        n_numbers = numbers.shape[1]
        if self.fill:
            present = np.isfinite(numbers)
            X[:, :n_numbers] = np.where(present, (numbers - self.mean_) / self.divisor_, 0.0)
            X[:, n_numbers : n_numbers + int(self.indicated_.sum())] = ~present[:, self.indicated_]
        else:
            X[:, :n_numbers] = numbers
        self.levels_.mark(rows.fields, X)
        return X


@dataclass
class Design:
    """The matrix of features that a head learns from: each vector set, then the fields, side by side.

    Args:
        scale: of each vector set, see `VectorBlock`.
        fields: whether parsed fields are taken in.
        min_count: see `FieldBlock`.
    """

    scale: str = "block"
    fields: bool = True
    min_count: int = 5
    blocks_: list[VectorBlock] = field(init=False, repr=False)
    field_block_: FieldBlock | None = field(init=False, repr=False)

    def fit(self, rows: Rows) -> Self:
        self.blocks_ = [VectorBlock(self.scale).fit(matrix) for matrix in rows.matrices]
        self.field_block_ = FieldBlock(self.min_count).fit(rows) if self.fields else None
        return self

    def transform_blocks(self, rows: Rows) -> list[np.ndarray]:
        """One array a block, each of shape (n_rows, width) float32."""
        X = [block.transform(matrix) for block, matrix in zip(self.blocks_, rows.matrices, strict=True)]
        return [*X, self.field_block_.transform(rows)] if self.field_block_ is not None else X

    def transform(self, rows: Rows) -> np.ndarray:
        """Shape (n_rows, sum of widths) float32."""
        return np.concatenate(self.transform_blocks(rows), axis=1)

    def transform_parts(self, rows: Rows) -> Iterator[tuple[slice, np.ndarray]]:
        """Part by part, where the whole is to be kept elsewhere: which rows, and what `transform` makes of them."""
        for start in range(0, len(rows), PART_ROWS):
            part = slice(start, min(start + PART_ROWS, len(rows)))
            yield part, self.transform(rows.subset(np.arange(part.start, part.stop)))

    def width(self, rows: Rows) -> int:
        """Columns that `transform` makes of such rows."""
        return self.transform(rows.subset(np.arange(0))).shape[1]


def _moments(matrix: Matrix, rows: int = PART_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column over the valid rows, float64; zero where there are none."""
    count, total, squares = 0, np.zeros(matrix.dim), np.zeros(matrix.dim)
    for start in range(0, len(matrix.X), rows):
        part = slice(start, start + rows)
        X = matrix.X[part][matrix.valid[part]].astype(np.float64)
        count += len(X)
        total += X.sum(axis=0)
        squares += np.einsum("ij,ij->j", X, X)
    mean = total / max(count, 1)
    return mean, np.maximum(squares / max(count, 1) - mean**2, 0.0)
