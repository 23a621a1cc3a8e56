"""The ids of a file: a column, its index, or the row number where the file has neither."""

import re
from collections import Counter
from contextlib import suppress
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import MISSING, as_text
from store.catalog.ingest.source import TableSource
from store.config import ROW_NUMBER, ColumnConfig
from store.errors import CatalogError

Id = int | str
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = 2**63
_SHORTENED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]{2,}")  # what a spreadsheet makes of a long number
_LIKE_ID = re.compile(
    r"(?:.*[\s_.-])?(?i:id|ids|uid|uuid|guid|sku|asin|ean|gtin|upc|isbn)|.*[a-z]I[dD]", re.DOTALL
)


def read_ids(source: TableSource, columns: ColumnConfig, split: str, notes: list[str]) -> list[str | None]:
    """The ids of one file as text, None where a row has none.

    A file without a column of ids has those of its index or else its row numbers, which `notes` says; a column that
    looks like one must be named.

    Raises:
        CatalogError: the column that the configuration names is missing, or a spreadsheet shortened its ids.
    """
    option = "--test-id-column" if split == "test" else "--id-column"
    name = _id_column(columns, split)
    if name in source.columns:
        return _written_ids(source, name, option)
    if name == ROW_NUMBER:
        return _row_numbers(source)
    likely = [column for column in source.columns if _could_be_ids(source, column)]
    is_named = name != ColumnConfig().sample_id
    if is_named or likely:
        among = {column.lower(): column for column in (source.columns if is_named else likely)}
        near = [among[lowered] for lowered in get_close_matches(name.lower(), among, 1)]
        source.require(name, option, next(iter([*near, *likely]), None))
    if source.index is not None and _all_differ(source.index):
        notes.append(f"{source.path} has no column of ids: those of its index are taken")
        return _as_ids(source.index, "index")
    notes.append(f"{source.path} has no column of ids: its rows are numbered from 1")
    return _row_numbers(source)


def has_ids(source: TableSource, columns: ColumnConfig, split: str) -> bool:
    """Whether a file has ids of its own, as a column or its index; else `read_ids` numbers its rows."""
    name = _id_column(columns, split)
    return name in source.columns or (
        name != ROW_NUMBER and source.index is not None and _all_differ(source.index)
    )


def all_integers(ids: list[str | None]) -> bool:
    """True when every id is an integer of 64 bits and written in its one usual way, so that nothing is lost."""
    return all(id is None or (_INTEGER.fullmatch(id) and -_INT64 <= int(id) < _INT64) for id in ids)


def _id_column(columns: ColumnConfig, split: str) -> str:
    return (split == "test" and columns.test_id) or columns.sample_id


def _written_ids(source: TableSource, name: str, option: str) -> list[str | None]:
    ids = _as_ids(source.columns[name], name)
    shortened = [at for at, id in enumerate(ids) if id is not None and _SHORTENED.fullmatch(id)]
    if shortened:
        raise CatalogError(
            f"{len(shortened)} ids in column {name!r} of {source.path} are written as {ids[shortened[0]]!r} (first: line "
            f"{source.lines[shortened[0]]}): a spreadsheet has shortened them and their last digits are lost. Export the "
            f"file again with that column as text, or number the rows with '{option} {ROW_NUMBER}'"
        )
    return ids


def _as_ids(column: pa.ChunkedArray, name: str) -> list[str | None]:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
        with suppress(pa.ArrowInvalid):  # they are no integers
            column = column.cast(pa.int64())  # integers that a missing id turned into floats
    written = [None if id is None else id.strip() for id in as_text(column, name).to_pylist()]
    ids = [None if id is None or id.lower() in MISSING else id for id in written]
    # "NA" is an id (of Namibia, of sodium) where it stands once, among ids that are no numbers.
    if Counter(written)["NA"] == 1 and not all_integers(ids):
        ids[written.index("NA")] = "NA"
    return ids


def _row_numbers(source: TableSource) -> list[str | None]:
    """1, 2, ... in the order of the file, rows that can't be read counted as well."""
    every = np.sort(
        np.concatenate([source.lines, np.array([line for line, _ in source.malformed], np.int64)])
    )
    return [str(number) for number in (np.searchsorted(every, source.lines) + 1).tolist()]


def _could_be_ids(source: TableSource, name: str) -> bool:
    return _LIKE_ID.fullmatch(name) is not None and _all_differ(source.columns[name])


def _all_differ(column: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(column.type):
        return False
    return column.null_count == 0 and pc.count_distinct(column).as_py() == len(column)
