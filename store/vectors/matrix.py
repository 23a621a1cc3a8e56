"""Cached vectors -> one matrix in the order of the rows that ask for them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import MissingVectorsError
from store.vectors.sets import VectorSet, current_spec, how_to_embed, iter_row_keys
from store.vectors.shard import iter_shards, read_failures
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace


@dataclass(frozen=True)
class Matrix:
    """One row in, one row out: where `valid` is False the row of `X` is zero and means nothing."""

    name: str
    X: np.ndarray  # (n_rows, dim)
    valid: np.ndarray  # (n_rows,) bool

    @property
    def dim(self) -> int:
        return int(self.X.shape[1])

    def rows(self, index: np.ndarray) -> "Matrix":
        """The chosen rows, by positions or mask."""
        return Matrix(self.name, self.X[index], self.valid[index])


def gather(
    workspace: Workspace, spec: EncoderSpec, keys: pa.Array, dtype: type[np.floating] = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of `keys` in their order.

    Args:
        keys: content keys, shape (n_rows,), null where a row has no content; repeats are fine.

    Returns:
        X of shape (n_rows, dim) and `found`, shape (n_rows,) bool; X is zero where nothing was found.
    """
    X = np.zeros((len(keys), spec.dim), dtype=dtype)
    found = np.zeros(len(keys), dtype=bool)
    for shard_keys, vectors in iter_shards(workspace, spec.folder):
        position = pc.index_in(keys, value_set=shard_keys, skip_nulls=True)
        rows = np.flatnonzero(position.is_valid().to_numpy(zero_copy_only=False))
        if len(rows) == 0:
            continue
        source = position.drop_null().to_numpy()
        X[rows] = vectors[source]
        found[rows] = True
    return X, found


def load_matrix(
    workspace: Workspace, vector_set: VectorSet, split: str, dtype: type[np.floating] = np.float32
) -> Matrix:
    """Vectors of every row of a split, in catalogue order.

    A row without content (no image, empty text) and a row whose content failed are `valid=False`.

    Raises:
        MissingVectorsError: some row's content was never embedded; names the count, a row, the command.
    """
    return matrix_of(workspace, current_spec(workspace, vector_set.encoder), vector_set, split, dtype)


def matrix_of(
    workspace: Workspace,
    spec: EncoderSpec,
    vector_set: VectorSet,
    split: str,
    dtype: type[np.floating] = np.float32,
) -> Matrix:
    """`load_matrix` of one fingerprint of the encoder."""
    ids, keys = [], []
    for batch, batch_keys in iter_row_keys(workspace, vector_set, split):
        ids.append(batch.column("sample_id"))
        keys.append(batch_keys)
    all_keys = pa.concat_arrays(keys)
    X, found = gather(workspace, spec, all_keys, dtype)
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
