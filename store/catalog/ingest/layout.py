"""How a CSV file is laid out: what parts its columns, and where its header stands."""

import csv
import re
from collections import Counter
from dataclasses import dataclass

from store.catalog.parse.written import PLAIN

DELIMITERS = ",;\t"
PIPE = "|"
_DIRECTIVE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # what a spreadsheet writes before the header
_QUOTED = re.compile(r'"[^"]*"')
_LOOKED_AT = 60  # rows
_MOST_BEFORE = 20  # rows before the header
_LEAST_SHARE = 0.7  # of the rows below a header that have as many fields
# Commas part prose in two as well: a table of two columns has prices or ids in nearly all rows of one of them.
_SHARE_OF_VALUES = 0.9
_VALUE = re.compile(r"(\S{1,3} ?)?\S*\d\S*( ?\S{1,3})?")


@dataclass(frozen=True)
class Layout:
    """Where the table of a CSV file begins."""

    delimiter: str
    n_skipped: int = 0  # lines before the header
    is_preamble: bool = False  # those lines hold something


def find_layout(head: bytes) -> Layout:
    """The layout of a file, from its first bytes.

    The first line is the header, unless it does not have as many fields as the rows and one below it does.
    """
    text = head.decode("utf-8-sig", "replace")
    lines = text.split("\n" if "\n" in text else "\r")
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    directive = _DIRECTIVE.fullmatch(lines[first])
    if directive:
        return Layout(directive[1], first + 1)
    delimiter = _delimiter(_record(lines, first))
    rows = _rows(lines, delimiter)
    if rows and len(rows[0][1]) > 1 and _most_frequent_width(rows) == len(rows[0][1]):
        return Layout(delimiter)
    found = [layout for d in (*DELIMITERS, PIPE) if (layout := _below_other_lines(_rows(lines, d), d))]
    return found[0] if found else Layout(delimiter)


def _delimiter(header: str) -> str:
    """What parts the names of the header: commas, the semicolons and tabs of spreadsheets, else pipes."""
    unquoted = _QUOTED.sub("", header)
    best = max(DELIMITERS, key=unquoted.count)
    return best if best in unquoted or PIPE not in unquoted else PIPE


def _record(lines: list[str], at: int) -> str:
    """The line at a place, with those after it while a quote stands open."""
    record = lines[at]
    for line in lines[at + 1 : at + _MOST_BEFORE]:
        if record.count('"') % 2 == 0:
            break
        record += "\n" + line
    return record


def _rows(lines: list[str], delimiter: str) -> list[tuple[int, list[str]]]:
    """(lines before it, fields) of the first rows; the last line may be cut off and is left out."""
    reader = csv.reader((line + "\n" for line in lines[:-1]), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []
    while len(rows) < _LOOKED_AT:
        before = reader.line_num
        try:
            row = next(reader, None)
        except csv.Error:
            break
        if row is None:
            break
        if any(cell.strip() for cell in row):
            rows.append((before, row))
    return rows


def _below_other_lines(rows: list[tuple[int, list[str]]], delimiter: str) -> Layout | None:
    """The layout of a table that begins below lines which are no part of it; None where there is none."""
    width = _most_frequent_width(rows)
    if width < 2:
        return None
    at = next(i for i, (_, row) in enumerate(rows) if len(row) == width)
    if sum(len(row) == width for _, row in rows[at:]) < _LEAST_SHARE * len(rows[at:]):
        return None
    before, names = rows[at]
    if width == 2 and not _has_values(names, [row for _, row in rows[at + 1 :] if len(row) == width]):
        return None
    is_header = all(name.strip() and not PLAIN.fullmatch(name.strip()) for name in names)
    if not 0 < at <= _MOST_BEFORE or not is_header or len(set(names)) < width:
        return None
    return Layout(delimiter, before, is_preamble=True)


def _has_values(names: list[str], rows: list[list[str]]) -> bool:
    """Whether one column holds numbers or ids below its name, which is neither."""
    return any(
        not _VALUE.fullmatch(name.strip())
        and sum(bool(_VALUE.fullmatch(cell.strip())) for cell in column)
        >= max(1, _SHARE_OF_VALUES * len(rows))
        for name, column in zip(names, zip(*rows, strict=True), strict=bool(rows))
    )


def _most_frequent_width(rows: list[tuple[int, list[str]]]) -> int:
    """Fields that most rows have; 0 where there are no rows."""
    widths = Counter(len(row) for _, row in rows)
    return widths.most_common(1)[0][0] if widths else 0
