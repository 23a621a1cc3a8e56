"""Columns for boosted trees: vectors as they are or by their principal components, numbers, category codes."""

import dataclasses
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from heads.features.categories import places_of
from heads.features.components import component_sample, principal_axes
from heads.features.products import row_products
from heads.features.rows import Rows


@dataclass(frozen=True)
class TreeColumns:
    """Columns for boosted trees, which need no scaling and take missing values: nothing is fitted.

    Vectors (NaN where there is none), numbers (NaN where missing), one integer code a category.
    """

    n_vectors: int
    n_numbers: int
    levels: dict[str, dict[str, int]]  # category -> level -> code
    batch_rows: int = 4096

    @classmethod
    def of(cls, rows: Rows, *, fields: bool = True) -> "TreeColumns":
        """The columns of these rows; a level that they do not hold is missing later."""
        held = {
            name: {
                category.levels[code]: i
                for i, code in enumerate(np.unique(category.codes[category.codes >= 0]))
            }
            for name, category in (rows.fields.categories.items() if fields else ())
        }
        levels = {name: found for name, found in held.items() if len(found) > 1}
        n_numbers = rows.fields.X.shape[1] if fields else 0
        return cls(sum(matrix.dim for matrix in rows.matrices), n_numbers, levels)

    @property
    def categorical(self) -> list[int]:
        """Positions of the categories."""
        return list(
            range(self.n_vectors + self.n_numbers, self.n_vectors + self.n_numbers + len(self.levels))
        )

    def values(self, rows: Rows, index: slice | np.ndarray) -> np.ndarray:
        """Shape (n_chosen, n_columns) float32."""
        parts = []
        for matrix in rows.matrices:
            X = matrix.X[index].astype(np.float32)
            X[~matrix.valid[index]] = np.nan
            parts.append(X)
        parts.append(rows.fields.X[index, : self.n_numbers].astype(np.float32))
        for name, codes in self.levels.items():
            place = places_of(rows.fields.categories[name], codes, index)[:, None]
            parts.append(np.where(place < 0, np.nan, place).astype(np.float32))
        return np.concatenate(parts, axis=1)


@dataclass
class ComponentColumns:
    """Principal components of each vector set, fitted on training rows, then what `TreeColumns` has of fields.

    Args:
        components: of each vector set; a set of fewer columns keeps them all.
        fields: whether parsed fields are taken in.
    """

    components: int
    fields: bool = True
    batch_rows: int = 4096
    rest_: TreeColumns = field(init=False, repr=False)
    means_: list[np.ndarray] = field(init=False, repr=False)  # (dim,) each
    axes_: list[np.ndarray] = field(init=False, repr=False)  # (dim, n_kept) each

    def fit(self, rows: Rows) -> Self:
        self.rest_ = TreeColumns.of(dataclasses.replace(rows, matrices=()), fields=self.fields)
        self.means_, self.axes_ = [], []
        for matrix in component_sample(rows).matrices:
            X = matrix.X[matrix.valid].astype(np.float32)
            mean = X.mean(axis=0) if len(X) else np.zeros(matrix.dim, np.float32)
            X -= mean
            self.means_.append(mean)
            self.axes_.append(principal_axes(X.T @ X, self.components))
        return self

    @property
    def categorical(self) -> list[int]:
        """Positions of the categories."""
        before = sum(axes.shape[1] for axes in self.axes_)
        return [before + at for at in self.rest_.categorical]

    def arrays(self) -> dict[str, np.ndarray]:
        """Mean and axes of each vector set, for a file."""
        means = {f"mean_{i}": mean for i, mean in enumerate(self.means_)}
        return means | {f"axes_{i}": axes for i, axes in enumerate(self.axes_)}

    def values(self, rows: Rows, index: slice | np.ndarray) -> np.ndarray:
        """Shape (n_chosen, n_columns) float32, NaN where there is no vector."""
        parts, positions = [], np.arange(len(rows))[index]
        for matrix, mean, axes in zip(rows.matrices, self.means_, self.axes_, strict=True):
            X = np.empty((len(positions), axes.shape[1]), np.float32)
            for start in range(0, len(X), self.batch_rows):
                block = slice(start, start + self.batch_rows)
                vectors = matrix.X[positions[block]].astype(np.float32)
                X[block] = row_products(vectors - mean, axes)
            X[~matrix.valid[positions]] = np.nan
            parts.append(X)
        parts.append(self.rest_.values(dataclasses.replace(rows, matrices=()), index))
        return np.concatenate(parts, axis=1)
