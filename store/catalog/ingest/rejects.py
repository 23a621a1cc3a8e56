"""All rejected rows of a file: the share that is allowed, and how they differ from the rows that are kept."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import is_missing, is_number
from store.catalog.ingest.rows import ValidatedRows, count_reasons
from store.catalog.parse.written import CORE
from store.config import ROW_NUMBER, ColumnConfig
from store.errors import CatalogError

LEAST_ROWS = 3  # rejected rows; fewer are not compared
_FAR = 0.8  # share of pairs (rejected, kept) in one order from which on they differ
_MOST, _LESS = 0.8, 0.4  # share of a category in the rejected and in the kept rows
_MOST_LEVELS = 50  # of a column that is compared by category
_DIGITS = re.compile(CORE)
_MARKS = re.compile(r"[^0-9]")


def check_rejected(rows: ValidatedRows, columns: ColumnConfig, differ: str | None) -> None:
    """Refuse a file of which too many rows are rejected.

    Raises:
        CatalogError: more than the share allowed.
    """
    n_rejected = len(rows.rejected)
    n_rows = n_rejected + len(rows.index)
    share = n_rejected / n_rows
    if share <= columns.max_rejected:
        return
    counts = count_reasons(rows.rejected)
    reasons = ", ".join(f"{n} with {reason}" for reason, n in counts.items())
    line, _, reason = rows.rejected[0]
    help = ""
    if next(iter(counts)) == "duplicate id":
        help = f"name another column of ids, or number the rows with '--id-column {ROW_NUMBER}'; "
    enough = min(1.0, (int(share * 1000) + 1) / 1000)
    raise CatalogError(
        f"{n_rejected} of {n_rows} rows of {rows.source.path} can't be used, more than --max-rejected "
        f"{columns.max_rejected:g} allows: {reasons} (first: line {line}, {reason}){f'; {differ}' if differ else ''}: "
        f"{help}correct the rows or take them out, or pass --max-rejected {enough:g} to go on without them"
    )


def how_rejected_differ(rows: ValidatedRows, columns: ColumnConfig) -> str | None:
    """How rejected rows differ from the rows that are kept, in words; None where there are too few."""
    source = rows.source
    is_kept = np.zeros(source.n_rows, dtype=bool)
    is_kept[rows.index] = True
    if source.n_rows - len(rows.index) < LEAST_ROWS:
        return None
    found = [_by_line(source.lines, is_kept)]
    for name, column in source.columns.items():
        if name == columns.price:
            found.append(_by_number(f"written price {name!r}", _written_sizes(column), is_kept))
        elif name == columns.text:
            found.append(_by_number("length of the text", _lengths(column), is_kept))
        elif name not in (columns.sample_id, columns.test_id, columns.image_link):
            found.append(_by_column(name, column, is_kept))
    said = [one for one in found if one is not None]
    return (
        f"rejected rows differ from the others: {'; '.join(said)}"
        if said
        else "rejected rows look like the others"
    )


def _by_line(lines: np.ndarray, is_kept: np.ndarray) -> str | None:
    """Rejected rows that stand close together."""
    rejected = np.flatnonzero(~is_kept)
    first, last = int(rejected[0]), int(rejected[-1])
    if last - first + 1 > max(2 * len(rejected), 0.2 * len(lines)) or len(rejected) == len(lines):
        return None
    return f"they stand in lines {lines[first]} to {lines[last]}"


def _by_column(name: str, column: pa.ChunkedArray, is_kept: np.ndarray) -> str | None:
    if is_number(column.type):
        values = column.cast(pa.float64(), safe=False).to_numpy()
        return _by_number(repr(name), values, is_kept)
    if not pa.types.is_string(column.type) or pc.count_distinct(column).as_py() > _MOST_LEVELS:
        return None
    cells = ["" if is_missing(cell) else str(cell).strip() for cell in column.to_pylist()]
    rejected = Counter(cell for cell, kept in zip(cells, is_kept, strict=True) if not kept)
    kept = Counter(cell for cell, kept in zip(cells, is_kept, strict=True) if kept)
    level, n = rejected.most_common(1)[0]
    share, usual = n / sum(rejected.values()), kept[level] / max(sum(kept.values()), 1)
    if share < _MOST or usual > _LESS:
        return None
    return f"{name!r} is {level[:60]!r} in {share:.0%} of them and in {usual:.0%} of the others"


def _by_number(what: str, values: np.ndarray, is_kept: np.ndarray) -> str | None:
    known = np.isfinite(values)
    rejected, kept = values[known & ~is_kept], np.sort(values[known & is_kept])
    if len(rejected) < LEAST_ROWS or not len(kept):
        return None
    if rejected.min() > kept[-1]:
        return f"{what} is {rejected.min():g} or more in all of them and at most {kept[-1]:g} in the others"
    if rejected.max() < kept[0]:
        return f"{what} is {rejected.max():g} or less in all of them and at least {kept[0]:g} in the others"
    below = np.searchsorted(kept, rejected, "left") + np.searchsorted(kept, rejected, "right")
    order = float(below.mean() / (2 * len(kept)))
    if max(order, 1 - order) < _FAR:
        return None
    return f"the median of {what} is {np.median(rejected):g} in them and {np.median(kept):g} in the others"


def _written_sizes(column: pa.ChunkedArray) -> np.ndarray:
    """Roughly what each price is, however it is written: the whole part of its first number; NaN where it has none."""
    if is_number(column.type):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
    return np.array([_size(cell) for cell in column.to_pylist()])


def _size(cell: object) -> float:
    match = _DIGITS.search(str(cell)[:100]) if cell is not None else None
    if match is None:
        return float("nan")
    parts = _MARKS.split(match[0])
    whole = parts[:-1] if len(parts) > 1 and len(parts[-1]) != 3 else parts
    return float("".join(whole)[:15] or "0")


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_string(column.type):
        return np.full(len(column), np.nan)
    return np.asarray(pc.utf8_length(column.fill_null("")).cast(pa.float64()).to_numpy())
