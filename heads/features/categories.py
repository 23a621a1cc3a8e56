"""Categories -> columns: which levels have one, and the place of each row's level."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.features.rows import CategoricalColumn, FieldTable

Index = slice | np.ndarray  # rows: all of a slice, or by position


@dataclass(frozen=True)
class LevelColumns:
    """One column for each level that is frequent enough; a level that has none is marked nowhere."""

    levels: dict[str, dict[str, int]]  # category -> level -> column
    stop: int  # the column after the last

    @classmethod
    def of(
        cls, fields: FieldTable, start: int, min_count: int, max_levels: int | None = None
    ) -> "LevelColumns":
        """From the rows fitted on.

        Args:
            start: the first column.
            min_count: rows that must hold a level for it to have a column.
            max_levels: at most so many columns a category, the most frequent ones.
        """
        levels = {}
        for name, category in fields.categories.items():
            counts = np.bincount(category.codes[category.codes >= 0], minlength=len(category.levels))
            often = np.argsort(-counts, kind="stable")[:max_levels]
            kept = sorted(category.levels[i] for i in often if counts[i] >= min_count)
            levels[name] = {level: start + i for i, level in enumerate(kept)}
            start += len(kept)
        return cls(levels, start)

    @property
    def names(self) -> list[str]:
        """`category=level` of each column."""
        return [f"{name}={level}" for name, columns in self.levels.items() for level in columns]

    def mark(self, fields: FieldTable, X: np.ndarray, index: Index = slice(None)) -> None:
        """Put 1 into the column of each chosen row's level; X of shape (n_chosen, at least `stop`)."""
        for name, columns in self.levels.items():
            column = places_of(fields.categories[name], columns, index)
            held = np.flatnonzero(column >= 0)
            X[held, column[held]] = 1.0

    def sparse(self, fields: FieldTable) -> Any:
        """What `mark` puts into zeros, sparse float32 of shape (n_rows, `stop`)."""
        import scipy.sparse as sp

        places = [places_of(fields.categories[name], columns) for name, columns in self.levels.items()]
        place = np.stack(places, axis=1) if places else np.empty((0, 0), np.int64)
        held = place >= 0
        start = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
        column = place[held]  # of the first row, in the order of the categories, then those of the second
        return sp.csr_matrix((np.ones(len(column), np.float32), column, start), (len(place), self.stop))


def places_of(
    category: CategoricalColumn, places: Mapping[str, int], index: Index = slice(None)
) -> np.ndarray:
    """The place of each chosen row's level, shape (n_chosen,); -1 where it is missing or has none."""
    of_level = np.array([places.get(level, -1) for level in category.levels] + [-1])
    return np.asarray(of_level[category.codes[index]])
