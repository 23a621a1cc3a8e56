"""Categories -> target statistics: smoothed means of log price, taken out of fold for the rows fitted on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from heads.features.categories import places_of
from heads.features.rows import FieldTable

LEAST_LEVELS = 2  # that the rows fitted on must hold of a category

Statistics = dict[str, dict[str, tuple[float, int]]]  # category -> level -> (mean log price, rows)


@dataclass
class TargetStatistics:
    """For each category the mean log price of a row's level, mixed with the mean of all, and the rows that hold it.

    Args:
        smoothing: rows of the mean of all that a level's mean is mixed with.
    """

    smoothing: float = 5.0
    statistics_: Statistics = field(init=False, repr=False)

    def fit(self, fields: FieldTable, log_price: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """From training rows; in means each counts its weight."""
        found = self._of(fields, log_price, weight, fields.categories)
        self.statistics_ = {name: levels for name, levels in found.items() if len(levels) >= LEAST_LEVELS}
        return self

    def transform(self, fields: FieldTable) -> np.ndarray:
        """Shape (n_rows, 2 a category): mean, and log(1 + rows), NaN where a level is missing or unknown."""
        return _columns(fields, self.statistics_)

    def fit_transform(
        self, fields: FieldTable, log_price: np.ndarray, cell: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        """Fit on all rows, and transform each row by statistics without its cell, which do not contain its own price.

        Args:
            cell: shape (n_rows,).
            weight: see `Rows`.
        """
        self.fit(fields, log_price, weight)
        found = np.full((len(log_price), 2 * len(self.statistics_)), np.nan)
        for held in np.unique(cell):
            inside, outside = np.flatnonzero(cell != held), np.flatnonzero(cell == held)
            if len(inside):
                of_inside = None if weight is None else weight[inside]
                others = self._of(fields.subset(inside), log_price[inside], of_inside, self.statistics_)
                found[outside] = _columns(fields.subset(outside), others)
        return found

    def _of(
        self, fields: FieldTable, log_price: np.ndarray, weight: np.ndarray | None, names: Iterable[str]
    ) -> Statistics:
        found: Statistics = {}
        added = self.smoothing * float(np.average(log_price, weights=weight))
        for name in names:
            category = fields.categories[name]
            held = category.codes >= 0
            codes, n_levels = category.codes[held], len(category.levels)
            counts = np.bincount(codes, minlength=n_levels)
            total = counts if weight is None else np.bincount(codes, weight[held], n_levels)
            weighted = log_price if weight is None else log_price * weight
            sums = np.bincount(codes, weighted[held], n_levels)
            found[name] = {
                category.levels[i]: (float((sums[i] + added) / (total[i] + self.smoothing)), int(counts[i]))
                for i in np.flatnonzero(counts)
            }
        return found


def _columns(fields: FieldTable, statistics: Statistics) -> np.ndarray:
    columns = [np.empty((len(fields.X), 0))]
    for name, levels in statistics.items():
        place = places_of(fields.categories[name], {level: i for i, level in enumerate(levels)}, slice(None))
        means, counts = np.array([*levels.values(), (np.nan, np.nan)]).T
        columns.append(np.column_stack([means[place], np.log1p(counts[place])]))
    return np.concatenate(columns, axis=1)
