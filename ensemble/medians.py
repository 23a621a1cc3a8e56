"""Weighted medians of head prices: every one that there is, and the best of them on some parts of the rows.

A weighted median is the price of one head in each row. Where prices repeat from product to product, it is right to the
last digit as often as heads are, which no mean of unequal prices is.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np

from store.metric import smape_rows

# Of weights in an odd number of units no two sets of heads weigh the same, so a median is never between two prices. With
# 9 units every such majority of up to five heads can be written (3, 2, 2, 1, 1 needs all nine).
UNITS = 9
MOST_HEADS = 6  # of more, the best ones are weighed


def median_of_heads(log_prices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The price of each row below which half of the weight lies, shape (n_rows,); between two heads, their middle.

    Args:
        log_prices: shape (n_rows, n_heads).
        weights: shape (n_heads,), >= 0, sum above 0.
    """
    order = np.argsort(log_prices, axis=1, kind="stable")
    return _median(np.take_along_axis(log_prices, order, axis=1), order, weights)


def _median(increasing: np.ndarray, order: np.ndarray, weights: np.ndarray) -> np.ndarray:
    below, half = weights[order].cumsum(axis=1), weights.sum() / 2
    tolerance = 1e-9 * half
    low, high = ((below < half - tolerance).sum(axis=1), (below < half + tolerance).sum(axis=1))
    rows = np.arange(len(order))
    return (increasing[rows, low] + increasing[rows, high]) / 2


@lru_cache
def majorities(n_heads: int) -> np.ndarray:
    """Weights of every weighted median of so many heads that can be written in `UNITS` units, each once.

    Two weights are of the same median where the same sets of heads have more than half of the weight.

    Returns:
        Shape (n_medians, n_heads), rows of sum 1; those of few heads first, a head that changes no majority has none.
    """
    places = UNITS + n_heads - 1  # of the units, with a bar between one head's and the next one's
    bars = [(-1, *between, places) for between in combinations(range(places), n_heads - 1)]
    units = np.diff(bars, axis=1) - 1
    # Fewest heads first, so that one without a say has no weight.
    units = units[np.lexsort([units.max(axis=1), (units > 0).sum(axis=1)])]
    sets = (np.arange(2**n_heads)[:, None] >> np.arange(n_heads)) & 1
    wins = np.packbits(units @ sets.T > UNITS / 2, axis=1)
    first = np.unique(wins, axis=0, return_index=True)[1]
    return units[np.sort(first)] / UNITS


class Medians:
    """SMAPE of weighted medians on the parts of the rows; what one fit evaluates, others use.

    Args:
        log_prices: shape (n_rows, n_heads).
        log_actual: shape (n_rows,).
        part: int from 0 on, shape (n_rows,).
    """

    def __init__(self, log_prices: np.ndarray, log_actual: np.ndarray, part: np.ndarray) -> None:
        self.log_prices, self.log_actual, self.part = log_prices, log_actual, part
        self._sums: dict[tuple[int, ...], np.ndarray] = {}  # heads -> (n_medians, n_parts)

    def best(self, parts: Sequence[int]) -> np.ndarray:
        """Weights of the median with the least SMAPE on the rows of `parts`, shape (n_heads,), sum 1."""
        n_heads = self.log_prices.shape[1]
        heads = tuple(range(n_heads))
        if n_heads > MOST_HEADS:
            here = np.isin(self.part, parts)
            smape = [smape_rows(self.log_actual[here], one).mean() for one in self.log_prices[here].T]
            heads = tuple(sorted(np.argsort(smape, kind="stable")[:MOST_HEADS].tolist()))
        if heads not in self._sums:
            self._sums[heads] = self._evaluate(self.log_prices[:, heads])
        weights = np.zeros(n_heads)
        best = self._sums[heads][:, list(parts)].sum(axis=1).argmin()
        weights[list(heads)] = majorities(len(heads))[best]
        return weights

    def _evaluate(self, log_prices: np.ndarray) -> np.ndarray:
        order = np.argsort(log_prices, axis=1, kind="stable")
        increasing = np.take_along_axis(log_prices, order, axis=1)
        return np.array(
            [
                np.bincount(self.part, smape_rows(self.log_actual, _median(increasing, order, weights)))
                for weights in majorities(log_prices.shape[1])
            ]
        )
