"""Parsed fields as columns that distances are taken of: numbers by their rank, one column a level."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from heads.features.categories import LevelColumns
from heads.features.rows import Rows

SPREAD = float(np.sqrt(12.0))  # brings evenly spread ranks to a variance of 1
MISSING = 1.5  # how far a missing number is from those that are not
LEAST_VALUES = 2


@dataclass
class FieldRanks:
    """Numbers by the share of training rows below them, whether they are missing, and one column a frequent level.

    By rank, a placeholder value or the end of a long tail is not far from the other values.

    Args:
        min_count: training rows that must hold a level for it to have a column.
        max_levels: at most so many columns a category, the most frequent ones.
    """

    min_count: int = 3
    max_levels: int = 200
    names_: list[str] = field(init=False, repr=False)  # fields that tell rows apart
    owner_: np.ndarray = field(init=False, repr=False)  # (n_columns,) int: whose a column is, into `names_`
    numbers_: list[tuple[int, np.ndarray]] = field(
        init=False, repr=False
    )  # column of X, its values ascending
    lacking_: list[int] = field(init=False, repr=False)  # of `numbers_`, those that a training row lacks
    levels_: LevelColumns = field(init=False, repr=False)

    def fit(self, rows: Rows) -> Self:
        self.numbers_, self.lacking_, self.names_, owners = [], [], [], []
        for at, values in enumerate(rows.fields.X.T):
            present = np.sort(values[np.isfinite(values)])
            if len(np.unique(present)) < LEAST_VALUES:
                continue
            if len(present) < len(values):
                self.lacking_.append(len(self.numbers_))
            self.numbers_.append((at, present))
            self.names_.append(rows.fields.names[at])
        owners += [*range(len(self.numbers_)), *self.lacking_]
        self.levels_ = LevelColumns.of(rows.fields, len(owners), self.min_count, self.max_levels)
        for name, levels in self.levels_.levels.items():
            owners += [len(self.names_)] * len(levels)
            self.names_.append(name)
        self.owner_ = np.array(owners, np.int64)
        return self

    def transform(self, rows: Rows) -> np.ndarray:
        """Shape (n_rows, n_columns) float64."""
        columns = np.zeros((len(rows), len(self.owner_)))
        for place, (at, known) in enumerate(self.numbers_):
            values = rows.fields.X[:, at]
            below = (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / 2
            present = np.isfinite(values)
            columns[:, place] = np.where(present, SPREAD * (below / len(known) - 0.5), 0.0)
            if place in self.lacking_:
                columns[:, len(self.numbers_) + self.lacking_.index(place)] = np.where(present, 0.0, MISSING)
        self.levels_.mark(rows.fields, columns)
        return columns
