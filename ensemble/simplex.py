"""Integer weights: every way to share `total` units among heads, and the best of them, proven.

In a cell of the grid the tangent at its middle c rises above the loss by a known amount at most
(`Surface.overshoot`): loss(w) >= loss(c) + slope.(w - c) - overshoot. Cells whose bound lies above the best
point found so far hold nothing better and are never opened. What is left in the end is the optimum of the
whole grid, at a small share of its points.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from ensemble.surface import Surface

TOLERANCE = 1e-9  # percent: points closer than this are the same score
CELLS_PER_ROUND = 64
PROVEN_HEADS = 4  # up to here the search always runs to its proof
MAX_EVALUATIONS = 4_000


@dataclass(frozen=True)
class Optimum:
    """The best integer weights found, and how surely."""

    counts: np.ndarray  # (n_heads,) int, sum `total`
    smape: float
    bound: float  # no point of the grid scores below it; equals `smape` where the search finished
    n_evaluations: int

    @property
    def weights(self) -> np.ndarray:
        """Shape (n_heads,), sum 1."""
        return self.counts / self.counts.sum()

    @property
    def proven(self) -> bool:
        return self.bound >= self.smape - TOLERANCE


def simplex_size(n_heads: int, total: int) -> int:
    """How many ways there are to share `total` units among `n_heads`."""
    return comb(total + n_heads - 1, n_heads - 1)


def compositions(n_heads: int, total: int) -> np.ndarray:
    """Every way to share `total` units, int16, shape (simplex_size, n_heads), in lexicographic order."""
    if n_heads == 1:
        return np.full((1, 1), total, dtype=np.int16)
    bars = np.fromiter(
        itertools.chain.from_iterable(itertools.combinations(range(total + n_heads - 1), n_heads - 1)),
        dtype=np.int32,
        count=simplex_size(n_heads, total) * (n_heads - 1),
    ).reshape(-1, n_heads - 1)
    edges = np.pad(bars, ((0, 0), (1, 0)), constant_values=-1)
    edges = np.pad(edges, ((0, 0), (0, 1)), constant_values=total + n_heads - 1)
    return (np.diff(edges, axis=1) - 1).astype(np.int16)


def best_counts(
    surface: Surface, parts: Sequence[int], total: int = 100, max_evaluations: int = MAX_EVALUATIONS
) -> Optimum:
    """The grid's best point for the rows of `parts`.

    From the best corner or the middle a local search descends in decreasing steps; then cells are opened
    until none can contain a better point.

    Args:
        total: units shared among the heads: 100 is a grid of 0.01.
        max_evaluations: beyond `PROVEN_HEADS` heads the opening of cells stops after so many points;
            `bound` then says how much better another point could be.
    """
    m = surface.n_heads
    limit = np.inf if m <= PROVEN_HEADS else max_evaluations
    lows, highs = np.zeros((1, m), np.int64), np.full((1, m), total, np.int64)
    bounds = np.array([-np.inf])
    starts = np.vstack([total * np.eye(m, dtype=np.int64), _centers(lows, highs, total)])
    values, _ = surface.evaluate(starts / total, parts)
    best, smape = _downhill(surface, parts, starts[values.argmin()], float(values.min()), total)
    n_evaluations = len(starts)
    while len(bounds) and n_evaluations < limit:
        order = np.argsort(bounds, kind="stable")[:CELLS_PER_ROUND]
        low, high = lows[order], highs[order]
        centers = _centers(low, high, total)
        values, slopes = surface.evaluate(centers / total, parts)
        n_evaluations += len(centers)
        winner = int(values.argmin())
        if values[winner] < smape - TOLERANCE:
            best, smape = _downhill(surface, parts, centers[winner], float(values[winner]), total)
        tangent = values + _lowest_of_tangent(low, high, centers, slopes, total)
        closed = tangent >= smape - TOLERANCE  # the others stay open whatever the overshoot is
        reach = np.maximum(high - centers, centers - low)[closed]
        tangent[closed] -= surface.overshoot(centers[closed] / total, reach / total, parts)
        bound = np.where(closed, np.maximum(tangent, bounds[order]), bounds[order])
        opened = (high > low).any(axis=1)
        low, high, bound = _halves(low[opened], high[opened], bound[opened], total)
        rest = np.ones(len(bounds), dtype=bool)
        rest[order] = False
        bounds = np.concatenate([bounds[rest], bound])
        alive = bounds < smape - TOLERANCE
        lows, highs = np.vstack([lows[rest], low])[alive], np.vstack([highs[rest], high])[alive]
        bounds = bounds[alive]
    return Optimum(best, smape, float(min(smape, bounds.min(initial=np.inf))), n_evaluations)


def _downhill(
    surface: Surface, parts: Sequence[int], counts: np.ndarray, smape: float, total: int
) -> tuple[np.ndarray, float]:
    """Move units from head to head while that helps, in ever smaller steps."""
    unit = np.eye(len(counts), dtype=np.int64)
    pairs = list(itertools.permutations(range(len(counts)), 2))
    step = max(1, total // 10)
    while step:
        moves = [counts + step * (unit[i] - unit[j]) for i, j in pairs if counts[j] >= step]
        values = surface.evaluate(np.array(moves) / total, parts)[0] if moves else np.array([np.inf])
        if values.min() < smape - TOLERANCE:
            counts, smape = moves[int(values.argmin())], float(values.min())
        else:
            step //= 2
    return counts, smape


def _centers(low: np.ndarray, high: np.ndarray, total: int) -> np.ndarray:
    """A grid point near the middle of each cell, shape (n_cells, n_heads)."""
    room = (high - low).sum(axis=1, keepdims=True)
    short = total - low.sum(axis=1, keepdims=True)
    exact = low + (high - low) * (short / np.maximum(room, 1))
    floor = np.floor(exact + 1e-9).astype(np.int64)
    missing = total - floor.sum(axis=1)
    rank = np.argsort(np.argsort(floor - exact, axis=1, kind="stable"), axis=1)
    return floor + (rank < missing[:, None])


def _lowest_of_tangent(
    low: np.ndarray, high: np.ndarray, centers: np.ndarray, slopes: np.ndarray, total: int
) -> np.ndarray:
    """How far each center's tangent falls below its loss within the cell at most, shape (n_cells,)."""
    # Fill the heads with the lowest slopes first until the weights sum to 1.
    order = np.argsort(slopes, axis=1)
    room = np.take_along_axis(high - low, order, axis=1)
    short = (total - low.sum(axis=1))[:, None]
    before = np.cumsum(room, axis=1) - room
    filled = np.clip(short - before, 0, room)
    steep = np.take_along_axis(slopes, order, axis=1)
    return ((slopes * (low - centers)).sum(axis=1) + (steep * filled).sum(axis=1)) / total


def _halves(
    low: np.ndarray, high: np.ndarray, bound: np.ndarray, total: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each cell cut across its widest side, tightened to what the sum of weights leaves."""
    rows = np.arange(len(low))
    widest = (high - low).argmax(axis=1)
    middle = (low[rows, widest] + high[rows, widest]) // 2
    lower_high, upper_low = high.copy(), low.copy()
    lower_high[rows, widest] = middle
    upper_low[rows, widest] = middle + 1
    lows, highs = np.vstack([low, upper_low]), np.vstack([lower_high, high])
    bounds = np.concatenate([bound, bound])
    alive = (lows.sum(axis=1) <= total) & (highs.sum(axis=1) >= total)
    lows, highs, bounds = lows[alive], highs[alive], bounds[alive]
    tight_low = np.maximum(lows, total - (highs.sum(axis=1, keepdims=True) - highs))
    tight_high = np.minimum(highs, total - (lows.sum(axis=1, keepdims=True) - lows))
    return tight_low, tight_high, bounds
