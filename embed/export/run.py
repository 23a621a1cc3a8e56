"""Vectors by row, out of the cache, for whatever else reads them: a folder of Parquet, a NumPy array, a FAISS index.

One row in, one row out: Parquet has a null and NumPy a row of NaN where a catalogue row has no vector; an index holds
only rows that have one. Vectors stream through a file in row order: memory holds a few thousand rows, but for FAISS.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.catalog.read import present_splits, read_split
from store.errors import ConfigError
from store.outputs import Output, check_outputs
from store.vectors.matrix import Matrix, load_matrix
from store.vectors.ondisk import scratch_folder
from store.vectors.sets import VectorSet, current_spec
from store.workspace import Workspace

BATCH_ROWS = 4096
FORMATS = ("npy", "faiss")
ROWS_SUFFIX = ".rows.parquet"  # of the table that tells the row of each vector


@dataclass(frozen=True)
class Exported:
    """One file that was written and what is in it."""

    vector_set: str
    path: str
    n_rows: int
    n_vectors: int
    dim: int


@dataclass(frozen=True)
class _Split:
    name: str
    sample_id: pa.ChunkedArray  # (n_rows,)
    matrix: Matrix

    def batches(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Rows, their vectors, shape (n, dim) float16, and which of them have one."""
        for start in range(0, len(self.sample_id), BATCH_ROWS):
            part = slice(start, min(start + BATCH_ROWS, len(self.sample_id)))
            yield part, self.matrix.X[part], self.matrix.valid[part]


def destination(to: str, vector_set: VectorSet, n_sets: int) -> tuple[str, str]:
    """Format and path of a set's export.

    Args:
        to: `npy` or `faiss` (a file named after the set, here), a file of such a name, or a folder for Parquet.
        n_sets: that are exported together.

    Raises:
        ConfigError: one file for several sets.
    """
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", str(vector_set)).strip("-.")
    if to in FORMATS:
        return to, f"{name}.{to}"
    for kind in FORMATS:
        if to.endswith(f".{kind}"):
            if n_sets > 1:
                raise ConfigError(
                    f"--to {to} is one file for {n_sets} vector sets: name one with -e, or pass --to {kind}"
                )
            return kind, to
    return "parquet", f"{to.rstrip('/')}/{name}"


def export(workspace: Workspace, vector_sets: Sequence[VectorSet], to: str) -> Iterator[Exported]:
    """Write every row of both splits with its vector of each set; yields each file as it is done.

    Raises:
        ConfigError: see `destination` and `store.outputs.check_outputs`.
        MissingVectorsError: a set was never embedded, or lacks rows; names the command.
    """
    places = [destination(to, one, len(vector_sets)) for one in vector_sets]
    _check_places(workspace, places)
    for vector_set in vector_sets:
        current_spec(workspace, vector_set.encoder)
    for vector_set, (kind, path) in zip(vector_sets, places, strict=True):
        yield from _export_one(workspace, vector_set, kind, path)


def _check_places(workspace: Workspace, places: Sequence[tuple[str, str]]) -> None:
    """Check that no file but those of an earlier export will be replaced."""
    for kind, path in places:
        if "://" in path:
            continue
        names = ("train.parquet", "test.parquet") if kind == "parquet" else ("",)
        for file in (Path(path) / name for name in names):

            def was_exported(_: bytes, file: Path = file) -> bool:
                return _is_export(file)

            check_outputs({"--to": Output(file, was_exported)}, workspace=workspace)


def _is_export(file: Path) -> bool:
    """Whether a file that is there was exported: of Parquet by its columns, else by the table of rows beside it."""
    table, columns = file, ["sample_id", "vector"]
    if file.suffix != ".parquet":
        table, columns = file.with_suffix(ROWS_SUFFIX), ["sample_id", "split", "has_vector"]
    try:
        return list(pq.read_schema(table).names) == columns
    except (OSError, pa.ArrowException):
        return False


def _export_one(workspace: Workspace, vector_set: VectorSet, kind: str, path: str) -> Iterator[Exported]:
    spec = current_spec(workspace, vector_set.encoder)
    with scratch_folder() as folder:
        splits = []
        for split in present_splits(workspace):
            matrix = load_matrix(workspace, vector_set, split, np.float16, Path(folder))
            splits.append(_Split(split, read_split(workspace, split, ["sample_id"])["sample_id"], matrix))
        if kind == "parquet":
            for one in splits:
                file = f"{one.name}.parquet"
                target = Workspace(path)
                target.publish(file, partial(_write_parquet, split=one))
                yield _exported(vector_set, target.path(file), [one])
            return
        target, file = _folder_of(path)
        write: Callable[[BinaryIO], None] = partial(_write_npy, splits=splits)
        if kind == "faiss":
            write = partial(_write_faiss, splits=splits, normalized=spec.normalize)
        target.publish(file, write)
        rows = _rows_table(splits, only_valid=kind == "faiss")
        target.publish_table(f"{file.removesuffix(f'.{kind}')}{ROWS_SUFFIX}", rows)
        yield _exported(vector_set, target.path(file), splits)


def _exported(vector_set: VectorSet, path: str, splits: Sequence[_Split]) -> Exported:
    n_rows = sum(len(one.sample_id) for one in splits)
    n_vectors = sum(int(one.matrix.valid.sum()) for one in splits)
    return Exported(str(vector_set), path, n_rows, n_vectors, splits[0].matrix.dim)


def _folder_of(path: str) -> tuple[Workspace, str]:
    folder, _, name = path.rpartition("/")
    return Workspace(folder or "."), name


def _write_parquet(out: BinaryIO, split: _Split) -> None:
    """Columns `sample_id` and `vector`, a fixed-size list of float32, null where there is none."""
    kind = pa.list_(pa.float32(), split.matrix.dim)
    id_type = split.sample_id.type
    schema = pa.schema([("sample_id", id_type), ("vector", kind)])
    with pq.ParquetWriter(out, schema, compression="zstd", use_dictionary=False) as writer:
        for part, X, valid in split.batches():
            flat = pa.array(X.astype(np.float32).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(~valid))
            ids = split.sample_id.slice(part.start, part.stop - part.start).combine_chunks()
            writer.write_table(pa.table([ids, vectors], schema=schema))


def _write_npy(out: BinaryIO, splits: Sequence[_Split]) -> None:
    """float32, train rows before test rows, NaN where there is no vector."""
    n_rows = sum(len(one.sample_id) for one in splits)
    header = {
        "descr": "<f4",
        "fortran_order": False,
        "shape": (n_rows, splits[0].matrix.dim),
    }
    np.lib.format.write_array_header_1_0(out, header)
    for one in splits:
        for _, X, valid in one.batches():
            values = X.astype("<f4")
            values[~valid] = np.nan
            out.write(values.tobytes())


def _write_faiss(out: BinaryIO, splits: Sequence[_Split], normalized: bool) -> None:
    """Every vector as cached, 2 bytes a value; by inner product where vectors have unit length, else by distance."""
    faiss: Any = import_module("faiss")
    dim = splits[0].matrix.dim
    metric = faiss.METRIC_INNER_PRODUCT if normalized else faiss.METRIC_L2
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, metric)
    for one in splits:
        for _, X, valid in one.batches():
            index.add(np.ascontiguousarray(X[valid], dtype=np.float32))
    faiss.write_index(index, faiss.PyCallbackIOWriter(out.write))


def _rows_table(splits: Sequence[_Split], *, only_valid: bool) -> pa.Table:
    """Which row stands at which position of the array or the index."""
    ids, names, has = [], [], []
    for one in splits:
        kept = pa.array(one.matrix.valid if only_valid else np.ones(len(one.sample_id), bool))
        ids.append(one.sample_id.filter(kept).combine_chunks())
        names += [one.name] * len(ids[-1])
        has.append(one.matrix.valid[kept.to_numpy(zero_copy_only=False)])
    return pa.table({"sample_id": pa.concat_arrays(ids), "split": names, "has_vector": np.concatenate(has)})
