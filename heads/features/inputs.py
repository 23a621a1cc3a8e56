"""Reads the inputs of heads from the workspace, and makes the record of them that names predictions."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heads.features.fields import columns_read, field_table
from heads.features.rows import FieldTable, Rows
from store.catalog.parse.compose import compose, composition_columns
from store.catalog.read import catalog_digest, present_splits, read_snapshot, read_split
from store.cleaning import Cleaning, read_cleaning
from store.errors import CatalogError, MissingVectorsError, RowMismatchError
from store.folds.assign import Folds
from store.vectors.folded import FoldedMatrix, embedded_keys, fold_specs, load_any
from store.vectors.keys import among
from store.vectors.matrix import Matrix
from store.vectors.sets import VectorSet, current_spec, how_to_embed, iter_image_keys
from store.weights import row_weights
from store.workspace import Workspace

BLOCK_ROWS = 65_536  # digested together


@dataclass(frozen=True)
class Inputs:
    """Everything that heads are trained on and predict."""

    train: Rows
    log_price: np.ndarray  # (n_train,)
    fold: np.ndarray  # (n_train,)
    test: Rows | None  # None: no test catalogue
    cleaning: Cleaning | None = None  # None: rows are fitted on as they are
    notes: tuple[str, ...] = ()  # messages about the catalogue
    looks_back: bool = False  # each fold is predicted by models of earlier ones


@dataclass(frozen=True)
class InputCoverage:
    """Which rows of the catalogue have which vector of one set: cheap to find, no vector is read."""

    vector_set: VectorSet
    fingerprint: str
    digest: str  # over (sample_id, key, has a vector) of every row: the same whatever the row order
    n_valid: int  # training rows with a vector
    n_rows: int  # training rows
    folds: tuple[int, ...] = ()  # that have vectors of their own, made without them; empty: not fine-tuned


def resolve_set(workspace: Workspace, name: str) -> VectorSet:
    """The vector set a name stands for, by what its encoder embeds.

    Raises:
        MissingVectorsError: nothing was embedded with that encoder; names the command.
    """
    try:
        spec = current_spec(workspace, name.partition("@")[0])
    except MissingVectorsError as error:
        raise MissingVectorsError(str(error).split(": run")[0] + f": {how_to_embed(name)}") from error
    return VectorSet.parse(name, spec.modality)


def input_coverage(workspace: Workspace, vector_set: VectorSet) -> InputCoverage:
    """What the cache holds of a vector set for the ingested rows.

    Raises:
        MissingVectorsError: some row was never embedded; names the count, a row, the command.
    """
    spec = current_spec(workspace, vector_set.encoder)
    have, failed = embedded_keys(workspace, spec)
    ids, keys, n_train, n_valid = [], [], 0, 0
    for split in present_splits(workspace):
        for (batch, batch_keys), *others in iter_image_keys(workspace, vector_set, split):
            found = among(have, batch_keys)
            known = found | among(failed, batch_keys)
            missing = batch_keys.is_valid().to_numpy(zero_copy_only=False) & ~known
            own = pc.if_else(pa.array(found), batch_keys, pa.scalar(None, batch_keys.type)).cast(pa.binary())
            for _, other in others:  # keys of a row's further images that have a vector
                embedded = among(have, other)
                missing |= other.is_valid().to_numpy(zero_copy_only=False) & ~embedded & ~among(failed, other)
                found |= embedded
                nothing = pa.scalar(b"", pa.binary())
                other = pc.if_else(pa.array(embedded), other.cast(pa.binary()), nothing)
                joined = pc.binary_join_element_wise(pc.fill_null(own, nothing), other, nothing)
                own = pc.if_else(pa.array(found), joined, pa.scalar(None, pa.binary()))
            if (n_missing := int(missing.sum())) > 0:
                first = batch.column("sample_id").filter(pa.array(missing))[0]
                raise MissingVectorsError(
                    f"{vector_set} has no vector for {n_missing} or more of the {split} rows (first: {first}): "
                    f"{how_to_embed(vector_set)}"
                )
            ids.append(batch.column("sample_id"))
            keys.append(own)
            if split == "train":
                n_train += len(found)
                n_valid += int(found.sum())
    all_ids, all_keys = pa.concat_arrays(ids), pa.concat_arrays(keys)
    order = pc.array_sort_indices(all_ids)
    content = hashlib.sha256()
    for start in range(0, len(order), BLOCK_ROWS):
        part = order.slice(start, BLOCK_ROWS)
        for row_id, key in zip(all_ids.take(part).to_pylist(), all_keys.take(part).to_pylist(), strict=True):
            content.update(f"{row_id}:".encode() + (key or b"-") + b"\n")
    return InputCoverage(
        vector_set, spec.fingerprint, content.hexdigest()[:16], n_valid, n_train, tuple(fold_specs(spec))
    )


def read_inputs(
    workspace: Workspace,
    sets: Iterable[VectorSet],
    texts: Sequence[str],
    folds: Folds,
    folder: Path | None = None,
    catalog: str | None = None,
) -> Inputs:
    """Read rows with the given vector sets and text compositions.

    Vectors are float16, as cached: a head converts what it needs, in blocks where it is large.

    Args:
        folder: put the vectors into files of this folder instead of memory.
        catalog: digest of the rows that are expected; None: whatever stands there.

    Raises:
        MissingVectorsError: some row was never embedded.
        FoldMismatchError: the folds are of other rows.
        RowMismatchError: the catalogue was replaced before or while it was read.
    """
    if "train" not in present_splits(workspace):
        raise CatalogError(
            f"no train catalogue in {workspace.root}: run 'shelfprice catalog ingest --train FILE'"
        )
    snapshot = {split: read_snapshot(workspace, split) for split in present_splits(workspace)}
    tables = {split: table for split, (table, _) in snapshot.items()}
    found = "-".join(digest for _, digest in snapshot.values())
    if catalog is not None and found != catalog:
        raise _replaced(workspace)
    folds = folds.aligned(tables["train"]["sample_id"].combine_chunks())
    columns = columns_read(tables["train"].schema)
    together = pa.concat_tables([_with_columns(table, columns) for table in tables.values()])
    fields, start, rows = field_table(together, tables["train"].num_rows), 0, {}
    for split, table in tables.items():
        here = np.arange(start, start + table.num_rows)
        start += table.num_rows
        group = folds.group if split == "train" else -1 - np.arange(table.num_rows)
        rows[split] = _rows_of(
            workspace, split, table, sets, texts, fields.subset(here), group, folds.hash, folder
        )
    price = tables["train"]["price"].to_numpy()
    cleaning = read_cleaning(workspace, rows["train"].sample_id)
    # The vectors belong to the rows as they were when they were read, so the catalogue must not have changed since.
    stands = catalog_digest(workspace) == found and all(
        read_split(workspace, split, ["sample_id"])["sample_id"].equals(table["sample_id"])
        for split, table in tables.items()
    )
    if not stands:
        raise _replaced(workspace)
    return Inputs(
        replace(rows["train"], weight=row_weights(tables["train"])),
        np.log(price),
        folds.fold,
        rows.get("test"),
        cleaning,
        fields.notes,
        folds.looks_back,
    )


def _replaced(workspace: Workspace) -> RowMismatchError:
    return RowMismatchError(
        f"the catalogue of {workspace.root} was replaced while it was read: run the same command again"
    )


def _rows_of(
    workspace: Workspace,
    split: str,
    table: pa.Table,
    sets: Iterable[VectorSet],
    texts: Sequence[str],
    fields: FieldTable,
    group: np.ndarray,
    folds_hash: str,
    folder: Path | None,
) -> Rows:
    composed = {}
    for composition in texts:
        column = compose(composition, table.select(list(composition_columns(composition))))
        composed[composition] = np.array(column.fill_null("").to_pylist(), dtype=object)
    loaded = []
    for vector_set in sets:
        loaded.append(load_any(workspace, vector_set, split, folds_hash, np.float16, folder))
        pa.default_memory_pool().release_unused()  # what the files were read into, as much as the vectors take
    return Rows(
        sample_id=table["sample_id"].combine_chunks(),
        matrices=tuple(matrix for matrix in loaded if isinstance(matrix, Matrix)),
        fields=fields,
        texts=composed,
        group=group,
        folded=tuple(matrix for matrix in loaded if isinstance(matrix, FoldedMatrix)),
    )


def _with_columns(table: pa.Table, columns: list[str]) -> pa.Table:
    """The columns of a table, null where it lacks one: a test file may lack a further column."""
    n_rows = table.num_rows
    types = {name: pa.float64() if name.startswith("numeric:") else pa.string() for name in columns}
    present = [table[n] if n in table.column_names else pa.nulls(n_rows, types[n]) for n in columns]
    return pa.table(dict(zip(columns, present, strict=True)))
