"""Simplex search at 0.01 for 4 heads: the proven optimum of the grid against a Python loop over `smape`.

The loop would take many minutes, so it is timed on a few hundred points drawn from the grid and
extrapolated. Both run on one thread and are timed in CPU seconds. That the search ends in the grid's optimum is checked in the same run by scoring every
point on a share of the rows.
"""

import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.report import Result, main
from ensemble.means import CURVES, MeanName
from ensemble.simplex import best_counts, compositions, simplex_size
from ensemble.surface import Surface
from store.metric import smape

N_ROWS, N_HEADS, TOTAL = 75_000, 4, 100
LOOP_POINTS = 200
CHECKED_ROWS = 2_000
WANTED = 50.0


def draw_heads(n_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log prices of heads that share part of their error, the truth, and folds."""
    generator = np.random.default_rng(seed)
    log_actual = generator.normal(3.0, 1.0, n_rows)
    shared = generator.laplace(0.0, 0.3, n_rows)
    own = generator.laplace(0.0, 1.0, (n_rows, N_HEADS)) * np.linspace(0.2, 0.4, N_HEADS)
    return (log_actual + shared)[:, None] + own, log_actual, generator.integers(0, 5, n_rows)


def measure(data: Path, rows: int | None) -> list[Result]:
    """One ratio per mean."""
    n_rows = rows or N_ROWS
    log_prices, log_actual, fold = draw_heads(n_rows)
    grid = compositions(N_HEADS, TOTAL) / TOTAL
    with threadpool_limits(limits=1):
        return [_measure(mean, log_prices, log_actual, fold, grid) for mean in CURVES]


def _measure(
    mean: MeanName, log_prices: np.ndarray, log_actual: np.ndarray, fold: np.ndarray, grid: np.ndarray
) -> Result:
    parts = range(int(fold.max()) + 1)
    started = time.process_time()
    surface = Surface(CURVES[mean], log_prices, log_actual, fold)
    found = best_counts(surface, parts, TOTAL)
    seconds = time.process_time() - started
    loop_seconds = _loop_seconds(mean, log_prices, log_actual, grid)
    few = slice(0, CHECKED_ROWS)
    checked = Surface(CURVES[mean], log_prices[few], log_actual[few], np.zeros(CHECKED_ROWS, dtype=int))
    lowest = checked.exhaustive(grid, [0]).min()
    same = abs(best_counts(checked, [0], TOTAL).smape - lowest) < 1e-8
    return Result.at_least(
        f"simplex search, {mean}",
        loop_seconds / seconds if same and found.proven else 0.0,
        WANTED,
        note=f"loop extrapolated from {LOOP_POINTS} of {len(grid):,} points; optimum "
        + (
            f"equals the exhaustive one on {CHECKED_ROWS:,} rows"
            if same
            else "DIFFERS from the exhaustive one"
        ),
        cpu_seconds=seconds,
        loop_cpu_seconds=loop_seconds,
        evaluations=found.n_evaluations,
        grid_points=simplex_size(N_HEADS, TOTAL),
        rows=len(log_actual),
    )


def _loop_seconds(mean: MeanName, log_prices: np.ndarray, log_actual: np.ndarray, grid: np.ndarray) -> float:
    """CPU seconds of `for weights in grid: smape(actual, blended)`, extrapolated."""
    actual, prices, reciprocals = np.exp(log_actual), np.exp(log_prices), np.exp(-log_prices)
    drawn = grid[np.random.default_rng(0).choice(len(grid), LOOP_POINTS, replace=False)]
    started = time.process_time()
    for weights in drawn:
        if mean == "arithmetic":
            smape(actual, prices @ weights)
        elif mean == "geometric":
            smape(actual, np.exp(log_prices @ weights))
        else:
            smape(actual, 1.0 / (reciprocals @ weights))
    return (time.process_time() - started) / len(drawn) * len(grid)


if __name__ == "__main__":
    main(measure)
