"""How one further column is read: as a number, a measure, true or false, a date, a category or text."""

import dataclasses
import re
import shlex
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import as_text, holds_lists, is_missing, is_number
from store.catalog.ingest.inline import looks_like_images
from store.catalog.parse.dates import (
    FIRST_FAR_DAY,
    MISSING_DAY,
    date_numbers,
    day_of,
    find_dates,
)
from store.catalog.parse.measures import MeasureReading, find_measures
from store.catalog.parse.words import share_words
from store.catalog.parse.written import Convention, Mark, may_be_thousands, parse_number
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

Kind = Literal["numeric", "measure", "boolean", "date", "categorical", "text"]
MOST_STRAY = 0.02  # share of a column's values that may be no numbers, or no dates, and are then missing
MOST_STRAY_NAMED = 0.5  # the same of a column that the user says holds numbers
_CODE = re.compile(r"(?=\S*\d)[\w.:-]{6,}")  # one word with a digit
_FEW_ROWS = 1000  # from here on, categories that fill over half of the rows are free text as well
# From so many rows on, values that differ in nearly all of them are free text.
_LEAST_ROWS, _NEARLY_ALL = 50, 0.9


@dataclass(frozen=True)
class ColumnReading:
    """How one column is read."""

    kind: Kind
    measure: MeasureReading | None = None
    dates: str = ""  # the kind of dates, see `find_dates`; "": the column holds dates already
    last: str = ""  # the last day of the training file, which ages are counted from; "": there is none

    @property
    def last_day(self) -> np.datetime64:
        """`last` as a day."""
        return np.datetime64(self.last, "D") if self.last else MISSING_DAY

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ColumnReading":
        """What `to_json` gave."""
        measure = value["measure"]
        if measure is not None:
            convention = Convention(**measure["convention"])
            measure = MeasureReading(measure["unit"], convention, measure["sizes"], measure.get("currency"))
        return cls(value["kind"], measure, value["dates"], value["last"])


def read_column(
    cells: pa.ChunkedArray, reading: ColumnReading, name: str
) -> tuple[dict[str, pa.Array], list[tuple[int, str]]]:
    """A column of other rows, read as that of the training file was.

    Returns:
        The columns that it becomes, and (position, cell) of each value that is not what it should be.
    """
    return read_values(cells, reading, name, reading.last_day)


def read_numbers(cells: pa.ChunkedArray, name: str, told: Mark | None) -> np.ndarray:
    """A column that must hold numbers, float64 of shape (n_rows,), NaN where a cell is none; see `decide_extras`."""
    reading = reading_of(cells, name, "numeric", told)
    if isinstance(reading, str):
        return np.full(len(cells), np.nan)
    values: np.ndarray = _numbers(cells, reading, name)[0].to_numpy(zero_copy_only=False)
    return values


def reading_of(
    cells: pa.ChunkedArray, name: str, kind: Kind | None, told: Mark | None
) -> ColumnReading | str:
    """How a column is read, or why it is not; text is no column of its own, but joins the text."""
    by_type = _by_type(cells)
    if kind == "categorical":
        return ColumnReading(kind)
    if by_type is not None and kind is None:
        return by_type
    if is_number(cells.type):
        return ColumnReading("numeric")
    present = [cell for cell in as_text(cells, name).to_pylist() if not is_missing(cell)]
    if not present:
        return ColumnReading("numeric") if kind == "numeric" else "it is empty"
    is_plain = all(parse_number(cell) is not None for cell in present)
    measures = find_measures(present, told) if not is_plain or may_be_thousands(present) else None
    if is_plain:
        parts_thousands = measures is not None and measures[0].convention.decimal == ","
        return (
            ColumnReading("measure", measures[0])
            if measures and parts_thousands
            else ColumnReading("numeric")
        )
    if kind == "numeric":
        return ColumnReading("measure", measures[0]) if measures else ColumnReading("numeric")
    return _by_values(present, measures, name)


def _by_type(cells: pa.ChunkedArray) -> ColumnReading | str | None:
    """What the type of a column says of it; None where its values must say."""
    kind = cells.type
    if holds_lists(kind):
        return f"it holds {kind} (name it with --text-column to join its values to the text)"
    if pa.types.is_duration(kind):
        return f"it holds {kind} (name it with --numeric to keep it)"
    unread = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if any(one(kind) for one in unread):
        return f"it holds {kind} (name it with --categorical to keep it, where it is text)"
    if pa.types.is_nested(kind) or pa.types.is_interval(kind):
        return f"it holds {kind}"
    if cells.null_count == len(cells):
        return "it is empty"
    if pa.types.is_boolean(kind):
        return ColumnReading("boolean")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return ColumnReading("date")
    return ColumnReading("numeric") if is_number(kind) else None


def _by_values(
    present: list[str], measures: tuple[MeasureReading, float] | None, name: str
) -> ColumnReading | str:
    n_truths = sum(cell.strip().lower() in ("true", "false") for cell in present)
    if n_truths >= (1 - MOST_STRAY) * len(present):
        return ColumnReading("boolean")
    dates = find_dates(present)
    if dates is not None and dates[1] >= 1 - MOST_STRAY:
        return ColumnReading("date", dates=dates[0])
    if measures is not None and measures[1] >= 1 - MOST_STRAY:
        return ColumnReading("measure", measures[0])
    distinct, n = len(set(present)), len(present)
    is_free = (
        distinct == n
        or (n >= _FEW_ROWS and distinct > n / 2)
        or (n >= _LEAST_ROWS and distinct > _NEARLY_ALL * n)
    )
    if is_free and looks_like_images(name, present):
        option = f"--image-column {shlex.quote(name)}"
        return f"it looks like images (name it with {option!r} to have them)"
    if distinct == n and n >= _LEAST_ROWS and all(_CODE.fullmatch(cell.strip()) for cell in present):
        return (
            f"{n} different codes in {n} rows are an id or a hash, which says nothing of other rows "
            "(name it with --categorical to keep it)"
        )
    are_other = any(found is not None and found[1] > 0.5 for found in (dates, measures))
    if is_free and not are_other and share_words(present):
        return ColumnReading("text")
    if n == 1:
        return "one row alone has a value (name it with --categorical to keep it)"
    if is_free:
        return (
            f"{distinct} distinct values in {n} rows are free text, not categories "
            "(name it with --text-column to join it to the text, or with --categorical to keep it)"
        )
    return ColumnReading("categorical")


def read_values(
    cells: pa.ChunkedArray, reading: ColumnReading, name: str, last: np.datetime64
) -> tuple[dict[str, pa.Array], list[tuple[int, str]]]:
    """The columns that one becomes, and (position, cell) of each value that is not what it should be."""
    if reading.kind == "categorical":
        return {f"{CATEGORICAL_PREFIX}{name}": _categories(cells, name)}, []
    if reading.kind == "date":
        days, stray = _days(cells, reading, name)
        numbers = date_numbers(days, last)
        return {
            f"{NUMERIC_PREFIX}{name} ({part})": pa.array(values, pa.float64(), from_pandas=True)
            for part, values in numbers.items()
        }, stray
    values, stray = _numbers(cells, reading, name)
    return {f"{NUMERIC_PREFIX}{name}": values}, stray


def _numbers(
    cells: pa.ChunkedArray, reading: ColumnReading, name: str
) -> tuple[pa.Array, list[tuple[int, str]]]:
    """Numbers, null where missing or not finite, and (position, cell) of each that is none."""
    if is_number(cells.type) or pa.types.is_boolean(cells.type):
        numbers = cells.cast(pa.float64(), safe=False).combine_chunks()
        return pc.if_else(pc.is_finite(numbers), numbers, None), []
    values: list[float | None] = []
    stray: list[tuple[int, str]] = []
    for position, cell in enumerate(as_text(cells, name).to_pylist()):
        number = None if cell is None else _number(cell, reading)
        if number is None and cell is not None and not is_missing(cell):
            stray.append((position, cell))
        values.append(number if number is not None and np.isfinite(number) else None)
    return pa.array(values, pa.float64()), stray


def _number(cell: str, reading: ColumnReading) -> float | None:
    if reading.kind == "boolean":
        return {"true": 1.0, "false": 0.0}.get(cell.strip().lower())
    return parse_number(cell) if reading.measure is None else reading.measure.value_of(cell)


def _days(
    cells: pa.ChunkedArray, reading: ColumnReading, name: str
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    if pa.types.is_date(cells.type) or pa.types.is_timestamp(cells.type):
        if pa.types.is_timestamp(cells.type) and not knows_zone(cells.type):
            cells = cells.cast(pa.timestamp(cells.type.unit))
        days = np.asarray(cells.cast(pa.date32(), safe=False).to_numpy()).astype("datetime64[D]")
        written = [
            str(day) if is_far else None for day, is_far in zip(days, days >= FIRST_FAR_DAY, strict=True)
        ]
    else:
        written = as_text(cells, name).to_pylist()
        kind = reading.dates or "year first"
        known = {cell: day_of(cell, kind) for cell in set(written) if cell is not None}
        days = np.array([known.get(cell, MISSING_DAY) for cell in written], "datetime64[D]")
    days = np.where(days >= FIRST_FAR_DAY, MISSING_DAY, days)
    stray = [
        (at, cell)
        for at, cell in enumerate(written)
        if cell is not None and np.isnat(days[at]) and not is_missing(cell)
    ]
    return days, stray


def knows_zone(kind: pa.TimestampType) -> bool:
    try:
        pa.array([0], kind).cast(pa.date32(), safe=False)
    except pa.ArrowInvalid:
        return False
    return True


def last_day_of(cells: pa.ChunkedArray, reading: ColumnReading, name: str) -> np.datetime64:
    if reading.kind != "date":
        return MISSING_DAY
    days, _ = _days(cells, reading, name)
    return np.nanmax(days) if not np.isnat(days).all() else MISSING_DAY  # type: ignore[no-any-return]


def _categories(cells: pa.ChunkedArray, name: str) -> pa.Array:
    return pa.array(
        [None if is_missing(cell) else cell.strip() for cell in as_text(cells, name).to_pylist()],
        pa.string(),
    )
