"""The ingested catalogue, as other rooms read it."""

import os
from collections.abc import Sequence

import pyarrow as pa

from store.digests import table_metadata
from store.errors import CatalogError
from store.schema import CATEGORICAL_PREFIX, FURTHER_IMAGES, NUMERIC_PREFIX
from store.workspace import Workspace

SPLITS = ("train", "test")
CATALOG_LOCK = "catalog/.ingest.lock"  # held while splits are replaced


def split_path(split: str) -> str:
    return f"catalog/{split}.parquet"


def present_splits(workspace: Workspace) -> list[str]:
    """Which of train and test were ingested.

    Raises:
        CatalogError: none was.
    """
    present = [split for split in SPLITS if workspace.exists(split_path(split))]
    if not present:
        raise CatalogError(
            f"no catalogue in {workspace.root}: run 'shelfprice catalog ingest --train FILE -w {workspace.root}'"
        )
    return present


def read_split(
    workspace: Workspace | str | os.PathLike[str], split: str = "train", columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of one split in catalogue order: ids, texts, parsed fields, and prices of train.

    >>> from store import read_split
    >>> read_split("run", "train", ["sample_id", "price"]).num_rows  # doctest: +SKIP
    590

    Args:
        workspace: a workspace, or the path or address of one.
        split: "train" or "test".
        columns: columns to read; None: all.

    Returns:
        An Arrow table with the columns of `store.schema.CATALOG_COLUMNS` and the further columns, one row for each row.

    Raises:
        CatalogError: that split was never ingested.
    """
    workspace = Workspace.of(workspace)
    if split not in present_splits(workspace):
        raise CatalogError(
            f"no {split} catalogue in {workspace.root}: run 'shelfprice catalog ingest --{split} FILE -w {workspace.root}'"
        )
    return workspace.read_table(split_path(split), columns)


def read_snapshot(workspace: Workspace, split: str) -> tuple[pa.Table, str]:
    """Rows of one split and the digest that belongs to them, whoever replaces the split meanwhile.

    Raises:
        CatalogError: that split was never ingested.
    """
    read_split(workspace, split, [])  # says what is missing
    with workspace.parquet(split_path(split), whole=True) as file:
        return file.read(), str(table_metadata(file)["digest"])


def catalog_digest(workspace: Workspace) -> str:
    """Digest over every ingested row of every split, independent of row order; changes when any row does."""
    return "-".join(recorded_digest(workspace, split) for split in present_splits(workspace))


def recorded_digest(workspace: Workspace, split: str) -> str:
    """Digest over every row of one split that was ingested."""
    digest: str = workspace.read_metadata(split_path(split))["digest"]
    return digest


def columns_of_images(workspace: Workspace, split: str) -> list[str]:
    """Columns of a split that refer to images: `image`, and `further_images` where some row has several."""
    with workspace.parquet(split_path(split)) as file:
        has_further = FURTHER_IMAGES.name in file.schema_arrow.names
    return ["image", FURTHER_IMAGES.name] if has_further else ["image"]


def image_references(rows: pa.Table) -> list[list[str]]:
    """References, as in column `image`, to every image of each row, of a table that has `columns_of_images`."""
    name = FURTHER_IMAGES.name
    further = rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
    return [
        [image, *(others or ())] if image is not None else []
        for image, others in zip(rows["image"].to_pylist(), further, strict=True)
    ]


def n_with_several(rows: pa.Table) -> int:
    """How many catalogue rows have several images."""
    name = FURTHER_IMAGES.name
    return len(rows) - rows[name].null_count if name in rows.column_names else 0


def extra_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Names (with prefix) of the user's numeric and categorical columns in a catalogue schema."""
    numeric = [name for name in schema.names if name.startswith(NUMERIC_PREFIX)]
    categorical = [name for name in schema.names if name.startswith(CATEGORICAL_PREFIX)]
    return numeric, categorical
