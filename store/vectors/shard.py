"""Shards: immutable Parquet files of keys and float16 vectors. A shard needs no other record than its file."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import CorruptFileError
from store.schema import FAILURES, KEY_TYPE, shard_schema
from store.vectors.keys import key_array, sorting
from store.workspace import Workspace

SHARD_PREFIX = "part-"
FAILURE_PREFIX = "failed-"
SUFFIX = ".parquet"


def shard_name(keys: pa.Array, prefix: str = SHARD_PREFIX) -> str:
    """Name of the shard that holds these keys, in any order: a digest of them."""
    held = key_array(keys)
    content = hashlib.sha256(held[sorting(held)].tobytes())
    return f"{prefix}{content.hexdigest()[:16]}{SUFFIX}"


def publish_shard(
    workspace: Workspace, folder: str, keys: pa.Array, vectors: np.ndarray, provenance: dict[str, Any]
) -> str:
    """Publish one shard and return its name, which is a digest of its keys.

    Args:
        keys: content keys, shape (n_rows,), distinct, no nulls.
        vectors: shape (n_rows, dim), stored as float16.
        provenance: what was chosen on this machine: precision, batch, host, versions, seconds.
    """
    assert vectors.ndim == 2
    assert len(keys) == len(vectors) > 0
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite: rows that are not belong to the failures")
    half = np.ascontiguousarray(vectors, dtype="<f2")
    dim = half.shape[1]
    column = pa.Array.from_buffers(pa.binary(2 * dim), len(half), [None, pa.py_buffer(half)])
    table = pa.Table.from_arrays([keys.cast(KEY_TYPE), column], schema=shard_schema(dim))
    name = shard_name(keys)
    workspace.publish_table(
        f"{folder}/{name}",
        table,
        metadata={"dim": dim, "dtype": "float16", "provenance": provenance},
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return name


def publish_failures(workspace: Workspace, folder: str, failures: list[tuple[bytes, str, str]]) -> str | None:
    """Record inputs that gave no vector: (key, stage, reason) each, in a file of their own like a shard.

    Returns:
        The file's name, a digest of the keys; None where there was nothing to record.
    """
    if not failures:
        return None
    columns = list(zip(*failures, strict=True))
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, FAILURES, strict=True)], schema=FAILURES)
    name = shard_name(table["key"].combine_chunks(), FAILURE_PREFIX)
    workspace.publish_table(f"{folder}/{name}", table)
    return name


def failure_names(workspace: Workspace, folder: str) -> list[str]:
    return workspace.names(folder, FAILURE_PREFIX, SUFFIX)


def shard_names(workspace: Workspace, folder: str) -> list[str]:
    return workspace.names(folder, SHARD_PREFIX, SUFFIX)


def iter_keys(workspace: Workspace, folder: str) -> Iterator[pa.ChunkedArray]:
    """Keys of each shard in a folder; only the key column is read."""
    for name in shard_names(workspace, folder):
        yield workspace.read_table(f"{folder}/{name}", ["key"])["key"]


def read_keys(workspace: Workspace, folder: str) -> pa.Array:
    """Keys of every vector in a folder, shape (n_vectors,)."""
    chunks = [chunk for keys in iter_keys(workspace, folder) for chunk in keys.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], KEY_TYPE)


def read_failures(workspace: Workspace, folder: str) -> pa.Table:
    """Every recorded failure of a folder, columns of `store.schema.FAILURES`."""
    tables = [workspace.read_table(f"{folder}/{n}") for n in failure_names(workspace, folder)]
    return pa.concat_tables(tables) if tables else FAILURES.empty_table()


def iter_shards(
    workspace: Workspace, folder: str, wanted: Callable[[np.ndarray], bool] = lambda keys: True
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Each shard's keys and vectors, shape (n_rows, dim) float16, one shard in memory at a time.

    Args:
        wanted: asked with the keys of each shard; of others the vectors are not read.
    """
    for name in shard_names(workspace, folder):
        with opened_shard(workspace, f"{folder}/{name}") as shard:
            vectors = shard.vectors() if wanted(key_array(shard.keys)) else None
        if vectors is not None:
            yield shard.keys, vectors


def read_shard(workspace: Workspace, relative: str) -> tuple[pa.Array, np.ndarray]:
    """One shard's keys, shape (n_rows,), and vectors, shape (n_rows, dim) float16.

    Raises:
        CorruptFileError: see `opened_shard`.
    """
    with opened_shard(workspace, relative) as shard:
        return shard.keys, shard.vectors()


@dataclass(frozen=True)
class OpenShard:
    """A shard whose keys were read."""

    keys: pa.Array  # (n_rows,)
    dim: int  # of its vectors, as its schema has it
    file: pq.ParquetFile

    def vectors(self) -> np.ndarray:
        """Shape (n_rows, dim), float16."""
        column = self.file.read(columns=["vector"])["vector"].combine_chunks()
        flat = np.frombuffer(column.buffers()[1], dtype="<f2", count=len(column) * self.dim)
        return flat.reshape(len(column), self.dim)


@contextmanager
def opened_shard(workspace: Workspace, relative: str, *, whole: bool = True) -> Iterator[OpenShard]:
    """One shard, open.

    Args:
        whole: its vectors will be read as well: an object store is asked once.

    Raises:
        CorruptFileError: truncated, a page checksum does not match, or the columns are not a shard's.
    """
    with workspace.parquet(relative, whole=whole) as file:
        schema = file.schema_arrow
        if schema.names != ["key", "vector"] or not pa.types.is_fixed_size_binary(
            schema.field("vector").type
        ):
            raise CorruptFileError(f"{workspace.path(relative)} is not a shard: columns {schema.names}")
        keys = file.read(columns=["key"])["key"].combine_chunks()
        yield OpenShard(keys, schema.field("vector").type.byte_width // 2, file)
