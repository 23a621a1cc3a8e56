"""Tables that travel between Ray's stages. Keys, pixels and vectors are fixed-size bytes: nothing is copied to read them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embed.inputs import InputFailure
from embed.inputs.batch import Batch
from store.vectors.keys import arrow_keys


def items_table(vector_set: str, keys: list[bytes], contents: list[str]) -> pa.Table:
    """Rows to prepare: key and composed text, or key and hex SHA-256 of an image."""
    return pa.table({"set": _repeated(vector_set, len(keys)), "key": arrow_keys(keys), "content": contents})


def places_table(vector_set: str, split: str, positions: np.ndarray) -> pa.Table:
    """Rows to read: where they stand in the catalogue."""
    n = len(positions)
    columns = {"set": _repeated(vector_set, n), "split": _repeated(split, n), "position": positions}
    return pa.table(columns)


def images_table(
    vector_set: str,
    keys: list[bytes],
    pixels: list[np.ndarray],
    failures: list[tuple[bytes, InputFailure]],
    size: tuple[int, int],
) -> pa.Table:
    """Decoded images, each (height, width, 3) uint8 of one size, and failures, which have no pixels."""
    n_rows = len(pixels) + len(failures)
    flat = np.stack(pixels) if pixels else np.empty(0, np.uint8)
    return pa.table(
        {
            "set": _repeated(vector_set, n_rows),
            "key": arrow_keys([*keys, *(key for key, _ in failures)]),
            "pixels": _with_nulls(flat, len(pixels), 3 * size[0] * size[1], len(failures)),
            **_failure_columns(len(pixels), failures),
        }
    )


def pixels_of(table: pa.Table, size: tuple[int, int]) -> tuple[list[bytes], np.ndarray]:
    """Keys and images, shape (n, height, width, 3); those that failed are left out."""
    good = table.filter(table["pixels"].is_valid()) if table["pixels"].null_count else table
    flat = _flat(good["pixels"])
    return good["key"].to_pylist(), flat.reshape(good.num_rows, *size, 3)


def results_table(batch: Batch, vectors: np.ndarray) -> pa.Table:
    """Vectors, shape (n_keys, dim), as float16 bytes, and failures, which have none."""
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(vectors, dtype="<f2")
    n = len(batch.keys)
    column = _with_nulls(half, n, 2 * half.shape[1], len(batch.failures))
    n_rows = n + len(batch.failures)
    return pa.table(
        {
            "set": _repeated(batch.vector_set, n_rows),
            "key": arrow_keys([*batch.keys, *(key for key, _ in batch.failures)]),
            "vector": column,
            "truncated": pa.array([batch.n_truncated] + [0] * (n_rows - 1) if n_rows else [], pa.int32()),
            **_failure_columns(n, batch.failures),
        }
    )


def batches_of(table: pa.Table) -> list[tuple[Batch, np.ndarray]]:
    """What `results_table` held, a batch for each vector set in it."""
    found = []
    for name in table["set"].unique().to_pylist():
        part = table.filter(pc.equal(table["set"], name))
        good = part.filter(part["vector"].is_valid())
        vectors = (
            _flat(good["vector"]).view("<f2").reshape(good.num_rows, part["vector"].type.byte_width // 2)
        )
        n_truncated = pc.sum(part["truncated"]).as_py() or 0
        failures = failures_of(part)
        found.append(
            (Batch(name, good["key"].to_pylist(), (), failures=failures, n_truncated=n_truncated), vectors)
        )
    return found


def failures_of(table: pa.Table) -> list[tuple[bytes, InputFailure]]:
    """Rows that failed."""
    bad = table.filter(table["reason"].is_valid()).select(["key", "stage", "reason"])
    columns = (bad[name].to_pylist() for name in bad.column_names)
    return [(key, InputFailure(stage, reason)) for key, stage, reason in zip(*columns, strict=True)]


def _failure_columns(n_good: int, failures: list[tuple[bytes, InputFailure]]) -> dict[str, pa.Array]:
    none = [None] * n_good
    return {
        "stage": pa.array([*none, *(f.stage for _, f in failures)], pa.string()),
        "reason": pa.array([*none, *(f.reason for _, f in failures)], pa.string()),
    }


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    """The bytes of a column of fixed-size bytes without nulls."""
    if len(column) == 0:
        return np.empty(0, np.uint8)
    whole, width = pa.concat_arrays(column.chunks), column.type.byte_width
    return np.frombuffer(whole.buffers()[1], np.uint8)[whole.offset * width :][: len(whole) * width]


def _with_nulls(flat: np.ndarray, n: int, width: int, n_nulls: int) -> pa.Array:
    column = pa.Array.from_buffers(pa.binary(width), n, [None, pa.py_buffer(np.ascontiguousarray(flat))])
    return pa.concat_arrays([column, pa.nulls(n_nulls, column.type)]) if n_nulls else column


def _repeated(value: str, n: int) -> pa.Array:
    return pa.array([value] * n, pa.string())
