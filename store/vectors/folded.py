"""Vectors of a fine-tuned encoder: one set for each fold, made by a model that never saw that fold's rows.

The spec under the encoder's name stands for all folds; each fold's own spec carries the fold and the folds' hash in
its fingerprint, and its vectors lie in a folder of their own. Nothing reads one fold's vectors by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from store.errors import FoldMismatchError
from store.vectors.keys import KeyBuffer, contains
from store.vectors.matrix import Matrix, matrix_of
from store.vectors.sets import VectorSet, current_spec
from store.vectors.shard import iter_keys, read_failures
from store.vectors.spec import EncoderSpec, digest
from store.workspace import Workspace

FOLD_WEIGHTS = (
    "fold_weights"  # in `extra` of a spec that stands for all folds: fold -> SHA-256 of its weights
)


def all_folds(specs: Sequence[EncoderSpec]) -> EncoderSpec:
    """The spec that stands for the specs of every fold, which differ in fold and weights alone."""
    weights = {str(spec.fold): spec.weights_sha256 for spec in sorted(specs, key=lambda spec: spec.fold or 0)}
    together = replace(
        specs[0],
        fold=None,
        weights_sha256=digest(weights, characters=64),
        extra={**specs[0].extra, FOLD_WEIGHTS: weights},
    )
    assert len(weights) == len(specs)
    assert {spec.fingerprint for spec in specs} == {
        spec.fingerprint for spec in fold_specs(together).values()
    }
    return together


def is_folded(spec: EncoderSpec) -> bool:
    """Whether a spec stands for vectors of which there is a set for each fold."""
    return FOLD_WEIGHTS in spec.extra


def fold_specs(spec: EncoderSpec) -> dict[int, EncoderSpec]:
    """Fold -> the spec of the model that never saw it; empty where the encoder is not fine-tuned."""
    extra = {key: value for key, value in spec.extra.items() if key != FOLD_WEIGHTS}
    weights: Mapping[str, str] = spec.extra.get(FOLD_WEIGHTS, {})
    return {int(k): replace(spec, fold=int(k), weights_sha256=w, extra=extra) for k, w in weights.items()}


def folders_of(spec: EncoderSpec) -> list[str]:
    """Every folder of an encoder's vectors: its own, and one for each fold where it is fine-tuned."""
    return [spec.folder, *(one.folder for one in fold_specs(spec).values())]


def embedded_keys(workspace: Workspace, spec: EncoderSpec) -> tuple[np.ndarray, np.ndarray]:
    """Keys that have a vector, of every fold where there are several, and keys on record as failed in any; sorted."""
    have: np.ndarray | None = None
    failed = KeyBuffer()
    for one in fold_specs(spec).values() or [spec]:
        present = KeyBuffer()
        for keys in iter_keys(workspace, one.folder):
            present.add(keys)
        found = present.distinct()
        have = found if have is None else have[contains(found, have)]
        failed.add(read_failures(workspace, one.folder)["key"])
    assert have is not None
    return have, failed.distinct()


@dataclass(frozen=True)
class FoldedMatrix:
    """For each fold one matrix of all rows. It has no `X`: a caller names the fold."""

    name: str
    by_fold: Mapping[int, Matrix]

    @property
    def dim(self) -> int:
        return next(iter(self.by_fold.values())).dim

    def rows(self, index: np.ndarray) -> "FoldedMatrix":
        """The chosen rows, by positions or mask."""
        return FoldedMatrix(self.name, {k: matrix.rows(index) for k, matrix in self.by_fold.items()})

    def in_memory(self) -> "FoldedMatrix":
        """The same with its vectors in memory."""
        return FoldedMatrix(self.name, {k: matrix.in_memory() for k, matrix in self.by_fold.items()})

    def for_fold(self, fold: int) -> Matrix:
        """All rows as the model that never saw this fold's rows embeds them.

        Raises:
            FoldMismatchError: no model was tuned for it.
        """
        if fold not in self.by_fold:
            raise FoldMismatchError(
                f"{self.name} has no vectors for fold {fold}, only for {', '.join(map(str, self.by_fold))}: "
                "run 'shelfprice embed finetune' for the other folds"
            )
        return self.by_fold[fold]


def load_any(
    workspace: Workspace,
    vector_set: VectorSet,
    split: str,
    folds_hash: str,
    dtype: type[np.floating] = np.float32,
    folder: Path | None = None,
) -> Matrix | FoldedMatrix:
    """Vectors of every row of a split in catalogue order, one matrix a fold where the encoder is fine-tuned.

    Args:
        folds_hash: of the folds in force.
        folder: put the vectors into files of this folder instead of memory.

    Raises:
        MissingVectorsError: some row's content was never embedded.
        FoldMismatchError: the encoder was tuned for other folds.
    """
    spec = current_spec(workspace, vector_set.encoder)
    if not is_folded(spec):
        return matrix_of(workspace, spec, vector_set, split, dtype, folder)
    check_folds(spec, folds_hash)
    return FoldedMatrix(
        str(vector_set),
        {
            k: matrix_of(workspace, one, vector_set, split, dtype, folder)
            for k, one in fold_specs(spec).items()
        },
    )


def check_folds(spec: EncoderSpec, folds_hash: str) -> None:
    """Raises FoldMismatchError where a fine-tuned encoder belongs to other folds: its vectors would leak."""
    if is_folded(spec) and spec.folds_hash != folds_hash:
        raise FoldMismatchError(
            f"{spec.name} was tuned for folds {spec.folds_hash} and the workspace's folds are {folds_hash}: "
            "run 'shelfprice embed finetune' again"
        )
