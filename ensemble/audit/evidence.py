"""Inputs of the checks: the cached vectors, the fields, and the training rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.extremes import clip_extremes, extremes_note
from store.catalog.read import extra_columns, present_splits, read_split, split_path
from store.errors import CatalogError, MissingVectorsError
from store.folds.assign import read_folds
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, current_spec
from store.workspace import Workspace

PARSED_NUMBERS = ("value", "pack_count", "quantity")
PARSED_CATEGORIES = ("unit", "quantity_unit")


@dataclass(frozen=True)
class Evidence:
    """Rows of one split as blocks of numbers, all in catalogue order; at most `max_rows` of them, drawn."""

    sample_id: pa.Array  # (n_rows,)
    position: np.ndarray  # (n_rows,) place of the row in its catalogue
    blocks: dict[str, np.ndarray]  # vector set, or "fields" -> (n_rows, n_columns) float32, NaN where missing
    fields: tuple[str, ...] = ()  # names of the columns of "fields"


@dataclass(frozen=True, kw_only=True)
class TrainingEvidence(Evidence):
    """Evidence of training rows, with what is known of them."""

    log_actual: np.ndarray  # (n_rows,)
    fold: np.ndarray  # (n_rows,)
    group: np.ndarray  # (n_rows,)
    looks_back: bool = False  # folds follow one another in time


def read_evidence(
    workspace: Workspace, vectors: Sequence[str], max_rows: int, seed: int
) -> tuple[TrainingEvidence, Evidence | None, list[str]]:
    """Training rows, test rows (None without a test catalogue), and notes on vectors that are missing.

    Args:
        vectors: names of vector sets; one that was never embedded, or not for every row, is noted.
        max_rows: of each split, drawn without replacement.

    Raises:
        CatalogError: there is no training catalogue.
        FoldMismatchError: the folds are of other rows.
    """
    splits = present_splits(workspace)
    if "train" not in splits:
        raise CatalogError(
            f"no train catalogue in {workspace.root}: run 'shelfprice catalog ingest --train FILE'"
        )
    tables = {
        split: read_split(workspace, split, _columns(workspace, split)).combine_chunks() for split in splits
    }
    generator = np.random.default_rng(seed)
    chosen = {
        split: np.sort(generator.choice(len(table), min(max_rows, len(table)), replace=False))
        for split, table in tables.items()
    }
    notes: list[str] = []
    blocks: dict[str, dict[str, np.ndarray]] = {split: {} for split in splits}
    for name in vectors:
        for split, X in _vectors(workspace, name, chosen, notes).items():
            blocks[split][name] = X
    names, numbers = _fields(tables, notes)
    for split, X in numbers.items():
        blocks[split]["fields"] = X[chosen[split]]
    found = {
        split: Evidence(
            table["sample_id"].combine_chunks().take(pa.array(chosen[split])),
            chosen[split],
            blocks[split],
            names,
        )
        for split, table in tables.items()
    }
    train, rows = found["train"], tables["train"]
    folds = read_folds(workspace).aligned(rows["sample_id"].combine_chunks())
    at = chosen["train"]
    training = TrainingEvidence(
        train.sample_id,
        train.position,
        train.blocks,
        names,
        log_actual=np.log(rows["price"].to_numpy())[at],
        fold=folds.fold[at],
        group=folds.group[at],
        looks_back=folds.looks_back,
    )
    return training, found.get("test"), notes


def compress(blocks: Sequence[np.ndarray], inside: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Blocks side by side, each brought to at most `n_components` columns, missing values filled.

    Args:
        blocks: each of shape (n_rows, n_columns).
        inside: rows that directions and means are learned from, shape (n_rows,) bool.

    Returns:
        float32, shape (n_rows, about n_components per block): all rows.
    """
    from sklearn.decomposition import PCA

    parts = []
    for block in blocks:
        missing = np.isnan(block)
        known = (~missing[inside]).sum(axis=0)
        middle = np.where(missing[inside], 0.0, block[inside]).sum(axis=0) / np.maximum(known, 1)
        filled = np.where(missing, middle, block)
        if not np.ptp(filled[inside], axis=0).any():
            filled = filled[
                :, :0
            ]  # a block of one value, such as that of images where there are none, says nothing
        elif block.shape[1] > n_components < inside.sum():
            pca = PCA(n_components, random_state=seed, svd_solver="randomized").fit(filled[inside])
            filled = pca.transform(filled)
        parts += [filled, missing.mean(axis=1, keepdims=True)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _columns(workspace: Workspace, split: str) -> list[str]:
    with workspace.parquet(split_path(split)) as file:
        numeric, categorical = extra_columns(file.schema_arrow)
    price = ["price"] if split == "train" else []
    return ["sample_id", *PARSED_NUMBERS, *PARSED_CATEGORIES, *numeric, *categorical, *price]


def _vectors(
    workspace: Workspace, name: str, chosen: dict[str, np.ndarray], notes: list[str]
) -> dict[str, np.ndarray]:
    """One vector set's chosen rows of each split, NaN where a row has none; empty where any is missing."""
    found = {}
    try:
        spec = current_spec(workspace, name.partition("@")[0])
        vector_set = VectorSet.parse(name, spec.modality)
        for split, rows in chosen.items():
            matrix = load_matrix(workspace, vector_set, split).rows(rows)
            matrix.X[~matrix.valid] = np.nan
            found[split] = matrix.X
    except MissingVectorsError as error:
        notes.append(f"{name} is left out: {error}")
        return {}
    return found


def _fields(tables: dict[str, pa.Table], notes: list[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the columns, and the parsed numbers and category codes of each split, with the same columns in each.

    Levels are numbered in alphabetical order: numbered as they come, those that only the last split has would be the
    highest, and a column of many levels would tell the splits apart.
    """
    first = next(iter(tables.values()))
    numeric, categorical = extra_columns(first.schema)
    columns: dict[str, list[np.ndarray]] = {split: [] for split in tables}
    for name in (*PARSED_NUMBERS, *numeric):
        together = np.concatenate([_numbers(table, name) for table in tables.values()])
        values, n_clipped = clip_extremes(together, len(first))
        if n_clipped:
            notes.append(extremes_note(name, n_clipped, len(values)))
        ends = np.cumsum([len(table) for table in tables.values()])[:-1]
        for split, part in zip(tables, np.split(values, ends), strict=True):
            columns[split].append(part)
    for name in (*PARSED_CATEGORIES, *categorical):
        levels = pc.unique(
            pa.concat_arrays([c for t in tables.values() if name in t.column_names for c in t[name].chunks])
        ).drop_null()
        levels = levels.take(pc.array_sort_indices(levels))
        for split, table in tables.items():
            code = pc.index_in(table[name], value_set=levels) if name in table.column_names else None
            columns[split].append(
                np.full(len(table), np.nan)
                if code is None
                else code.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
            )
    names = (*PARSED_NUMBERS, *numeric, *PARSED_CATEGORIES, *categorical)
    written = tuple(name.partition(":")[2] or name for name in names)
    return written, {split: np.stack(c, axis=1).astype(np.float32) for split, c in columns.items()}


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return np.asarray(table[name].combine_chunks().to_numpy(zero_copy_only=False))
