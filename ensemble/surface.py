"""The score of weighted heads as a surface over the simplex, kept apart by parts of the rows.

A fold's rows are summed by themselves, so one evaluation of a point answers for every set of folds:
the weights for all rows and for every held-out fold come from the same sums.
"""

from collections.abc import Sequence

import numpy as np
from threadpoolctl import ThreadpoolController

from ensemble.means import Curve

POINTS_PER_BLOCK = 64
ROWS_PER_BLOCK = 2048


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
        self.counts = np.bincount(part)
        self.n_heads = int(self.x.shape[1])
        # The products here are so small that a second thread costs more than it brings, and on a busy
        # machine a hundred times more: it is waited for at each one.
        self._threads = ThreadpoolController()
        self._ends = np.concatenate([[0], np.cumsum(self.counts)])
        self._known: dict[bytes, int] = {}
        n_parts = len(self.counts)
        self._values = np.empty((0, n_parts))
        self._slopes = np.empty((0, n_parts, self.n_heads))
        self._bends = self._bend_sums()

    @property
    def n_points(self) -> int:
        """How many distinct points were evaluated so far."""
        return len(self._known)

    def evaluate(self, points: np.ndarray, parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and its gradient over the rows of `parts`; points seen before cost nothing.

        Args:
            points: weights, shape (n_points, n_heads), each summing to 1.

        Returns:
            Percent, shape (n_points,), and percent per unit of weight, shape (n_points, n_heads).
        """
        points = np.ascontiguousarray(points, dtype=np.float64)
        keys = [point.tobytes() for point in points]
        fresh = {key: i for i, key in enumerate(keys) if key not in self._known}
        if fresh:
            with self._threads.limit(limits=1):
                values, slopes = self._sums(points[list(fresh.values())])
            first = len(self._known)
            self._known |= {key: first + i for i, key in enumerate(fresh)}
            if len(self._known) > len(self._values):
                more = max(len(self._known), 2 * len(self._values)) - len(self._values)
                self._values = np.pad(self._values, ((0, more), (0, 0)))
                self._slopes = np.pad(self._slopes, ((0, more), (0, 0), (0, 0)))
            self._values[first : first + len(fresh)] = values
            self._slopes[first : first + len(fresh)] = slopes
        at = [self._known[key] for key in keys]
        chosen = list(parts)
        n_rows = self.counts[chosen].sum()
        where = np.ix_(at, chosen)
        return self._values[where].sum(axis=1) / n_rows, self._slopes[where].sum(axis=1) / n_rows

    def bend(self, parts: Sequence[int]) -> np.ndarray:
        """Symmetric B, shape (n_heads, n_heads): loss(w) + w'Bw/2 is convex on the simplex."""
        chosen = list(parts)
        return self._bends[chosen].sum(axis=0) / self.counts[chosen].sum()

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

    def _sums(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n_parts = len(self.counts)
        values = np.zeros((len(points), n_parts))
        slopes = np.zeros((len(points), n_parts, self.n_heads))
        for part in range(n_parts):
            for a in range(self._ends[part], self._ends[part + 1], ROWS_PER_BLOCK):
                x = self.x[a : min(a + ROWS_PER_BLOCK, self._ends[part + 1])]
                for b in range(0, len(points), POINTS_PER_BLOCK):
                    chunk = slice(b, b + POINTS_PER_BLOCK)
                    loss, slope = self.curve.loss_and_slope(x @ points[chunk].T)
                    values[chunk, part] += loss.sum(axis=0)
                    slopes[chunk, part] += slope.T @ x
        return 200.0 * values, 200.0 * slopes

    def _bend_sums(self) -> np.ndarray:
        low, high = self.x.min(axis=1), self.x.max(axis=1)
        bend = self.curve.bend(low, high)
        # Weights sum to 1, so a constant taken from a row's coordinates moves no difference of points.
        spread = self.x - self.x.mean(axis=1, keepdims=True)
        sums = [
            (spread[a:b] * bend[a:b, None]).T @ spread[a:b]
            for a, b in zip(self._ends[:-1], self._ends[1:], strict=True)
        ]
        return 200.0 * np.stack(sums)
