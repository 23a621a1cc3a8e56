"""The user's tables: CSV (also gzipped), Parquet or a frame in memory -> columns, and the line where each row starts."""

import codecs
import csv
import gzip
import io
import os
import re
import shlex
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any, BinaryIO, TextIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.catalog.ingest.frames import is_frame, plain_column, table_of
from store.catalog.ingest.layout import DELIMITERS, PIPE, find_layout
from store.errors import CatalogError

CHUNK_ROWS = 8192
_MOST_LISTED = 20  # columns in a message
MOST_FIELD_CHARACTERS = 10_000_000  # one field; longer is a quote that never closes
_SNIFFED_BYTES = 65536
_MAY_PART = re.compile(r"\w\s*[,;\t|~:^#]\s*\w")  # between names of a header
_MARKUP = re.compile(rb"<(?:!doctype|\?xml|(?:html|head|body|table|div)[\s>])", re.IGNORECASE)
_JSON = re.compile(rb"\{\s*\"|\[\s*[\[{]")


@dataclass(frozen=True)
class TableSource:
    """One file as read: columns of equal length, strings in CSV, any type in Parquet."""

    path: str
    columns: dict[str, pa.ChunkedArray]  # by name, in file order; columns without a name are left out
    lines: (
        np.ndarray
    )  # (n_rows,) int64: line where the row starts, header = 1; in Parquet the row number from 1
    malformed: tuple[tuple[int, str], ...]  # (line, reason) of rows that are not even rows of this table
    n_unnamed: int
    index: pa.ChunkedArray | None = None  # the first of the columns without a name, where it stands first
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        return len(self.lines)

    def require(self, name: str, option: str, likely: str | None = None) -> pa.ChunkedArray:
        """A column by name.

        Args:
            likely: the column that is meant, where the cells tell it; else it is the nearest by name.

        Raises:
            CatalogError: there is none; names the columns there are, the nearest and the option to set.
        """
        if name in self.columns:
            return self.columns[name]
        near = get_close_matches(name.lower(), [column.lower() for column in self.columns], 1)
        meant = likely or next(
            (column for column in self.columns if near and column.lower() == near[0]), None
        )
        if option.endswith("="):  # of a function
            hint = f"{option}{meant!r}" if meant else f"{option}..."
        else:
            hint = f"{option} {shlex.quote(meant)}" if meant else f"{option} NAME"
        raise CatalogError(
            f"{self.path} has no column {name!r}, its columns are {_listed(self.columns)}: "
            + (self._not_parted(name) or f"name the right one with {hint!r}")
        )

    def _not_parted(self, name: str) -> str | None:
        """What to do where one column has the names of several; None where it does not."""
        only = next(iter(self.columns), "")
        words = only.split()
        may_part = _MAY_PART.search(only) or "  " in only or (len(words) > 2 and name in words)
        if len(self.columns) + self.n_unnamed != 1 or not may_part:
            return None
        if any(mark in only for mark in (*DELIMITERS, PIPE)):
            return "a line 'sep=' above them gives another mark, or quotes are around each whole line: take these away"
        return (
            "they are not parted by a comma, semicolon, tab or pipe: save the file as CSV with one of these"
        )

    def with_fields(self, names: Iterable[str]) -> "TableSource":
        """The same table, with fields of structs that are named as `column.field` as columns of their own."""
        found: dict[str, pa.ChunkedArray] = {}
        for name in names:
            for column, cells in self.columns.items():
                if (
                    name in self.columns
                    or not name.startswith(f"{column}.")
                    or not pa.types.is_struct(cells.type)
                ):
                    continue
                with suppress(KeyError, pa.ArrowException):  # it has no such field
                    field = pc.struct_field(cells, name.removeprefix(f"{column}.").split("."))
                    found[name] = plain_column(field, self.path, name)
        return replace(self, columns={**self.columns, **found}) if found else self


def read_source(table: Any, name: str = "train", *, may_be_empty: bool = False) -> TableSource:
    """Read a whole table; which kind a file is is told by its first bytes, not by its name.

    Args:
        table: a path, or a frame: pandas, Polars, Arrow, or whatever offers the Arrow PyCapsule interface; a table as
            read stays as it is.
        name: of the split, by which a frame is called.
        may_be_empty: whether a header without rows is a table.

    Raises:
        CatalogError: it can't be opened, is empty, holds no rows, is neither CSV nor Parquet, is not UTF-8,
            or its header names a column twice.
    """
    if isinstance(table, TableSource):
        source = table
    elif is_frame(table):
        source = _of_table(table_of(table, f"the {name} frame"), f"the {name} frame")
    elif isinstance(table, (str, os.PathLike)):
        source = _read_file(os.fspath(table))
    else:
        raise CatalogError(
            f"{name} must be a path or a frame (pandas, Polars, Arrow), got {type(table).__name__}: {table!r:.60}"
        )
    if source.n_rows == 0 and not source.malformed and not may_be_empty:
        raise CatalogError(f"{source.path} has a header but no rows: nothing to ingest")
    return source


def _read_file(path: str) -> TableSource:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise CatalogError(
                f"{path} is a pipe or a device, which is read once only: write it to a file, and give that"
            )
        with open(path, "rb") as file:
            head = file.read(_SNIFFED_BYTES)
        if not head.strip():
            raise CatalogError(f"{path} is empty: expected a CSV or Parquet file with a header and rows")
        return _read_parquet(path) if head.startswith(b"PAR1") else _read_csv(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CatalogError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise CatalogError(f"can't read {path}: {error.strerror or error}: check the path") from error


# ---- Parquet and frames --------------------------------------------------------------------------


def _read_parquet(path: str) -> TableSource:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
        raise CatalogError(
            f"{path} is a damaged Parquet file, or one of a kind not known: {error}"
        ) from error
    return _of_table(table, path)


def _of_table(table: pa.Table, path: str) -> TableSource:
    _refuse_duplicates(path, table.column_names)
    named = {
        name: plain_column(table.column(name), path, name) for name in table.column_names if _is_named(name)
    }
    lines = np.arange(1, table.num_rows + 1)
    unnamed = [name for name in table.column_names if not _is_named(name)]
    index = table.column(unnamed[0]) if len(set(unnamed)) == 1 else None
    return TableSource(path, named, lines, (), len(unnamed), index)


# ---- CSV -----------------------------------------------------------------------------------------


def _read_csv(path: str) -> TableSource:
    with _open_binary(path) as file:
        head = file.read(_SNIFFED_BYTES)
    _refuse_other_formats(path, head)
    newline = (
        "\n" if b"\n" in head else ""
    )  # counts lines as editors do; lone CRs end lines only where nothing else does
    lines: list[int] = []
    malformed: list[tuple[int, str]] = []
    chunks: list[list[pa.Array]] = []
    with _open_binary(path) as file, _field_limit():
        text = io.TextIOWrapper(cast(BinaryIO, file), encoding="utf-8-sig", newline=newline)
        layout = find_layout(head)
        try:
            for _ in range(layout.n_skipped):
                text.readline()
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        rows = _numbered(path, text, layout.delimiter, layout.n_skipped)
        _, header = next(rows, (0, []))
        header = [name.strip() for name in header]
        _refuse_duplicates(path, header)
        while chunk := list(islice(rows, CHUNK_ROWS)):
            good = [(line, row) for line, row in chunk if len(row) == len(header)]
            if len(good) < len(chunk):
                malformed.extend(
                    (line, f"wrong number of fields: {len(row)} where the header has {len(header)}")
                    for line, row in chunk
                    if len(row) != len(header)
                )
            if good:
                lines.extend(line for line, _ in good)
                cells = zip(*(row for _, row in good), strict=True)
                chunks.append([pa.array(column, pa.string()) for column in cells])
    columns = {
        name: pa.chunked_array([chunk[i] for chunk in chunks], pa.string())
        for i, name in enumerate(header)
        if _is_named(name)
    }
    n_unnamed = len(header) - len(columns)
    has_index = bool(header) and not _is_named(header[0])
    index = pa.chunked_array([chunk[0] for chunk in chunks], pa.string()) if has_index else None
    notes = (f"the first {layout.n_skipped} lines of {path} are no part of the table",)
    return TableSource(
        path,
        columns,
        np.array(lines, np.int64),
        tuple(malformed),
        n_unnamed,
        index,
        notes if layout.is_preamble else (),
    )


def _numbered(path: str, text: TextIO, delimiter: str, n_before: int) -> Iterator[tuple[int, list[str]]]:
    """(line where it starts, fields) of each row that is not blank."""
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        start = n_before + reader.line_num + 1
        try:
            row = next(reader, None)
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except csv.Error as error:
            raise CatalogError(
                f"{path} is not CSV: in the row that starts on line {start}: {error}. A field with quotes is written "
                'with quotes around it and each inner one doubled: "15"" screen"'
            ) from error
        if row is None:
            return
        if row:
            yield start, row


@contextmanager
def _open_binary(path: str) -> Iterator[BinaryIO]:
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            file.seek(0)
            with gzip.open(file, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
            return
        file.seek(0)
        yield file


@contextmanager
def _field_limit() -> Iterator[None]:
    before = csv.field_size_limit(MOST_FIELD_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _refuse_other_formats(path: str, head: bytes) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CatalogError(
            f"{path} is UTF-16 (byte 0 is its mark): expected UTF-8, convert it with 'iconv -f UTF-16 -t UTF-8'"
        )
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise CatalogError(f"{path} is a spreadsheet or archive, not CSV: export it as CSV in UTF-8")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if _JSON.match(start):
        lines = ", lines=True" if start.startswith(b"{") else ""
        raise CatalogError(
            f"{path} is JSON, not CSV: write it as CSV or Parquet, such as with "
            f"pandas.read_json({path!r}{lines}).to_parquet('catalogue.parquet')"
        )
    if _MARKUP.match(start):
        raise CatalogError(f"{path} is HTML or XML, not CSV: export its table as CSV in UTF-8")
    zero = head.split(b"\n", 1)[0].find(b"\0")
    if zero >= 0:
        raise CatalogError(
            f"{path} is not CSV in UTF-8: byte {zero} (line 1) is zero, as in UTF-16 or a binary file; save it as UTF-8"
        )


def _not_utf8(path: str) -> CatalogError:
    """Find the first byte that is not UTF-8; only called once something was found to be wrong."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    with _open_binary(path) as file:
        while block := file.read(1 << 20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                at = offset - pending + error.start
                line += block.count(b"\n", 0, max(0, error.start - pending))
                byte = error.object[error.start]
                return CatalogError(
                    f"{path} is not UTF-8: byte {at} (line {line}) is 0x{byte:02x}. If it is Latin-1 or Windows-1252, "
                    "convert it with 'iconv -f WINDOWS-1252 -t UTF-8'"
                )
            line += block.count(b"\n")
            offset += len(block)
    return CatalogError(f"{path} is not UTF-8: its last character is cut off at byte {offset} (line {line})")


def _listed(names: Iterable[str]) -> str:
    """Names of columns for a message."""
    quoted = [repr(name) for name in names]
    more = len(quoted) - _MOST_LISTED
    return ", ".join(quoted[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _refuse_duplicates(path: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen and _is_named(name):
            raise CatalogError(f"{path} has two columns named {name!r}: rename or remove one")
        seen.add(name)


def _is_named(name: str) -> bool:
    """False for index columns that tables are saved with."""
    return bool(name) and not name.startswith(("Unnamed: ", "__index_level_"))
