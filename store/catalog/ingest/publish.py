"""Publishes the splits that changed; the train and test splits on disk always belong together."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from store.catalog.download.addresses import read_link
from store.catalog.download.rows import image_columns, known_references
from store.catalog.images.links import FILE_PREFIX, known_links
from store.catalog.ingest.digest import split_digest, split_metadata
from store.catalog.ingest.ids import Id
from store.catalog.ingest.rows import ValidatedRows, count_reasons, rejected_table
from store.catalog.parse.fields import field_columns
from store.catalog.read import n_with_several, split_path
from store.config import ImagePolicy
from store.schema import CATALOG_COLUMNS, HOLDOUT_PRICE, PRICE
from store.workspace import Workspace

REJECTED_FILE = "catalog/rejected.parquet"
HOLDOUT_FILE = "catalog/holdout.parquet"
HOLDOUT = "n_holdout"  # in the metadata of the test split: how many prices that file has
_CHUNK_ROWS = 8192
Change = Literal["new", "changed", "reordered", "unchanged"]


@dataclass(frozen=True)
class SplitReport:
    """What became of one file."""

    path: str
    n_rows: int
    n_with_image: int
    digest: str
    change: Change
    rejected: dict[str, int]  # reason -> rows
    rejected_differ: str | None = None  # how these rows are unlike the others; None: too few to tell
    n_holdout: int = 0  # test rows whose price is known
    n_with_several: int = 0  # rows with several images
    n_to_fetch: int = 0  # rows with links to images that were not fetched yet


@dataclass
class Split:
    """One split before it is published."""

    name: str
    rows: ValidatedRows
    text: pa.Array
    link: list[str | None]
    extras: dict[str, pa.Array]
    files: list[list[str]] = field(default_factory=list)  # image files of each row
    inline: list[list[str]] = field(default_factory=list)  # references of each row to images in the table
    content: dict[str, bytes | pa.Buffer | None] = field(default_factory=dict)  # of these
    images_per_row: ImagePolicy = "all"
    currency: str | None = None  # as written beside the prices; None: nothing is
    holdout: np.ndarray | None = (
        None  # (n_rows,) prices of test rows, NaN where unknown; None: the file has none
    )
    rejected_differ: str | None = None


def publish_splits(workspace: Workspace, splits: list[Split]) -> tuple[dict[str, SplitReport], bool]:
    """Publish what changed: the test split never stands beside a train split that it was not ingested with."""
    workspace.sweep("", "catalog")
    known = known_links(workspace)
    given = {split.name: _given_table(split, known) for split in splits}
    digest = {name: split_digest(table, known) for name, table in given.items()}
    change = {name: _change(workspace, name, digest[name], table, known) for name, table in given.items()}
    stands = workspace.exists(split_path("test"))
    is_stale = stands and (
        "test" not in change or (change["test"] == "changed" and change["train"] != "unchanged")
    )
    if is_stale:
        workspace.remove(split_path("test"))
    for split in splits:
        n_holdout = _n_holdout(split)
        if change[split.name] != "unchanged" or _recorded_holdout(workspace, split.name) != n_holdout:
            table = _with_fields(given[split.name])
            metadata = split_metadata(digest[split.name])
            if split.currency is not None:
                metadata["currency"] = split.currency
            if n_holdout:
                metadata[HOLDOUT] = n_holdout
            workspace.publish_table(split_path(split.name), table, metadata=metadata)
    _publish_holdout(workspace, next((split for split in splits if split.name == "test"), None))
    rejected = rejected_table([split.rows for split in splits])
    if not workspace.is_sound(REJECTED_FILE) or not workspace.read_table(REJECTED_FILE).equals(rejected):
        workspace.publish_table(REJECTED_FILE, rejected)
    reports = {
        split.name: SplitReport(
            split.rows.source.path,
            len(split.rows.index),
            len(given[split.name]) - given[split.name]["image"].null_count,
            digest[split.name],
            change[split.name],
            count_reasons(split.rows.rejected),
            split.rejected_differ,
            _n_holdout(split),
            n_with_several(given[split.name]),
            _n_to_fetch(split, given[split.name]),
        )
        for split in splits
    }
    return reports, stands and "test" not in change


def lost_holdout(workspace: Workspace) -> int:
    """Prices of test rows that were ingested and whose file is gone; 0 where nothing is missing."""
    if not workspace.exists(split_path("test")) or workspace.exists(HOLDOUT_FILE):
        return 0
    return _recorded_holdout(workspace, "test")


def _recorded_holdout(workspace: Workspace, split: str) -> int:
    """Prices of its rows that a split was ingested with; version 0.1.0 recorded none."""
    return int(workspace.read_metadata(split_path(split)).get(HOLDOUT, 0))


def _n_holdout(split: Split) -> int:
    return 0 if split.holdout is None else int(np.isfinite(split.holdout).sum())


def _n_to_fetch(split: Split, given: pa.Table) -> int:
    lacks_image = given["image"].is_null().to_pylist()
    return sum(
        bool(read_link(link, take_all=False).urls)
        for link, lacks in zip(split.link, lacks_image, strict=True)
        if lacks and link is not None
    )


def _publish_holdout(workspace: Workspace, test: Split | None) -> None:
    """Prices of test rows, which no model sees: in a file of their own, gone where the test file has none."""
    if test is None or test.holdout is None:
        workspace.remove(HOLDOUT_FILE)
        return
    known = np.flatnonzero(np.isfinite(test.holdout))
    ids = _id_array(test.rows.sample_id).take(pa.array(known))
    schema = pa.schema([pa.field("sample_id", ids.type), HOLDOUT_PRICE])
    table = pa.table([ids, pa.array(test.holdout[known])], schema=schema)
    if not workspace.is_sound(HOLDOUT_FILE) or not workspace.read_table(HOLDOUT_FILE).equals(table):
        workspace.publish_table(HOLDOUT_FILE, table)


def _id_array(sample_id: list[Id]) -> pa.Array:
    return pa.array(sample_id, pa.int64() if isinstance(sample_id[0], int) else pa.string())


def _change(
    workspace: Workspace, split: str, digest: str, given: pa.Table, known: dict[str, str | None]
) -> Change:
    path = split_path(split)
    if not workspace.exists(path):
        return "new"
    if not workspace.is_sound(path) or workspace.read_metadata(path)["digest"] != digest:
        return "changed"  # or damaged: what is given takes its place
    before = workspace.read_table(path)
    if not before["sample_id"].equals(given["sample_id"]):
        return "reordered"
    # A file that someone wrote anew may state the digest of other rows.
    names = given.column_names
    is_same = set(names) <= set(before.column_names) and (
        before.select(names).equals(given) or split_digest(before.select(names), known) == digest
    )
    return "unchanged" if is_same else "changed"


def _given_table(split: Split, known: dict[str, str | None]) -> pa.Table:
    """Every column that is not parsed out of the text."""
    none: list[list[str]] = [[] for _ in split.link]
    references = []
    for names, inline, link in zip(split.files or none, split.inline or none, split.link, strict=True):
        given = [*(FILE_PREFIX + name for name in names), *inline]
        given = given[:1] if split.images_per_row == "first" else given
        references.append(given or known_references(link, known, split.images_per_row))
    columns: dict[str, pa.Array] = {
        "sample_id": _id_array(split.rows.sample_id),
        "text": split.text,
        "image_link": pa.array(split.link, pa.string()),
        **image_columns(references),
        **split.extras,
    }
    table = pa.table(columns)
    return table if split.rows.price is None else table.append_column(PRICE, pa.array(split.rows.price))


def _with_fields(given: pa.Table) -> pa.Table:
    """The catalogue by contract: given columns and those parsed out of the text."""
    parts: list[pa.Table] = []
    for batch in given.select(["text"]).to_batches(_CHUNK_ROWS):
        parts.append(pa.table(field_columns(batch.column("text").to_pylist())))
    parsed = pa.concat_tables(parts)
    names = [name for name in CATALOG_COLUMNS if name not in given.column_names]
    others = [name for name in given.column_names if name not in ("sample_id", *CATALOG_COLUMNS)]
    columns = {"sample_id": given["sample_id"]}
    columns |= {name: parsed[name] if name in names else given[name] for name in CATALOG_COLUMNS}
    columns |= {name: given[name] for name in others if name != PRICE.name}
    table = pa.table(columns)
    return table.append_column(PRICE, given[PRICE.name]) if PRICE.name in others else table
