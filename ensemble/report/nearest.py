"""For each row the most similar training rows of other folds: what its price could have been learned from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from store.errors import MissingVectorsError
from store.vectors.matrix import Matrix, load_matrix
from store.vectors.sets import TUNED, VectorSet, current_spec
from store.workspace import Workspace

MOST_COLUMNS = 256  # above, vectors are projected at random, which keeps cosines to about 0.05
PROJECTED_FROM = 10_000  # rows
MOST_ASKED = 10_000  # rows that are compared with all others; the rest is not looked at
N_NEAR = 5


@dataclass(frozen=True)
class NearRows:
    """The nearest rows of other folds by the vectors that the heads read."""

    names: tuple[str, ...]  # vector sets
    asked: np.ndarray  # (n_asked,) positions of the rows that were looked at, ascending
    position: np.ndarray  # (n_asked, N_NEAR) training rows, nearest first, -1 where there is none
    cosine: np.ndarray  # (n_asked, N_NEAR), NaN where there is none

    def nearness(self, n_rows: int) -> np.ndarray:
        """Cosine of each row with its nearest, shape (n_rows,), NaN where unknown."""
        found = np.full(n_rows, np.nan)
        found[self.asked] = self.cosine[:, 0]
        return found

    def of(self, row: int) -> list[tuple[int, float]]:
        """(training row, cosine) of one row, nearest first; empty where it was not looked at."""
        at = int(np.searchsorted(self.asked, row))
        if at == len(self.asked) or self.asked[at] != row:
            return []
        pairs = zip(self.position[at].tolist(), self.cosine[at].tolist(), strict=True)
        return [(position, cosine) for position, cosine in pairs if position >= 0]


def find_near(
    workspace: Workspace,
    vectors: Sequence[str],
    position: np.ndarray,
    fold: np.ndarray,
    always: np.ndarray,
    seed: int,
) -> NearRows | None:
    """The nearest rows; None where no set of vectors is there for every row.

    Args:
        vectors: names of vector sets; fine-tuned ones have vectors of their own a fold and are left out.
        position: places of the rows in the catalogue, shape (n_rows,).
        fold: shape (n_rows,).
        always: positions of rows that are looked at however many there are.
    """
    from heads.kernels.nearest import Nearest

    found = [m.rows(position) for m in (_matrix(workspace, name) for name in vectors) if m is not None]
    matrices = [m for m in found if m.valid.any()]
    if not matrices:
        return None
    joined = _joined(matrices, seed)
    asked = np.arange(len(fold))
    if len(fold) > MOST_ASKED:
        drawn = np.random.default_rng(seed).choice(len(fold), MOST_ASKED, replace=False)
        asked = np.unique(np.concatenate([drawn, always]))
    index = Nearest().fit(joined, fold)
    part = joined.rows(asked)
    near = index.search(part, fold[asked], N_NEAR)
    return NearRows(tuple(m.name for m in matrices), asked, near, index.cosine(part, near))


def _matrix(workspace: Workspace, name: str) -> Matrix | None:
    if name.startswith(TUNED):
        return None
    try:
        spec = current_spec(workspace, name.partition("@")[0])
        return load_matrix(workspace, VectorSet.parse(name, spec.modality), "train")
    except MissingVectorsError:
        return None


def _joined(matrices: Sequence[Matrix], seed: int) -> Matrix:
    """All sets side by side, each row of each set of length 1, 0 where it has none."""
    from heads.kernels.nearest import unit_rows

    parts = []
    generator = np.random.default_rng(seed)
    for matrix in matrices:
        unit = unit_rows(matrix, matrix.X[matrix.valid].mean(axis=0, dtype=np.float32))
        if len(unit) > PROJECTED_FROM and matrix.dim > MOST_COLUMNS:
            axes = generator.normal(0, MOST_COLUMNS**-0.5, (matrix.dim, MOST_COLUMNS)).astype(np.float32)
            unit = unit @ axes
        parts.append(unit)
    valid = np.any([matrix.valid for matrix in matrices], axis=0)
    return Matrix("+".join(m.name for m in matrices), np.concatenate(parts, axis=1), valid)
