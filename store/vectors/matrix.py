"""Cached vectors -> one matrix in the order of the rows that ask for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import MissingVectorsError
from store.vectors.keys import KeyedRows, contains, key_array
from store.vectors.ondisk import OnDisk
from store.vectors.sets import VectorSet, current_spec, how_to_embed, iter_row_keys
from store.vectors.shard import iter_shards, read_failures
from store.vectors.spec import EncoderSpec, slug
from store.workspace import Workspace

BLOCK_ROWS = 4096  # copied at a time
Array = np.ndarray | OnDisk


@dataclass(frozen=True)
class Matrix:
    """One row in, one row out: where `valid` is False the row of `X` is zero and means nothing."""

    name: str
    X: Any  # (n_rows, dim): an array, or `OnDisk`, which is read like one
    valid: np.ndarray  # (n_rows,) bool

    @property
    def dim(self) -> int:
        return int(self.X.shape[1])

    def in_memory(self) -> "Matrix":
        """The same with its vectors in memory."""
        return (
            Matrix(self.name, self.X.astype(self.X.dtype), self.valid) if isinstance(self.X, OnDisk) else self
        )

    def rows(self, index: np.ndarray) -> "Matrix":
        """The chosen rows, by positions or mask; those of a file stay there."""
        X = self.X.rows(index) if isinstance(self.X, OnDisk) else self.X[index]
        return Matrix(self.name, X, self.valid[index])


def gather(
    workspace: Workspace,
    spec: EncoderSpec,
    keys: pa.Array,
    dtype: type[np.floating] = np.float32,
    X: Array | None = None,
) -> tuple[Array, np.ndarray]:
    """Vectors of `keys` in their order.

    Args:
        keys: content keys, shape (n_rows,), null where a row has no content; repeats are fine.
        X: zeros of shape (n_rows, dim) to be filled; None: a new array of `dtype`.

    Returns:
        X of shape (n_rows, dim) and `found`, shape (n_rows,) bool; X is zero where nothing was found.
    """
    if X is None:
        X = np.zeros((len(keys), spec.dim), dtype=dtype)
    found = np.zeros(len(keys), dtype=bool)
    rows = KeyedRows.of(keys)

    def wanted(held: np.ndarray) -> bool:
        return len(rows.keys) >= len(held) or bool(contains(rows.keys, held).any())

    for shard_keys, vectors in iter_shards(workspace, spec.folder, wanted):
        at, source = rows.holding(key_array(shard_keys))
        for start in range(0, len(at), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            X[at[part]] = vectors[source[part]]
        found[at] = True
    return X, found


def load_matrix(
    workspace: Workspace,
    vector_set: VectorSet,
    split: str,
    dtype: type[np.floating] = np.float32,
    folder: Path | None = None,
) -> Matrix:
    """Vectors of every row of a split, in catalogue order.

    A row without content (no image, empty text) and a row whose content failed are `valid=False`.

    Args:
        folder: put the matrix into a file of this folder, so that memory holds keys and one shard.

    Raises:
        MissingVectorsError: some row's content was never embedded; names the count, a row, the command.
    """
    return matrix_of(workspace, current_spec(workspace, vector_set.encoder), vector_set, split, dtype, folder)


def matrix_of(
    workspace: Workspace,
    spec: EncoderSpec,
    vector_set: VectorSet,
    split: str,
    dtype: type[np.floating] = np.float32,
    folder: Path | None = None,
) -> Matrix:
    """`load_matrix` of one fingerprint of the encoder."""
    ids, keys = [], []
    for batch, batch_keys in iter_row_keys(workspace, vector_set, split):
        ids.append(batch.column("sample_id"))
        keys.append(batch_keys)
    all_keys = pa.concat_arrays(keys)
    file = None
    if folder is not None:
        name = f"{split}-{slug(str(vector_set))}-{spec.fingerprint}"
        file = OnDisk.zeros(folder, name, (len(all_keys), spec.dim), dtype)
    X, found = gather(workspace, spec, all_keys, dtype, file)
    failed = pc.is_in(all_keys, value_set=read_failures(workspace, spec.folder)["key"], skip_nulls=True)
    wanted = all_keys.is_valid().to_numpy(zero_copy_only=False)
    missing = wanted & ~found & ~failed.to_numpy(zero_copy_only=False)
    if missing.any():
        first = pa.concat_arrays(ids)[int(np.flatnonzero(missing)[0])].as_py()
        raise MissingVectorsError(
            f"{vector_set} has no vector for {int(missing.sum())} of {len(missing)} {split} rows "
            f"(first: {first}): {how_to_embed(vector_set)}"
        )
    return Matrix(str(vector_set), X, found)
