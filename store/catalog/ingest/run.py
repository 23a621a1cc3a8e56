"""The user's files -> the workspace's catalogue: validated rows, parsed fields, images by content."""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.download.addresses import split_links
from store.catalog.images.blobs import FolderImport, import_content, import_folder
from store.catalog.images.folder import NO_ID, RULES, Folder, Match, list_folder, no_match
from store.catalog.images.links import FILE_PREFIX, mend_links
from store.catalog.ingest.given import given_columns
from store.catalog.ingest.ids import Id, all_integers, read_ids
from store.catalog.ingest.inline import (
    LinkColumn,
    holds_images,
    is_image_type,
    looks_like_images,
    names_file,
    read_link_column,
)
from store.catalog.ingest.leftovers import rows_of_no_product
from store.catalog.ingest.prices import PriceReading, describe, price_values, read_prices, read_prices_beside
from store.catalog.ingest.publish import HOLDOUT_FILE, Split, SplitReport, publish_splits
from store.catalog.ingest.readings import Readings, publish_readings
from store.catalog.ingest.rejects import check_rejected, how_rejected_differ
from store.catalog.ingest.rows import NO_PRICE, ValidatedRows, refuse_price, usable_rows
from store.catalog.ingest.source import TableSource, read_source
from store.catalog.ingest.texts import texts_of
from store.catalog.parse.currencies import currency_counts
from store.catalog.parse.extras import decide_extras, word_columns
from store.catalog.read import CATALOG_LOCK, split_path
from store.config import CONFIG_FILE, ColumnConfig, keep_settings, load_config, save_config
from store.errors import CatalogError
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX
from store.workspace import Workspace

_MOST_CURRENCIES = 60  # distinct cells of a column of currencies
_LOOKED_AT = 10_000  # cells of a column, of which the first that hold something tell whether they are images
_NOT_THE_PRICE = {
    "sample_id": "--id-column",
    "test_id": "--test-id-column",
    "text": "--text-column",
    "more_text": "--text-column",
    "image_link": "--image-column",
    "group": "--group-column",
    "time": "--time-column",
}


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
        _match(folder, splits, notes)
    with workspace.lock(CATALOG_LOCK):
        if folder is None:
            notes.extend(_images_left_out(workspace))
        content = {reference: found for split in splits for reference, found in split.content.items()}
        if content:
            notes.extend(filter(None, [mend_links(workspace)]))
            import_content(workspace, content)
        imported, n_left_over = None, 0
        if folder is not None:
            used = {name for split in splits for names in split.files for name in names}
            notes.extend(filter(None, [mend_links(workspace)]))
            imported = import_folder(workspace, folder, used)
            notes.extend(_not_images(imported))
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
    _check_price(columns, notes)
    sources = {"train": read_source(train, "train")}
    if test is not None:
        sources["test"] = read_source(test, "test")
    columns = _with_images_found(columns, sources["train"], notes)
    texts = (columns.text, *columns.more_text)
    named = {columns.sample_id, columns.test_id, columns.image_link, columns.price, columns.weight}
    named |= {columns.group, columns.time, *texts}
    sources = {name: source.with_fields(named) for name, source in sources.items()}
    for source in sources.values():
        for name in texts:
            source.require(name, "--text-column")
        notes.extend(source.notes)
    ids = {name: read_ids(source, columns, name, notes) for name, source in sources.items()}
    prices = _Prices(sources, columns, notes)
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
            notes.append(f"{source.n_unnamed} columns of {source.path} without a name: left out")
    if "test" in rows:
        notes.extend(_shared_ids(rows["train"], rows["test"]))
    notes.extend(_below_floor(rows["train"].price, price_floor))
    used = {columns.sample_id, columns.test_id, columns.image_link, columns.price, columns.weight, *texts}
    used -= {""}
    words = _words(sources, used | {*columns.numeric, *columns.categorical}, notes)
    used |= set(words)
    _check_currencies(sources, used | set(columns.categorical), prices.reading)
    extras = decide_extras(
        rows["train"], rows.get("test"), used, columns.numeric, columns.categorical, prices.reading.told
    )
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


def _check_price(columns: ColumnConfig, notes: list[str]) -> None:
    """Refuse the column of prices in another role, where models would learn from what they are to predict.

    Raises:
        CatalogError: it is named as something else.
    """
    for role, option in _NOT_THE_PRICE.items():
        named = getattr(columns, role)
        if columns.price in (named if isinstance(named, tuple) else (named,)):
            raise CatalogError(
                f"{option} {shlex.quote(columns.price)}: that column holds the prices, which are predicted and may not be "
                f"learned from: name another column with {option}, or the prices with --price-column"
            )
    if columns.weight == columns.price:
        notes.append(
            f"column {columns.weight!r} is the weight of the rows as well: each counts as much as its price"
        )


def _check_currencies(sources: dict[str, TableSource], used: set[str], reading: PriceReading) -> None:
    """Refuse prices without a currency beside a column that holds several of them.

    Raises:
        CatalogError: a further column holds the codes or signs of several currencies, and nothing else.
    """
    if reading.currency is not None:
        return
    for name in [name for name in sources["train"].columns if name not in used]:
        columns = [source.columns[name] for source in sources.values() if name in source.columns]
        cells: Counter[str] = Counter()
        for column in columns:
            if not pa.types.is_string(column.type) or pc.count_distinct(column).as_py() > _MOST_CURRENCIES:
                break
            for one in column.value_counts().to_pylist():
                cells[(one["values"] or "").strip()] += one["counts"]
        else:
            counts = currency_counts(cells)
            if len(counts) > 1:
                told = ", ".join(f"{kind} in {n} rows" for kind, n in counts.most_common())
                raise CatalogError(
                    f"column {name!r} holds {len(counts)} currencies ({told}) beside prices without one: nothing is "
                    "converted, so keep the rows of one currency, or convert them before; if all prices are in one "
                    f"currency, keep the column with {f'--categorical {shlex.quote(name)}'!r}"
                )


def _is_kept(name: str, columns: dict[str, pa.Array]) -> bool:
    """Whether a column of the file became columns of the catalogue."""
    prefixes = tuple(prefix + name for prefix in (NUMERIC_PREFIX, CATEGORICAL_PREFIX))
    return any(column.startswith(prefixes) for column in columns)


class _Prices:
    """The prices of train, and of test where its file has them."""

    reading: PriceReading
    of_train: list[float | str]

    def __init__(self, sources: dict[str, TableSource], columns: ColumnConfig, notes: list[str]) -> None:
        self._column, self._decimal = columns.price, columns.decimal
        train = sources["train"].require(columns.price, "--price-column")
        self.reading = read_prices(train, columns.price, columns.decimal, columns.price_range)
        self.of_train = price_values(train, columns.price, self.reading)
        if (said := describe(self.reading, columns.price)) is not None:
            notes.append(said)

    def holdout(self, rows: ValidatedRows, notes: list[str]) -> np.ndarray | None:
        """Prices of usable test rows, float64 of shape (n_rows,), NaN where unknown; None where the file has none."""
        source = rows.source
        if self._column not in source.columns:
            return None
        cells = rows.take(source.columns[self._column])
        reading = read_prices_beside(cells, self._column, self.reading, self._decimal)
        values = price_values(cells, self._column, reading)
        price = np.array([np.nan if isinstance(value, str) else value for value in values], np.float64)
        reasons = [value if isinstance(value, str) else refuse_price(value) for value in values]
        price[[reason is not None for reason in reasons]] = np.nan
        unused = [at for at, reason in enumerate(reasons) if reason not in (None, *NO_PRICE)]
        n_known = int(np.isfinite(price).sum())
        about = f"column {self._column!r} of {source.path} is not learned from"
        first = f"line {source.lines[rows.index[unused[0]]]}, {reasons[unused[0]]}" if unused else ""
        if not n_known:
            none = (
                f"none of its {len(unused)} prices can be used (first: {first})"
                if unused
                else "it holds no price"
            )
            notes.append(f"{about}: {none}")
            return None
        others = f"; {len(unused)} others can't be used (first: {first})" if unused else ""
        if reading.convention.decimal != self.reading.convention.decimal:
            others += (
                f"; they are written as {reading.convention.example}, other than those of the training file"
            )
        if reading.currency is not None and self.reading.currency is None:
            others += f"; they are marked {reading.currency!r}, and taken to be in the currency of the training file"
        notes.append(
            f"{about}: its {n_known} prices are kept apart in {HOLDOUT_FILE}, to compare predictions with them{others}. "
            "To train on these rows as well, add them to the training file"
        )
        return price


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
        others = [name for name, column in source.columns.items() if _may_be_images(name, column)]
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


def _may_be_images(name: str, column: pa.ChunkedArray) -> bool:
    if holds_images(column):
        return True
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = pc.list_flatten(column)
    return pa.types.is_string(column.type) and looks_like_images(name, column[:_LOOKED_AT].to_pylist())


def _match(folder: Folder, splits: list[Split], notes: list[str]) -> None:
    """Find the file of each row; what was found by another rule than the usual ones is counted in the notes."""
    ids = [set(split.rows.sample_id) for split in splits]
    shared = set.intersection(*ids) if len(ids) > 1 else set()
    counts: Counter[str] = Counter()
    gone: dict[str, list[list[str]]] = {}  # split -> files that each row names and the folder lacks
    for split in splits:
        pairs = list(zip(split.rows.sample_id, split.link, strict=True))
        found = [folder.find(split.name, one, link, is_shared=one in shared) for one, link in pairs]
        links_of: dict[str, set[str | None]] = defaultdict(set)  # file that another extension led to -> links
        for match, (_, link) in zip(found, pairs, strict=True):
            if match is not None and match.rule == "extension":
                links_of[match.name].add(link)
        found = [None if match is not None and len(links_of[match.name]) > 1 else match for match in found]
        files = [_files(folder, split, match, link) for match, (_, link) in zip(found, pairs, strict=True)]
        split.files = [names for names, _ in files]
        gone[split.name] = [missing for _, missing in files]
        counts.update(match.rule for match in found if match is not None and match.rule is not None)
    _add_numbered(folder, splits, shared, counts)
    notes.extend(f"{counts[rule]} rows have their image {how}" for rule, how in RULES.items() if counts[rule])
    for split in splits:
        if split.images_per_row == "first":
            split.files = [names[:1] for names in split.files]
    taken = {name for split in splits for names in split.files for name in names}
    plain = [match for one in shared if (match := folder.find("train", one, None)) is not None]
    if unclear := [match.name for match in plain if match.name not in taken]:
        notes.append(
            f"{len(unclear)} images are named by an id that stands in both files and are taken for neither (first: "
            f"{min(unclear)}): name them train_<id> or test_<id>"
        )
    n_rows, whys = _without_image(folder, splits, shared)
    if not taken:
        first = splits[0]
        why = next(iter(whys.values()), None)
        raise no_match(folder, first.name, first.rows.sample_id, first.link, why)
    notes.extend(f"no image for {n_rows[kind]} rows: {why}" for kind, why in whys.items() if kind != "split")
    notes.extend(_named_and_gone(splits, gone))


def _without_image(
    folder: Folder, splits: list[Split], shared: set[Id]
) -> tuple[Counter[str], dict[str, str]]:
    """Rows whose image is in the folder and not taken: how many by the kind of reason, and the first of each kind."""
    n_rows: Counter[str] = Counter()
    whys: dict[str, str] = {}
    for split in splits:
        for one, link, names in zip(split.rows.sample_id, split.link, split.files, strict=True):
            if not names and (found := folder.why_none(split.name, one, link, is_shared=one in shared)):
                n_rows[found[0]] += 1
                whys.setdefault(*found)
    return n_rows, whys


def _named_and_gone(splits: list[Split], gone: dict[str, list[list[str]]]) -> Iterator[str]:
    """How many image files rows name that the folder lacks; of a row that names one, where it has no other."""
    rows = [
        (name, one)
        for split in splits
        for one, names, missing in zip(split.rows.sample_id, split.files, gone[split.name], strict=True)
        if not names or split.images_per_row == "all"
        for name in missing
    ]
    if rows:
        yield (
            f"images that rows name and the folder lacks: {len(rows)} (first: {rows[0][0]} of row {rows[0][1]}); these "
            "rows have their other images or none"
        )


def _files(
    folder: Folder, split: Split, match: Match | None, link: str | None
) -> tuple[list[str], list[str]]:
    """Every image file of a row, the one found for it and then those that its link column lists, and those not there."""
    names = [match.name] if match is not None else []
    if not link:
        return names, []
    listed = split_links(link) if split.images_per_row == "all" else None
    if listed is None:
        return names, [link] if match is None and names_file(link) else []
    missing = []
    for one in listed:
        if (other := folder.find(split.name, NO_ID, one)) is not None:
            names.append(other.name)
        elif one and names_file(one):
            missing.append(one)
    return list(dict.fromkeys(names)), missing


def _add_numbered(folder: Folder, splits: list[Split], shared: set[Id], counts: Counter[str]) -> None:
    """Files that are named by a row's id and a number, where they are no other row's."""
    taken = {name for split in splits for names in split.files for name in names}
    for split in splits:
        for at, sample_id in enumerate(split.rows.sample_id):
            numbered = folder.numbered(split.name, sample_id, is_shared=sample_id in shared)
            fresh = [name for name in numbered if name not in taken]
            if fresh:
                split.files[at] = [*split.files[at], *fresh]
                counts["numbered"] += 1


def _not_images(imported: FolderImport) -> Iterator[str]:
    if imported.no_images:
        name, reason = imported.no_images[0]
        yield (
            f"files that are stored and are no images: {len(imported.no_images)} (first: {name}, {reason}): 'shelfprice "
            "embed run' counts them as failures"
        )


def _images_left_out(workspace: Workspace) -> Iterator[str]:
    """Told when the catalogue before had images out of a folder and no folder is given now."""
    if not workspace.is_sound(split_path("train")):
        return
    before = workspace.read_table(split_path("train"), ["image"])["image"].to_pylist()
    n_lost = sum(1 for reference in before if reference is not None and reference.startswith(FILE_PREFIX))
    if n_lost:
        yield (
            f"{n_lost} train rows had an image out of a folder and have none now: "
            "give --images again to keep them"
        )
