"""The user's files -> the workspace's catalogue: validated rows, parsed fields, images by content."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from store.catalog.images.blobs import FolderImport, import_folder
from store.catalog.images.folder import Folder, list_folder, no_match
from store.catalog.images.links import FILE_PREFIX, mend_links
from store.catalog.ingest.publish import Split, SplitReport, publish_splits
from store.catalog.ingest.rows import (
    MISSING,
    Id,
    ValidatedRows,
    all_integers,
    as_text,
    usable_rows,
    written_ids,
)
from store.catalog.ingest.source import TableSource, read_source
from store.catalog.parse.extras import decide_extras
from store.catalog.read import CATALOG_LOCK, split_path
from store.config import CONFIG_FILE, ColumnConfig, load_config, save_config
from store.workspace import Workspace


@dataclass(frozen=True)
class IngestReport:
    """What `ingest` did."""

    splits: dict[str, SplitReport]
    images: FolderImport | None  # None: no folder was given
    n_left_over: int  # files of the folder that belong to no row
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    notes: tuple[str, ...]
    test_removed: bool
    config_written: bool

    @property
    def is_unchanged(self) -> bool:
        """True when nothing of the catalogue was rewritten."""
        return not self.test_removed and all(split.change == "unchanged" for split in self.splits.values())


def ingest(
    workspace: Workspace,
    train: str,
    test: str | None = None,
    images: str | None = None,
    columns: ColumnConfig | None = None,
) -> IngestReport:
    """Make the workspace's catalogue what these files hold.

    A test split from before is removed when no test file is given: train and test always belong together. Nothing is
    rewritten where nothing changed. Column names become those of the configuration, so that later runs keep to them.

    Args:
        train, test: CSV (also gzipped) or Parquet files; test has no prices.
        images: a folder of images, found by id or by the file name of the row's link.
        columns: column names of the files; None: those of the configuration.

    Raises:
        CatalogError: a file can't be used at all, or the folder matches no row; before anything is written.
    """
    config = load_config(workspace)
    columns = columns or config.columns
    notes: list[str] = []
    splits = _read(columns, train, test, notes)
    folder = list_folder(images) if images is not None else None
    if folder is not None:
        _match(folder, splits)
    with workspace.lock(CATALOG_LOCK):
        if folder is None:
            notes.extend(_images_left_out(workspace))
        imported, n_left_over = None, 0
        if folder is not None:
            used = {name for split in splits for name in split.files if name is not None}
            notes.extend(filter(None, [mend_links(workspace)]))
            imported = import_folder(workspace, folder, used)
            n_left_over = len(folder.names) - len(used)
        reports, test_removed = publish_splits(workspace, splits)
        config_written = columns != config.columns or not workspace.exists(CONFIG_FILE)
        if config_written:
            save_config(workspace, replace(config, columns=columns))
    names = [name.partition(":") for name in splits[0].extras]
    return IngestReport(
        reports,
        imported,
        n_left_over,
        tuple(name for kind, _, name in names if kind == "numeric"),
        tuple(name for kind, _, name in names if kind == "categorical"),
        tuple(notes),
        test_removed,
        config_written,
    )


def _read(columns: ColumnConfig, train: str, test: str | None, notes: list[str]) -> list[Split]:
    sources = {"train": read_source(train)} | ({"test": read_source(test)} if test is not None else {})
    for source in sources.values():
        source.require(columns.text, "--text-column")
    written = [id for source in sources.values() for id in written_ids(source, columns.sample_id)]
    are_integers = all_integers(written)
    taken: dict[Id, str] = {}
    rows: dict[str, ValidatedRows] = {}
    for name, source in sources.items():
        price = columns.price if name == "train" else None
        rows[name] = usable_rows(source, columns.sample_id, price, taken, ids_are_integers=are_integers)
        if source.n_unnamed:
            notes.append(f"{source.n_unnamed} columns of {source.path} without a name: left out")
        if price is None and columns.price in source.columns:
            notes.append(f"column {columns.price!r} of {source.path} is not read: test rows have no price")
    used = {columns.sample_id, columns.text, columns.image_link, columns.price}
    extras = decide_extras(rows["train"], rows.get("test"), used, columns.numeric, columns.categorical)
    notes.extend(extras.notes)
    return [
        Split(
            name,
            rows[name],
            _text(rows[name], source, columns),
            _links(rows[name], source, columns, notes),
            extras.train if name == "train" else extras.test,
        )
        for name, source in sources.items()
    ]


def _text(rows: ValidatedRows, source: TableSource, columns: ColumnConfig) -> pa.Array:
    text = as_text(rows.take(source.columns[columns.text]), columns.text)
    return text.fill_null("").combine_chunks()


def _links(
    rows: ValidatedRows, source: TableSource, columns: ColumnConfig, notes: list[str]
) -> list[str | None]:
    if columns.image_link not in source.columns:
        if columns.image_link != ColumnConfig().image_link:
            source.require(columns.image_link, "--image-column")
        notes.append(f"{source.path} has no column {columns.image_link!r}: its rows have no image link")
        return [None] * len(rows.index)
    column = rows.take(source.columns[columns.image_link])
    links = _link_texts(column, columns.image_link)
    return [None if link is None or link.strip().lower() in MISSING else link.strip() for link in links]


def _link_texts(column: pa.ChunkedArray, name: str) -> list[str | None]:
    """Cells of the link column; a cell that is a list of links becomes its JSON."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return [
            json.dumps(cell, ensure_ascii=False, default=str) if cell else None for cell in column.to_pylist()
        ]
    texts: list[str | None] = as_text(column, name).to_pylist()
    return texts


def _match(folder: Folder, splits: list[Split]) -> None:
    for split in splits:
        pairs = zip(split.rows.sample_id, split.link, strict=True)
        split.files = [folder.find(split.name, sample_id, link) for sample_id, link in pairs]
    if not any(name is not None for split in splits for name in split.files):
        first = splits[0]
        raise no_match(folder, first.name, first.rows.sample_id, first.link)


def _images_left_out(workspace: Workspace) -> Iterator[str]:
    """Told when the catalogue before had images out of a folder and no folder is given now."""
    if not workspace.exists(split_path("train")):
        return
    before = workspace.read_table(split_path("train"), ["image"])["image"].to_pylist()
    n_lost = sum(1 for reference in before if reference is not None and reference.startswith(FILE_PREFIX))
    if n_lost:
        yield (
            f"{n_lost} train rows had an image out of a folder and have none now: "
            "give --images again to keep them"
        )
