"""How near new products are to the training rows: by the cosines of all vector sets together."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heads.features.rows import Rows
from heads.kernels.nearest import unit_rows
from store.vectors.matrix import Matrix

SAMPLED = 2000  # training rows that the thresholds are found on
MOST_PAIRS = 20_000_000  # that are compared for it
FEW_ROWS = 4  # that are multiplied one by one: a product of matrices copies all training rows first
UNLIKE_SHARE = 0.01  # of training rows that are further from all others than the threshold
FAR_SHARE = 0.1  # of them that tell how much further off prices of far rows are


@dataclass(frozen=True)
class Nearness:
    """Training rows as unit vectors, all sets side by side; the centre of each set is taken off."""

    names: tuple[str, ...]
    centres: tuple[np.ndarray, ...]  # (dim,) each
    unit: np.ndarray  # (n_train, sum of dims) float32
    thresholds: Mapping[
        str, float
    ]  # sets that a row has, joined by "+" -> similarity below which it is unlike

    @classmethod
    def of(cls, vectors: Mapping[str, Matrix], thresholds: Mapping[str, float]) -> "Nearness":
        """Of the training rows' vectors."""
        centres = tuple(
            matrix.X[matrix.valid].mean(axis=0, dtype=np.float32)
            if matrix.valid.any()
            else np.zeros(matrix.dim, np.float32)
            for matrix in vectors.values()
        )
        parts = [unit_rows(matrix, centre) for matrix, centre in zip(vectors.values(), centres, strict=True)]
        unit = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)
        return cls(tuple(vectors), centres, unit, thresholds)

    def similarity(self, rows: Rows) -> np.ndarray:
        """Mean cosine with every training row over the sets that a row has, shape (n_rows, n_train) float32."""
        query, count = self._query(rows)
        if len(rows) <= FEW_ROWS:
            found = np.stack([self.unit @ one for one in query])
        else:
            found = query @ self.unit.T
        return found / np.maximum(count, 1)[:, None]

    def is_unlike(self, rows: Rows) -> np.ndarray:
        """Which rows are further from every training row than those are from one another, shape (n_rows,) bool."""
        if not self.names:
            return np.zeros(len(rows), bool)
        unlike = np.zeros(len(rows), bool)
        for start in range(0, len(rows), 256):
            part = rows.subset(np.arange(start, min(start + 256, len(rows))))
            best = self.similarity(part).max(axis=1)
            limits = np.array([self.thresholds.get(key, -np.inf) for key in self.keys(part)])
            unlike[start : start + 256] = best < limits
        return unlike

    def keys(self, rows: Rows) -> list[str]:
        """The sets that each row has, joined by "+"."""
        valid = [matrix.valid for matrix in self._matrices(rows)]
        return [
            "+".join(n for n, v in zip(self.names, one, strict=True) if v) for one in zip(*valid, strict=True)
        ]

    def cosines(self, rows: Rows, at: int, near: np.ndarray) -> dict[str, np.ndarray]:
        """Of one row with some training rows, set by set; a set that the row lacks is left out."""
        found, start = {}, 0
        for matrix, centre in zip(self._matrices(rows), self.centres, strict=True):
            if matrix.valid[at]:
                own = unit_rows(matrix.rows(np.array([at])), centre)[0]
                found[matrix.name] = self.unit[near, start : start + matrix.dim] @ own
            start += matrix.dim
        return found

    def _matrices(self, rows: Rows) -> list[Matrix]:
        held = {matrix.name: matrix for matrix in rows.matrices}
        return [held[name] for name in self.names]

    def _query(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        matrices = self._matrices(rows)
        parts = [unit_rows(matrix, centre) for matrix, centre in zip(matrices, self.centres, strict=True)]
        count = np.sum([matrix.valid for matrix in matrices], axis=0)
        return np.concatenate(parts, axis=1), count


def calibrate(
    vectors: Mapping[str, Matrix], group: np.ndarray, residual: np.ndarray
) -> tuple[dict[str, float], float]:
    """Thresholds of similarity, and by what factor intervals of far rows are wider.

    Each sampled training row is compared with all others but its own group.

    Args:
        group: shape (n_train,).
        residual: of the honest prices in log price, absolute, shape (n_train,); NaN where none is known.
    """
    if not vectors or len(group) < 3:
        return {}, 1.0
    nearness = Nearness.of(vectors, {})
    n_sampled = min(SAMPLED, max(100, MOST_PAIRS // len(group)))
    sampled = np.arange(0, len(group), max(1, len(group) // n_sampled))
    ends = np.cumsum([0, *(matrix.dim for matrix in vectors.values())])
    per_set = []
    for start, stop in itertools.pairwise(ends.tolist()):
        per_set.append(nearness.unit[sampled, start:stop] @ nearness.unit[:, start:stop].T)
    own = group[sampled][:, None] == group[None, :]
    valid = [matrix.valid[sampled] for matrix in vectors.values()]
    thresholds, best_of_all = {}, np.full(len(sampled), np.nan)
    for chosen in range(1, 2 ** len(per_set)):
        at = [i for i in range(len(per_set)) if chosen >> i & 1]
        has = np.logical_and.reduce([valid[i] for i in at])
        if has.sum() < 3:
            continue
        similarity = np.sum([per_set[i][has] for i in at], axis=0) / len(at)
        similarity[own[has]] = -np.inf
        best = similarity.max(axis=1)
        known = np.isfinite(best)
        if known.any():
            name = "+".join(name for i, name in enumerate(vectors) if i in at)
            thresholds[name] = float(np.quantile(best[known], UNLIKE_SHARE))
            best_of_all[np.flatnonzero(has)[known]] = best[known]  # the last ones have every set
    known = np.isfinite(best_of_all) & np.isfinite(residual[sampled])
    if known.sum() < 20:
        return thresholds, 1.0
    far = best_of_all[known] <= np.quantile(best_of_all[known], FAR_SHARE)
    of_far = float(np.quantile(residual[sampled][known][far], 0.9))
    of_all = float(np.quantile(residual[sampled][known], 0.9))
    return thresholds, max(1.0, of_far / max(of_all, 1e-9))
