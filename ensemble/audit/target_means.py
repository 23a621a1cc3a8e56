"""Tells columns that were computed from the prices of these very rows: the mean price of each category and its kin.

A column that is the same in all rows of a category can follow the category's true level, but not the noise of the rows
that happen to be in the file: means of other rows, such as those of other folds, are off by at least that noise. A
column that lies nearer was taken from these rows. The mean of a category's other rows gives itself away in another way:
it falls with the row's own price within the category, and rises with the price from category to category.
"""

from collections.abc import Iterator

import numpy as np

LEAST_ROWS = 30  # with a value in the column
LEAST_LEVELS = 5  # of a category
WITHIN_NOISE = (
    0.5  # mean squared distance from statistics in the price's unit, by their noise: other rows' are 1 off
)
BY_CHANCE = 1e-5  # of a curve through a column's levels that lies so near to the statistics
MOST_OF_ONE = 4.0  # squared distance of one level, so that a few odd ones don't decide
OF_ANY_ROWS = 2.0  # as `WITHIN_NOISE`, of means of prices of whatever rows
LIKE_MEANS = 0.8  # correlation with the statistics, for these
FALLS = -0.95  # correlation with the price within categories, of means of the other rows
RISES = 0.9  # rank correlation between categories


def follows_noise(values: np.ndarray, price: np.ndarray) -> bool:
    """Whether the levels of a column lie nearer to a statistic of their rows' prices than the noise of those allows.

    Statistics are mean and median of the price, their logarithms, and the mean of the logarithm. They are compared with
    the column and its logarithm: as they are; up to the weight k of the overall mean M, as v = (n m + k M) / (n + k) is
    m = v + k (v - M) / n; and up to scale and offset, with and without that weight.

    Args:
        values: shape (n_rows,), NaN where missing, as `price`.
    """
    from scipy.stats import chi2

    here = np.isfinite(values)
    level, group, count = np.unique(values[here], return_inverse=True, return_counts=True)
    if here.sum() < LEAST_ROWS or len(level) > here.sum() / 2:
        return False
    scales = [level] if level[0] <= 0 else [level, np.log(level)]
    for statistic, overall, variance, weight in _statistics(price[here], group, count):
        told = (count >= 2) & (variance > 0)
        if told.sum() < LEAST_LEVELS:
            continue
        n, m, noise, w = count[told].astype(float), statistic[told], variance[told], weight[told]
        for v in (scale[told] for scale in scales):
            one, shrunk = np.ones_like(v), (v - overall) / n
            for columns in ([], [shrunk] if w @ (shrunk * (m - v)) > 0 else []):  # in the price's own unit
                n_free, squares = _distance(columns, m - v, n, noise, w)
                if squares <= WITHIN_NOISE * n_free:
                    return True
            for columns in ([one, v], [one, v, 1 / n, v / n]):
                n_free, squares = _distance(columns, m, n, noise, w)
                if n_free and chi2.cdf(squares, n_free) < BY_CHANCE:
                    return True
    return False


def is_in_price_unit(values: np.ndarray, price: np.ndarray) -> bool:
    """Whether the levels of a column are mean or median prices of their rows but for noise, as those of any rows are."""
    here = np.isfinite(values)
    level, group, count = np.unique(values[here], return_inverse=True, return_counts=True)
    if here.sum() < LEAST_ROWS or len(level) > here.sum() / 2 or level[0] <= 0:
        return False
    for statistic, _, variance, _ in _statistics(price[here], group, count):
        told = (count >= 2) & (variance > 0)
        if told.sum() >= LEAST_LEVELS:
            n, m, noise = count[told].astype(float), statistic[told], variance[told]
            for v in (level[told], np.log(level[told])):
                n_free, squares = _distance([], m - v, n, noise, n)
                if squares <= OF_ANY_ROWS * n_free and np.corrcoef(v, m)[0, 1] >= LIKE_MEANS:
                    return True
    return False


def is_mean_of_others(values: np.ndarray, price: np.ndarray, label: np.ndarray) -> bool:
    """Whether a column falls with the row's own price within categories and rises with the price between them.

    Args:
        values, price, label: shape (n_rows,); NaN, and -1 in `label`, where missing.
    """
    here = np.isfinite(values) & (label >= 0)
    _, group, count = np.unique(label[here], return_inverse=True, return_counts=True)
    if here.sum() < LEAST_ROWS or (count >= 2).sum() < LEAST_LEVELS or len(count) > here.sum() / 2:
        return False
    ours, often = values[here], count >= 2

    def between(one: np.ndarray) -> np.ndarray:
        return np.argsort(np.argsort((np.bincount(group, one) / count)[often])).astype(float)

    def within(one: np.ndarray) -> float:
        """Mean correlation over the categories, by rows."""
        a, b = (of - (np.bincount(group, of) / count)[group] for of in (ours, one))
        ab, aa, bb = (np.bincount(group, x) for x in (a * b, a * a, b * b))
        known = often & (bb > 0)
        return (
            float(np.average(ab[known] / np.sqrt(np.maximum(aa * bb, 1e-300))[known], weights=count[known]))
            if known.any()
            else 0.0
        )

    falls = min(within(price[here]), within(np.log(price[here])))
    return falls <= FALLS and float(np.corrcoef(between(ours), between(price[here]))[0, 1]) >= RISES


def _statistics(
    price: np.ndarray, group: np.ndarray, count: np.ndarray
) -> Iterator[tuple[np.ndarray, float, np.ndarray, np.ndarray]]:
    """Each statistic of the groups, of all rows, the variance of a row of each group, and weights for a fit.

    All but the second of shape (n_groups,).
    """
    logs, free = np.log(price), np.maximum(count - 1, 1)
    mean, mean_log = np.bincount(group, price) / count, np.bincount(group, logs) / count
    variance = np.bincount(group, (price - mean[group]) ** 2) / free
    order = np.lexsort((price, group))
    first = np.cumsum(count) - count
    median = price[order[[first + (count - 1) // 2, first + count // 2]]].mean(axis=0)
    for one, overall in ((mean, price.mean()), (median, np.median(price))):
        yield one, float(overall), variance, count / one**2
        yield np.log(one), float(np.log(overall)), variance / one**2, count
    yield mean_log, float(logs.mean()), np.bincount(group, (logs - mean_log[group]) ** 2) / free, count


def _distance(
    columns: list[np.ndarray], y: np.ndarray, n: np.ndarray, variance: np.ndarray, weight: np.ndarray
) -> tuple[int, float]:
    """Degrees of freedom that a least-squares fit leaves, and the squared distances from it in units of noise.

    The noise of a level is that of the mean of `n` rows, known from these rows alone: a distance counts as the normal
    one that is as rare as it is by Student's distribution.
    """
    from scipy.stats import norm, t

    left, free = y, np.ones_like(y)
    if columns:
        root = np.sqrt(weight)
        X = np.column_stack(columns) * root[:, None]
        U, size, _ = np.linalg.svd(X / np.maximum(np.linalg.norm(X, axis=0), 1e-300), full_matrices=False)
        U = U[:, size > 1e-9 * size[0]]
        left = y - U @ (U.T @ (y * root)) / root
        free = 1 - (U**2).sum(axis=1)
    n_free = round(float(free.sum()))
    known = free > 1e-6
    if n_free < 1:
        return 0, 0.0
    score = np.abs(left[known]) / np.sqrt(free[known] * variance[known] / n[known])
    usual = norm.isf(np.maximum(t.sf(score, n[known] - 1), 1e-12))
    return n_free, float(np.minimum(usual**2, MOST_OF_ONE).mean()) * n_free
