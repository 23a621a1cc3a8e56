"""The user's files -> the workspace's catalogue: validated rows, parsed fields, images by content."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from store.catalog.images.blobs import FolderImport, import_content, import_folder
from store.catalog.images.folder import list_folder
from store.catalog.images.links import mend_links
from store.catalog.ingest.given import given_columns
from store.catalog.ingest.ids import all_integers, has_ids, read_ids
from store.catalog.ingest.inline import (
    LinkColumn,
    is_image_type,
    may_be_images,
    names_file,
    read_link_column,
)
from store.catalog.ingest.leftovers import rows_of_no_product
from store.catalog.ingest.matching import images_left_out, match_images, not_images
from store.catalog.ingest.price_column import Prices, check_currencies, check_roles
from store.catalog.ingest.publish import Split, SplitReport, publish_splits
from store.catalog.ingest.readings import Readings, publish_readings
from store.catalog.ingest.rejects import check_rejected, how_rejected_differ
from store.catalog.ingest.rows import ValidatedRows, usable_rows
from store.catalog.ingest.source import TableSource, read_source
from store.catalog.ingest.texts import texts_of
from store.catalog.parse.extras import decide_extras, word_columns
from store.catalog.read import CATALOG_LOCK
from store.config import CONFIG_FILE, ColumnConfig, keep_settings, load_config, save_config
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX
from store.workspace import Workspace


@dataclass(frozen=True)
class IngestReport:
    """What `ingest` did."""

    splits: dict[str, SplitReport]
    images: FolderImport | None  # None: no folder was given
    n_left_over: int  # files of the folder that belong to no row
    n_inline: int  # images that stood in the tables
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
    workspace: Workspace | str | os.PathLike[str],
    train: Any,
    test: Any = None,
    images: str | os.PathLike[str] | None = None,
    columns: ColumnConfig | None = None,
) -> IngestReport:
    """Read tables into the workspace as its catalogue: rows are checked and fields parsed.

    An earlier test split is removed when no test table is given: train and test always belong together. Nothing is
    rewritten where nothing changed. Column names are saved to the configuration, so that later runs use them.

    >>> from store import ingest
    >>> report = ingest("run", "train.csv", "test.csv", images="photos")  # doctest: +SKIP
    >>> report.splits["train"].n_rows, report.splits["train"].rejected  # doctest: +SKIP
    (590, {'price is missing': 2})

    Args:
        workspace: a workspace, or the path or address of one.
        train, test: paths of CSV (also gzipped) or Parquet files, or frames: pandas, Polars, Arrow, or whatever offers
            the Arrow PyCapsule interface. Prices of test rows are kept apart and never learned from.
        images: a folder of images, found by id or by the file name of the row's link.
        columns: column names of the tables; None: those of the configuration.

    Returns:
        Rows, rejected rows and images of each split, and notes for people on how the files were read.

    Raises:
        ConfigError: `shelfprice.toml` holds something that is not understood.
        WorkspaceError: the workspace can't be written.
        CatalogError: a table can't be used at all, too many of its rows can't, or the folder matches no row; before
            anything is written.
    """
    if not isinstance(workspace, Workspace):
        workspace = Workspace(workspace)
    config = load_config(workspace)
    columns = columns or config.columns
    notes: list[str] = []
    splits, readings = _read(columns, train, test, config.submission.price_floor, images is not None, notes)
    folder = list_folder(os.fspath(images)) if images is not None else None
    if folder is not None:
        match_images(folder, splits, notes)
    with workspace.lock(CATALOG_LOCK):
        if folder is None:
            notes.extend(images_left_out(workspace))
        content = {reference: found for split in splits for reference, found in split.content.items()}
        if content:
            notes.extend(filter(None, [mend_links(workspace)]))
            import_content(workspace, content)
        imported, n_left_over = None, 0
        if folder is not None:
            used = {name for split in splits for names in split.files for name in names}
            notes.extend(filter(None, [mend_links(workspace)]))
            imported = import_folder(workspace, folder, used)
            notes.extend(not_images(imported))
            n_left_over = len(folder.names) - len(used)
        reports, test_removed = publish_splits(workspace, splits)
        publish_readings(workspace, readings)
        config_written = columns != config.columns or not workspace.exists(CONFIG_FILE)
        if config_written:
            save_config(workspace, replace(config, columns=columns))
        keep_settings(workspace, notes.append)
    names = [name.partition(":") for name in splits[0].extras]
    return IngestReport(
        reports,
        imported,
        n_left_over,
        len(content),
        tuple(name for kind, _, name in names if kind == "numeric"),
        tuple(name for kind, _, name in names if kind == "categorical"),
        tuple(notes),
        test_removed,
        config_written,
    )


def _read(
    columns: ColumnConfig, train: Any, test: Any, price_floor: float, with_folder: bool, notes: list[str]
) -> tuple[list[Split], Readings]:
    check_roles(columns, notes)
    sources = {"train": read_source(train, "train")}
    if test is not None:
        sources["test"] = read_source(test, "test")
    columns = _with_images_found(columns, sources["train"], notes)
    texts = (columns.text, *columns.more_text)
    named = {columns.sample_id, columns.test_id, columns.image_link, columns.price, columns.weight}
    named |= {columns.group, columns.time, *texts, *columns.left_out}
    sources = {name: source.with_fields(named) for name, source in sources.items()}
    for source in sources.values():
        for name in texts:
            source.require(name, "--text-column")
        notes.extend(source.notes)
    for name in columns.left_out:
        sources["train"].require(name, "--leave-out")
    ids = {name: read_ids(source, columns, name, notes) for name, source in sources.items()}
    prices = Prices(sources, columns, notes)
    amounts = {"train": prices.of_train, "test": None}
    id_columns = {"train": columns.sample_id, "test": columns.test_id or columns.sample_id}
    no_product = {
        name: rows_of_no_product(source, id_columns[name], columns.text, amounts[name])
        for name, source in sources.items()
    }
    are_integers = all_integers(
        [id for name, written in ids.items() for at, id in enumerate(written) if at not in no_product[name]]
    )
    rows: dict[str, ValidatedRows] = {}
    differ: dict[str, str | None] = {}
    for name, source in sources.items():
        rows[name] = usable_rows(
            source, ids[name], amounts[name], no_product=no_product[name], ids_are_integers=are_integers
        )
        differ[name] = how_rejected_differ(rows[name], columns)
        check_rejected(rows[name], columns, differ[name])
        if source.n_unnamed:
            one_or_more = "1 column" if source.n_unnamed == 1 else f"{source.n_unnamed} columns"
            notes.append(f"{one_or_more} of {source.path} without a name: left out")
    if "test" in rows and all(has_ids(source, columns, name) for name, source in sources.items()):
        notes.extend(_shared_ids(rows["train"], rows["test"]))
    notes.extend(_below_floor(rows["train"].price, price_floor))
    used = {columns.sample_id, columns.test_id, columns.image_link, columns.price, columns.weight, *texts}
    used |= {*columns.left_out}
    used -= {""}
    words = _words(sources, used | {*columns.numeric, *columns.categorical}, notes)
    used |= set(words)
    check_currencies(sources, used | set(columns.categorical), prices.reading)
    extras = decide_extras(
        rows["train"],
        rows.get("test"),
        used,
        columns.numeric,
        columns.categorical,
        prices.reading.told,
        joins_text=not columns.more_text,
    )
    words += extras.texts
    rows = {name: replace(one, source=one.source.with_fields(words)) for name, one in rows.items()}
    notes.extend(extras.notes)
    has_images = columns.image_link in sources["train"].columns
    readings = Readings(
        (columns.text, *columns.more_text, *words),
        columns.image_link if has_images else None,
        {name: one for name, one in extras.readings.items() if _is_kept(name, extras.train)},
        prices.reading.currency,
        columns.images_per_row,
    )
    links = {
        name: _links(rows[name], source, columns, with_folder, notes) for name, source in sources.items()
    }
    splits = [
        Split(
            name,
            rows[name],
            texts_of(rows[name], columns.text, (*columns.more_text, *words), notes),
            links[name].links,
            (extras.train if name == "train" else extras.test)
            | given_columns(rows[name], columns, prices.reading.told),
            inline=links[name].images,
            content=links[name].content,
            currency=prices.reading.currency if name == "train" else None,
            holdout=prices.holdout(rows[name], notes) if name == "test" else None,
            rejected_differ=differ[name],
            images_per_row=columns.images_per_row,
        )
        for name in sources
    ]
    return splits, readings


def _is_kept(name: str, columns: dict[str, pa.Array]) -> bool:
    """Whether a column of the file became columns of the catalogue."""
    prefixes = tuple(prefix + name for prefix in (NUMERIC_PREFIX, CATEGORICAL_PREFIX))
    return any(column.startswith(prefixes) for column in columns)


def _shared_ids(train: ValidatedRows, test: ValidatedRows) -> Iterator[str]:
    n_shared = len(set(train.sample_id) & set(test.sample_id))
    if n_shared:
        yield (
            f"{n_shared} ids stand in both files: they are taken for different rows, an id is of its file. If they are "
            "the same products, new products will be priced worse than these test rows"
        )


def _below_floor(price: np.ndarray | None, floor: float) -> Iterator[str]:
    n_below = 0 if price is None else int((price < floor).sum())
    if n_below:
        yield (
            f"{n_below} prices are below the lowest that is submitted and scored, {floor:g}: set price_floor under "
            f"[submission] in {CONFIG_FILE}"
        )


def _with_images_found(columns: ColumnConfig, train: TableSource, notes: list[str]) -> ColumnConfig:
    """The one column whose type says that it holds images, where no other one is named or called as usual."""
    found = [name for name, column in train.columns.items() if is_image_type(column.type)]
    if (
        columns.image_link != ColumnConfig().image_link
        or columns.image_link in train.columns
        or len(found) != 1
    ):
        return columns
    notes.append(f"column {found[0]!r} of {train.path} holds images: they are those of its rows")
    return replace(columns, image_link=found[0])


def _words(sources: dict[str, TableSource], used: set[str], notes: list[str]) -> tuple[str, ...]:
    """Columns of lists of strings that every file has."""
    per_file = [word_columns(source.columns, used) for source in sources.values()]
    words = tuple(name for name in per_file[0] if all(name in names for names in per_file))
    notes.extend(f"column {name!r} holds lists: their words are joined to the text" for name in words)
    return words


def _links(
    rows: ValidatedRows, source: TableSource, columns: ColumnConfig, with_folder: bool, notes: list[str]
) -> LinkColumn:
    if columns.image_link not in source.columns:
        if columns.image_link != ColumnConfig().image_link:
            source.require(columns.image_link, "--image-column")
        others = [name for name, column in source.columns.items() if may_be_images(name, column)]
        option = f"--image-column {shlex.quote(others[0])}" if others else ""
        hint = f" ({option!r} names one that holds images)" if others else ""
        notes.append(f"{source.path} has no column {columns.image_link!r}: its rows have no image link{hint}")
        return LinkColumn([None] * len(rows.index))
    found = read_link_column(rows.take(source.columns[columns.image_link]), columns.image_link)
    n_files = sum(
        1
        for link, images in zip(found.links, found.images, strict=True)
        if link and not images and names_file(link)
    )
    if n_files and not with_folder:
        notes.append(f"{n_files} rows of {source.path} name image files: give their folder with --images")
    return found
