"""Sums of products of raw columns, cell by cell: all that ridge needs of the rows, from one pass.

A raw row is each vector (zero where there is none), an indicator where a set lacks some, the numbers
(zero where missing), their indicators, one column a category. Mean imputation, centring and scaling are
linear, so they are applied to the sums of whichever rows are fitted, never to the rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.rows import Rows

BLOCK_ROWS = 2048
EXACT_FLOPS = 4e10  # below it products are summed in float64 throughout


@dataclass(frozen=True)
class Block:
    """Columns that are scaled together."""

    start: int
    stop: int
    kind: str  # "vectors", "numbers", "categories"


@dataclass(frozen=True)
class Layout:
    """Which raw columns there are. Holds no statistic but a shift, which centring undoes exactly."""

    shift: np.ndarray  # (n_columns,) float32, keeps sums small: precision only
    blocks: tuple[Block, ...]
    fills: tuple[tuple[int, int, int], ...]  # (start, stop, indicator): columns zero where indicator is 1
    levels: dict[str, dict[str, int]]  # category -> level -> column
    n_numbers: int

    @property
    def n_columns(self) -> int:
        return len(self.shift)

    @classmethod
    def of(cls, rows: Rows, min_count: int, use_fields: bool) -> "Layout":
        """The columns that these rows can have; those constant in the rows fitted later get no weight."""
        at, blocks, fills, shift = 0, [], [], []
        for matrix in rows.matrices:
            blocks.append(Block(at, at + matrix.dim, "vectors"))
            sample = matrix.X[:BLOCK_ROWS][matrix.valid[:BLOCK_ROWS]].astype(np.float32)
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
            blocks.append(Block(first, at, "numbers"))
        levels: dict[str, dict[str, int]] = {}
        start = at
        for name, category in rows.fields.categories.items() if use_fields else ():
            counts = np.bincount(category.codes[category.codes >= 0], minlength=len(category.levels))
            kept = sorted(category.levels[i] for i in np.flatnonzero(counts >= min_count))
            levels[name] = {level: at + i for i, level in enumerate(kept)}
            at += len(kept)
        if at > start:
            blocks.append(Block(start, at, "categories"))
        values = np.concatenate([*shift, np.zeros(at)])[:at].astype(np.float32)
        values[first + n_numbers :] = 0.0
        return cls(values, tuple(blocks), tuple(fills), levels, n_numbers)

    def describe(self) -> dict[str, Any]:
        """What the columns are, as JSON."""
        return {
            "blocks": [[block.start, block.stop, block.kind] for block in self.blocks],
            "fills": [list(fill) for fill in self.fills],
            "levels": self.levels,
        }

    def raw(self, rows: Rows, index: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        """Raw columns of the rows at `index`, shape (len(index), n_columns)."""
        X = np.zeros((len(index), self.n_columns), dtype)
        vector_blocks = [block for block in self.blocks if block.kind == "vectors"]
        for matrix, block in zip(rows.matrices, vector_blocks, strict=True):
            part = X[:, block.start : block.stop]
            np.subtract(matrix.X[index], self.shift[block.start : block.stop], out=part, casting="unsafe")
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
        for name, columns in self.levels.items():
            category = rows.fields.categories[name]
            column = np.array([columns.get(level, -1) for level in category.levels] + [-1])[
                category.codes[index]
            ]
            held = np.flatnonzero(column >= 0)
            X[held, column[held]] = 1.0
        return X


@dataclass
class Sums:
    """Sums over some rows."""

    n_rows: int
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


def sum_cells(rows: Rows, log_price: np.ndarray, cell: np.ndarray, layout: Layout) -> dict[int, Sums]:
    """One pass over the rows: the sums of each cell.

    Products of a block of rows are float32 (float64 for small data), sums over blocks float64.

    Args:
        log_price: shape (n_rows,).
        cell: shape (n_rows,), rows of one cell are never taken apart afterwards.
    """
    p = layout.n_columns
    dtype = _dtype(len(rows), p)
    cells = {}
    for value in np.unique(cell):
        index = np.flatnonzero(cell == value)
        sums = Sums(len(index), np.zeros(p), np.zeros((p, p)), float(log_price[index].sum()), np.zeros(p))
        for start in range(0, len(index), BLOCK_ROWS):
            part = index[start : start + BLOCK_ROWS]
            X = layout.raw(rows, part, dtype)
            sums.columns += X.sum(axis=0, dtype=np.float64)
            sums.products += log_price[part].astype(dtype) @ X
            sums.gram += X.T @ X
        cells[int(value)] = sums
    return cells


@dataclass(frozen=True)
class Scaling:
    """How columns are weighted against each other before the penalty: each block gets a total variance."""

    vector_weights: tuple[float, ...]  # of each vector set
    vectors: str  # "block": one divisor a set; "column": unit variance a column first
    number_weight: float
    category_weight: float
    min_count: int  # fitted rows that must hold a category

    def weights(self, layout: Layout, count: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Factor of each column, 0 for columns constant or too rare in the fitted rows; (n_columns,)."""
        weights = np.zeros(layout.n_columns)
        factors = [*self.vector_weights]
        for block in layout.blocks:
            here = slice(block.start, block.stop)
            live = variance[here] > 1e-9
            by_kind = {"numbers": self.number_weight, "categories": self.category_weight}
            factor = by_kind[block.kind] if block.kind in by_kind else factors.pop(0)
            if block.kind == "categories":
                live &= count[here] >= self.min_count
            if block.kind == "numbers" or (block.kind == "vectors" and self.vectors == "column"):
                part = np.where(live, 1.0 / np.sqrt(np.where(live, variance[here], 1.0)), 0.0)
            else:
                part = live.astype(float)
            total = float((part**2 * variance[here]).sum())
            weights[here] = part * (factor / np.sqrt(total)) if total > 0 else 0.0
        return weights


@dataclass(frozen=True)
class Path:
    """Linear models on raw columns, one a penalty."""

    coefficients: np.ndarray  # (n_columns, n_penalties)
    intercept: np.ndarray  # (n_penalties,)

    @classmethod
    def joined(cls, paths: list["Path"]) -> "Path":
        """Paths side by side."""
        coefficients = np.concatenate([path.coefficients for path in paths], axis=1)
        return cls(coefficients, np.concatenate([path.intercept for path in paths]))


def solve_path(sums: Sums, layout: Layout, scaling: Scaling, penalties: np.ndarray) -> Path:
    """Ridge for every penalty from one reduction to tridiagonal form.

    A = Q T Q' costs about five Cholesky factorisations; each penalty is then a tridiagonal solve, so 20
    penalties are 4x cheaper than a Cholesky each, and far cheaper than eigenvectors.

    Args:
        sums: of the rows fitted on; its Gram matrix is overwritten.
        penalties: shape (n_penalties,), scikit-learn's alpha over the number of rows.

    Returns:
        The path; NaN where rounding leaves the system not positive definite.
    """
    n, gram, columns, products = sums.n_rows, sums.gram, sums.columns, sums.products
    means = []
    for start, stop, indicator in layout.fills:
        here = slice(start, stop)
        filled = gram[indicator, indicator]
        mean = columns[here] / max(n - filled, 1.0)
        means.append(mean)
        if filled == 0:
            continue
        cross = gram[indicator].copy()
        gram[here] += np.outer(mean, cross)
        gram[:, here] += np.outer(gram[indicator], mean)
        gram[here, indicator] = gram[indicator, here] = mean * filled
        columns[here] += mean * columns[indicator]
        products[here] += mean * products[indicator]
    mean_column, mean_target = columns / n, sums.target / n
    variance = np.maximum(np.diagonal(gram) / n - mean_column**2, 0.0)
    weights = scaling.weights(layout, columns, variance)
    live = np.flatnonzero(weights)
    gram -= np.outer(columns, mean_column)
    A = gram if len(live) == len(weights) else gram[np.ix_(live, live)]
    A *= weights[live, None]
    A *= weights[live]
    b = (products - columns * mean_target)[live] * weights[live]
    solved = np.zeros((layout.n_columns, len(penalties)))
    if len(live):
        solved[live] = _tridiagonal_path(A, b, penalties * n) * weights[live, None]
    intercept = mean_target - mean_column @ solved
    for (start, stop, indicator), mean in zip(layout.fills, means, strict=True):
        solved[indicator] += mean @ solved[start:stop]
    return Path(solved, intercept)


def _tridiagonal_path(A: np.ndarray, b: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """(A + alpha I)^-1 b for every alpha, shape (n_columns, n_alphas); A is symmetric and overwritten."""
    from scipy.linalg import lapack

    p = len(A)
    if p == 1:
        return b[:, None] / (A[0, 0] + alphas)[None, :]
    reduced, diagonal, off, tau, info = lapack.dsytrd(A.T, lower=1, lwork=64 * p, overwrite_a=1)
    assert info == 0
    reflectors = np.asfortranarray(reduced[1:, :-1])
    rotated = b.copy()
    rotated[1:] = _apply(reflectors, tau, b[1:, None], "T")[:, 0]
    solutions = np.full((p, len(alphas)), np.nan)
    for i, alpha in enumerate(alphas):
        _, _, x, info = lapack.dptsv(diagonal + alpha, off, rotated)
        if info == 0:
            solutions[:, i] = x
    solutions[1:] = _apply(reflectors, tau, solutions[1:], "N")
    return solutions


def _apply(reflectors: np.ndarray, tau: np.ndarray, X: np.ndarray, transpose: str) -> np.ndarray:
    from scipy.linalg import lapack

    product, _, info = lapack.dormqr(
        "L", transpose, reflectors, tau, np.asfortranarray(X), lwork=64 * X.shape[1]
    )
    assert info == 0
    return product


def predict_paths(layout: Layout, rows: Rows, index: np.ndarray, paths: list[Path]) -> list[np.ndarray]:
    """Log price of the rows at `index` by each path, one array of shape (len(index), n_penalties) each."""
    dtype = _dtype(len(rows), layout.n_columns)
    coefficients = np.concatenate([path.coefficients for path in paths], axis=1).astype(dtype)
    intercept = np.concatenate([path.intercept for path in paths])
    predicted = np.empty((len(index), len(intercept)))
    for start in range(0, len(index), BLOCK_ROWS):
        part = index[start : start + BLOCK_ROWS]
        predicted[start : start + BLOCK_ROWS] = layout.raw(rows, part, dtype) @ coefficients + intercept
    return np.split(predicted, np.cumsum([len(path.intercept) for path in paths])[:-1], axis=1)


def _dtype(n_rows: int, n_columns: int) -> type[np.floating]:
    return np.float64 if n_rows * n_columns * n_columns < EXACT_FLOPS else np.float32
