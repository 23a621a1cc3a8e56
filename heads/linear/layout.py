"""The raw columns of ridge: which there are, and a block of rows as numbers. Nothing is fitted.

A raw row is each vector (zero where there is none), the numbers (zero where missing), an indicator for
each number and vector set that may lack some, one column a category.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.features.categories import LevelColumns
from heads.features.rows import FieldTable, Rows

SAMPLE_ROWS = 2048


@dataclass(frozen=True)
class ColumnBlock:
    """Columns that are scaled together."""

    start: int
    stop: int
    kind: str  # "vectors", "numbers", "categories"


@dataclass(frozen=True)
class ColumnLayout:
    """Which raw columns there are. Holds no statistic but a shift, which centring undoes exactly."""

    shift: np.ndarray  # (n_columns,) float32, keeps sums small: precision only
    blocks: tuple[ColumnBlock, ...]
    fills: tuple[tuple[int, int, int], ...]  # (start, stop, indicator): columns zero where indicator is 1
    levels: LevelColumns
    n_numbers: int

    @property
    def n_columns(self) -> int:
        return len(self.shift)

    @classmethod
    def of(cls, rows: Rows, min_count: int, use_fields: bool) -> "ColumnLayout":
        """The columns that these rows can have; those constant in the rows fitted later get no weight."""
        at, blocks, fills, shift = 0, [], [], []
        for matrix in rows.matrices:
            blocks.append(ColumnBlock(at, at + matrix.dim, "vectors"))
            sample = matrix.X[:SAMPLE_ROWS][matrix.valid[:SAMPLE_ROWS]].astype(np.float32)
            shift.append(sample.mean(axis=0) if len(sample) else np.zeros(matrix.dim, np.float32))
            at += matrix.dim
        numbers = rows.fields.X if use_fields else np.empty((len(rows), 0))
        n_numbers, first = numbers.shape[1], at
        lacking = np.flatnonzero((~np.isfinite(numbers)).any(axis=0))
        at += n_numbers
        with np.errstate(invalid="ignore"):
            present = np.isfinite(numbers)
            shift.append(np.where(present, numbers, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1))
        for column in lacking:
            fills.append((first + int(column), first + int(column) + 1, at))
            at += 1
        for block in blocks:
            fills.append((block.start, block.stop, at))
            at += 1
        if at > first:
            blocks.append(ColumnBlock(first, at, "numbers"))
        start, levels = at, LevelColumns.of(rows.fields if use_fields else FieldTable(), at, min_count)
        at = levels.stop
        if at > start:
            blocks.append(ColumnBlock(start, at, "categories"))
        values = np.concatenate([*shift, np.zeros(at)])[:at].astype(np.float32)
        values[first + n_numbers :] = 0.0
        return cls(values, tuple(blocks), tuple(fills), levels, n_numbers)

    def describe(self) -> dict[str, Any]:
        """What the columns are, as JSON."""
        return {
            "blocks": [[block.start, block.stop, block.kind] for block in self.blocks],
            "fills": [list(fill) for fill in self.fills],
            "levels": self.levels.levels,
        }

    def raw(self, rows: Rows, index: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        """Raw columns of the rows at `index`, shape (len(index), n_columns)."""
        X = np.zeros((len(index), self.n_columns), dtype)
        vector_blocks = [block for block in self.blocks if block.kind == "vectors"]
        for matrix, block in zip(rows.matrices, vector_blocks, strict=True):
            part = X[:, block.start : block.stop]
            part[:] = matrix.X[index]
            part -= self.shift[block.start : block.stop]
            part[~matrix.valid[index]] = 0.0
        first = vector_blocks[-1].stop if vector_blocks else 0
        numbers = rows.fields.X[index, : self.n_numbers] - self.shift[first : first + self.n_numbers]
        missing = ~np.isfinite(numbers)
        X[:, first : first + self.n_numbers] = np.where(missing, 0.0, numbers)
        for start, _, indicator in self.fills[: len(self.fills) - len(vector_blocks)]:
            X[:, indicator] = missing[:, start - first]
        for matrix, (_, _, indicator) in zip(
            rows.matrices, self.fills[len(self.fills) - len(vector_blocks) :]
        ):
            X[:, indicator] = ~matrix.valid[index]
        self.levels.mark(rows.fields, X, index)
        return X
