"""Cached vectors -> one matrix in the order of the rows that ask for them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import MissingVectorsError
from store.vectors.keys import KeyedRows, contains, key_array
from store.vectors.ondisk import OnDisk
from store.vectors.sets import VectorSet, current_spec, how_to_embed, iter_image_keys
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


class _FurtherKeys:
    """Keys of the further images of rows: second ones, third ones, and so on."""

    def __init__(self) -> None:
        self._rows: list[list[np.ndarray]] = []
        self._keys: list[list[pa.Array]] = []

    def add(self, keys: list[pa.Array], start: int) -> None:
        """Keys of a batch whose first row is at `start`, one array for each further image."""
        for at, one in enumerate(keys):
            if at == len(self._rows):
                self._rows.append([])
                self._keys.append([])
            self._rows[at].append(start + np.flatnonzero(one.is_valid().to_numpy(zero_copy_only=False)))
            self._keys[at].append(one.drop_null())

    def average_into(
        self,
        X: Any,
        found: np.ndarray,
        workspace: Workspace,
        spec: EncoderSpec,
        failures: pa.ChunkedArray,
        place: Callable[[str, int], OnDisk | None],
    ) -> np.ndarray:
        """Put the mean over a row's images in place of its first one's vector, and mark rows that have any.

        Args:
            place: a file for so many vectors, by a name; None: memory.

        Returns:
            Rows that lack a vector which was never embedded, shape (n_rows,) bool.
        """
        missing = np.zeros(len(found), dtype=bool)
        n_images = found.astype(np.int64)
        for number, (parts, key_parts) in enumerate(zip(self._rows, self._keys, strict=True), start=2):
            rows, keys = np.concatenate(parts), pa.concat_arrays(key_parts)
            vectors, there = gather(workspace, spec, keys, X.dtype, place(f"image-{number}", len(rows)))
            embedded = np.flatnonzero(there)
            for start in range(0, len(embedded), BLOCK_ROWS):
                source = embedded[start : start + BLOCK_ROWS]
                at = rows[source]
                total = X[at].astype(np.float32) * n_images[at, None] + vectors[source]
                n_images[at] += 1
                X[at] = total / n_images[at, None]
            failed = pc.is_in(keys, value_set=failures).to_numpy(zero_copy_only=False)
            missing[rows[~there & ~failed]] = True
        averaged = np.flatnonzero(n_images > 1) if spec.normalize else np.empty(0, np.int64)
        for start in range(0, len(averaged), BLOCK_ROWS):
            at = averaged[start : start + BLOCK_ROWS]
            mean = X[at].astype(np.float32)
            X[at] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        found |= n_images > 0
        return missing


def load_matrix(
    workspace: Workspace,
    vector_set: VectorSet,
    split: str,
    dtype: type[np.floating] = np.float32,
    folder: Path | None = None,
) -> Matrix:
    """Vectors of every row of a split, in catalogue order.

    A row without content (no image, empty text) and a row whose content failed are `valid=False`. The vector of a row
    with several images is the mean of those that have one, of length 1 again where the encoder's vectors are.

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
    ids, keys, further, n_rows = [], [], _FurtherKeys(), 0
    for (batch, batch_keys), *others in iter_image_keys(workspace, vector_set, split):
        further.add([one for _, one in others], n_rows)
        n_rows += len(batch_keys)
        ids.append(batch.column("sample_id"))
        keys.append(batch_keys)
    all_keys = pa.concat_arrays(keys)

    def place(part: str, n_rows: int) -> OnDisk | None:
        name = f"{split}-{slug(str(vector_set))}-{spec.fingerprint}{part}"
        return None if folder is None else OnDisk.zeros(folder, name, (n_rows, spec.dim), dtype)

    X, found = gather(workspace, spec, all_keys, dtype, place("", len(all_keys)))
    failures = read_failures(workspace, spec.folder)["key"]
    failed = pc.is_in(all_keys, value_set=failures, skip_nulls=True)
    wanted = all_keys.is_valid().to_numpy(zero_copy_only=False)
    missing = wanted & ~found & ~failed.to_numpy(zero_copy_only=False)
    missing |= further.average_into(X, found, workspace, spec, failures, place)
    if missing.any():
        first = pa.concat_arrays(ids)[int(np.flatnonzero(missing)[0])].as_py()
        raise MissingVectorsError(
            f"{vector_set} has no vector for {int(missing.sum())} of {len(missing)} {split} rows "
            f"(first: {first}): {how_to_embed(vector_set)}"
        )
    return Matrix(str(vector_set), X, found)
