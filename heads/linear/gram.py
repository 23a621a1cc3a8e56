"""Sums of products of raw columns, cell by cell: all that ridge needs of the rows, from one pass.

Mean imputation, centring and scaling are linear, so they are applied to the sums of whichever rows are
fitted (`heads/path.py`), never to the rows.
"""

from dataclasses import dataclass

import numpy as np

from heads.features.rows import Rows
from heads.folds.parallel import each_on_a_core
from heads.linear.layout import ColumnLayout

BLOCK_ROWS = 2048
EXACT_FLOPS = 4e10  # below it products are summed in float64 throughout


@dataclass
class Sums:
    """Sums over some rows, each times its weight."""

    n_rows: float  # sum of the weights
    columns: np.ndarray  # (n_columns,) sum of raw rows
    gram: np.ndarray  # (n_columns, n_columns) sum of their outer products
    target: float  # sum of log price
    products: np.ndarray  # (n_columns,) sum of raw row times log price

    @classmethod
    def joined(cls, parts: list["Sums"]) -> "Sums":
        """Sums over all rows of the parts: folds are added up, never subtracted from a total."""
        first, *others = parts
        joined = cls(
            first.n_rows, first.columns.copy(), first.gram.copy(), first.target, first.products.copy()
        )
        for other in others:
            joined.n_rows += other.n_rows
            joined.columns += other.columns
            joined.gram += other.gram
            joined.target += other.target
            joined.products += other.products
        return joined


def sum_cells(rows: Rows, log_price: np.ndarray, cell: np.ndarray, layout: ColumnLayout) -> dict[int, Sums]:
    """One pass over the rows: the sums of each cell, several cells at a time.

    Products of a block of rows are float32 (float64 for small data), sums over blocks float64.

    Args:
        log_price: shape (n_rows,).
        cell: shape (n_rows,), rows of one cell are never taken apart afterwards.
    """
    p = layout.n_columns
    dtype = product_dtype(len(rows), p)

    def sums_of(value: int) -> Sums:
        index = np.flatnonzero(cell == value)
        weight = None if rows.weight is None else rows.weight[index]
        target = log_price[index] if weight is None else log_price[index] * weight
        n_rows = len(index) if weight is None else float(weight.sum())
        sums = Sums(n_rows, np.zeros(p), np.zeros((p, p)), float(target.sum()), np.zeros(p))
        for start in range(0, len(index), BLOCK_ROWS):
            part = index[start : start + BLOCK_ROWS]
            X = layout.raw(rows, part, dtype)
            weighted = X if rows.weight is None else X * rows.weight[part, None].astype(dtype)
            sums.columns += weighted.sum(axis=0, dtype=np.float64)
            sums.products += log_price[part].astype(dtype) @ weighted
            sums.gram += weighted.T @ X
        return sums

    values = np.unique(cell).tolist()
    return dict(zip(values, each_on_a_core(sums_of, values), strict=True))


def product_dtype(n_rows: int, n_columns: int) -> type[np.floating]:
    """float32 where float64 would take long."""
    return np.float64 if n_rows * n_columns * n_columns < EXACT_FLOPS else np.float32
