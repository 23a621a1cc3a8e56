"""Intervals of means over rows, where the rows of one group count as one draw."""

import numpy as np

from store.metric import gain_and_error

BOOTSTRAP_DRAWS = 1000
MOST_SMAPE = 200.0
_DRAWS_PER_BLOCK = 50


def bootstrap_interval(
    rows: np.ndarray,
    group: np.ndarray,
    seed: int,
    level: float = 0.95,
    n_draws: int = BOOTSTRAP_DRAWS,
    counts: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile interval of the mean of `rows`, drawing whole groups with replacement.

    Args:
        rows: shape (n_rows,), each times what it counts.
        group: shape (n_rows,).
        level: share of draws inside.
        counts: what each row counts, of mean 1, shape (n_rows,); None: all alike. A draw is divided by what it drew.
    """
    index = np.unique(group, return_inverse=True)[1]
    sums, sizes = np.bincount(index, rows), np.bincount(index, counts)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, n_draws, _DRAWS_PER_BLOCK):
        shape = (min(_DRAWS_PER_BLOCK, n_draws - start), len(sums))
        drawn = generator.integers(len(sums), size=shape)
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def expected_interval(
    rows: np.ndarray, group: np.ndarray, n_new: int, level: float = 0.95
) -> tuple[float, float]:
    """Where the mean SMAPE of `n_new` fresh rows of the same kind will lie: wider than the mean's own interval.

    Two errors add up, that of the known mean and that of the fresh one; both shrink with the root of
    their rows. No SMAPE lies outside of 0 to 200.
    """
    from scipy.stats import norm

    mean, error = gain_and_error(rows, group)
    reach = float(norm.ppf((1 + level) / 2)) * error * np.sqrt(1.0 + len(rows) / n_new)
    return max(mean - reach, 0.0), min(mean + reach, MOST_SMAPE)
