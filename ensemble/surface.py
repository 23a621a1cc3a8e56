"""The score of weighted heads as a surface over the simplex, kept apart by parts of the rows.

A fold's rows are summed by themselves, so one evaluation of a point answers for every set of folds:
the weights for all rows and for every held-out fold come from the same sums.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from threadpoolctl import ThreadpoolController

from ensemble.means import Curve

POINTS_PER_BLOCK = 64
ROWS_PER_BLOCK = 512  # what is worked on at a time stays in the cache of a core


class Surface:
    """Mean loss (percent: 200 times the curve's) of points of the simplex, over any set of parts.

    Args:
        curve: how a row's loss depends on its weighted coordinate.
        log_prices: predictions, shape (n_rows, n_heads).
        log_actual: true log prices, shape (n_rows,).
        part: part of each row, 0..n_parts-1, shape (n_rows,).
    """

    def __init__(
        self, curve: Curve, log_prices: np.ndarray, log_actual: np.ndarray, part: np.ndarray
    ) -> None:
        order = np.argsort(part, kind="stable")
        self.curve = curve
        self.x = np.ascontiguousarray(curve.coordinate(log_prices - log_actual[:, None])[order])
        # Weights sum to 1, so a constant taken from a row's coordinates changes no difference of points.
        self._spread = np.abs(self.x - np.median(self.x, axis=1, keepdims=True))
        self.counts = np.bincount(part)
        self.n_heads = int(self.x.shape[1])
        # The products here are so small that a second thread costs more than it brings, and on a busy
        # machine a hundred times more: it is waited for at each one.
        self._threads = ThreadpoolController()
        self._ends = np.concatenate([[0], np.cumsum(self.counts)])
        self._points = _Known(len(self.counts), 1 + self.n_heads)
        self._cells = _Known(len(self.counts), 1)

    @property
    def n_points(self) -> int:
        """How many distinct points were evaluated so far."""
        return len(self._points)

    def evaluate(self, points: np.ndarray, parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and its gradient over the rows of `parts`; points seen before cost nothing.

        Args:
            points: weights, shape (n_points, n_heads), each summing to 1.

        Returns:
            Percent, shape (n_points,), and percent per unit of weight, shape (n_points, n_heads).
        """
        sums = self._points.sums(points, parts, self._sums) / self.counts[list(parts)].sum()
        return sums[:, 0], sums[:, 1:]

    def overshoot(self, points: np.ndarray, reach: np.ndarray, parts: Sequence[int]) -> np.ndarray:
        """How far the tangents at points rise at most above the loss around them.

        Args:
            points: weights, shape (n_points, n_heads).
            reach: how far each weight may be from the point's, of the same shape.

        Returns:
            Percent, shape (n_points,): within its reach no point scores below the tangent less this.
        """
        cells = np.concatenate([points, reach], axis=1)
        sums = self._cells.sums(cells, parts, self._overshoot_sums) / self.counts[list(parts)].sum()
        return sums[:, 0]

    def exhaustive(self, points: np.ndarray, parts: Sequence[int]) -> np.ndarray:
        """Mean loss of every point, shape (n_points,), in blocks; nothing is kept or skipped."""
        rows = np.concatenate([np.arange(self._ends[p], self._ends[p + 1]) for p in sorted(parts)])
        total = np.zeros(len(points))
        with self._threads.limit(limits=1):
            for a in range(0, len(rows), ROWS_PER_BLOCK):
                x = self.x[rows[a : a + ROWS_PER_BLOCK]]
                for b in range(0, len(points), POINTS_PER_BLOCK):
                    block = points[b : b + POINTS_PER_BLOCK]
                    loss, _ = self.curve.loss_and_slope(x @ block.T)
                    total[b : b + POINTS_PER_BLOCK] += loss.sum(axis=0)
        return 200.0 * total / len(rows)

    def _sums(self, points: np.ndarray) -> np.ndarray:
        """Loss and slope of each point summed over each part, shape (n_points, n_parts, 1 + n_heads)."""
        sums = np.zeros((len(points), len(self.counts), 1 + self.n_heads))
        for part, rows in self._blocks():
            x = self.x[rows]
            for b in range(0, len(points), POINTS_PER_BLOCK):
                chunk = slice(b, b + POINTS_PER_BLOCK)
                loss, slope = self.curve.loss_and_slope(x @ points[chunk].T)
                sums[chunk, part, 0] += loss.sum(axis=0)
                sums[chunk, part, 1:] += slope.T @ x
        return 200.0 * sums

    def _overshoot_sums(self, cells: np.ndarray) -> np.ndarray:
        """The overshoot in each cell summed over each part, shape (n_cells, n_parts, 1)."""
        points, reach = np.split(cells, 2, axis=1)
        sums = np.zeros((len(cells), len(self.counts), 1))
        for part, rows in self._blocks():
            x, spread = self.x[rows], self._spread[rows]
            for b in range(0, len(cells), POINTS_PER_BLOCK):
                chunk = slice(b, b + POINTS_PER_BLOCK)
                sums[chunk, part, 0] += self.curve.overshoot(
                    x @ points[chunk].T, spread @ reach[chunk].T
                ).sum(axis=0)
        return 200.0 * sums

    def _blocks(self) -> Iterator[tuple[int, slice]]:
        """A few rows of one part at a time."""
        with self._threads.limit(limits=1):
            for part in range(len(self.counts)):
                for a in range(self._ends[part], self._ends[part + 1], ROWS_PER_BLOCK):
                    yield part, slice(a, min(a + ROWS_PER_BLOCK, self._ends[part + 1]))


class _Known:
    """Sums over each part of the rows, kept for every argument that they were ever asked for."""

    def __init__(self, n_parts: int, width: int) -> None:
        self._at: dict[bytes, int] = {}
        self._sums = np.empty((0, n_parts, width))

    def __len__(self) -> int:
        return len(self._at)

    def sums(
        self, arguments: np.ndarray, parts: Sequence[int], compute: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Sums over `parts`, shape (n_arguments, width); `compute` answers for rows of `arguments` not seen before."""
        arguments = np.ascontiguousarray(arguments, dtype=np.float64)
        keys = [argument.tobytes() for argument in arguments]
        fresh = {key: i for i, key in enumerate(keys) if key not in self._at}
        if fresh:
            first = len(self._at)
            self._at |= {key: first + i for i, key in enumerate(fresh)}
            if len(self._at) > len(self._sums):
                more = max(len(self._at), 2 * len(self._sums)) - len(self._sums)
                self._sums = np.pad(self._sums, ((0, more), (0, 0), (0, 0)))
            self._sums[first : len(self._at)] = compute(arguments[list(fresh.values())])
        summed: np.ndarray = self._sums[np.ix_([self._at[key] for key in keys], list(parts))].sum(axis=1)
        return summed
