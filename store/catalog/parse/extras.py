"""Further columns of the user's file: numbers, dates, categories, words, and what can't be used.

How a column is read is decided on train and applied to test.
"""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import as_text, holds_lists, is_missing, is_number
from store.catalog.ingest.inline import looks_like_images
from store.catalog.ingest.rows import ValidatedRows
from store.catalog.parse.dates import (
    FIRST_FAR_DAY,
    MISSING_DAY,
    date_numbers,
    day_of,
    find_dates,
    tells_order,
)
from store.catalog.parse.measures import MeasureReading, find_measures, is_bound, is_measure
from store.catalog.parse.written import Convention, Mark, may_be_thousands, parse_number
from store.errors import CatalogError
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

Kind = Literal["numeric", "measure", "boolean", "date", "categorical"]
MOST_STRAY = 0.02  # share of a column's values that may be no numbers, or no dates, and are then missing
_MOST_STRAY_NAMED = 0.5  # the same of a column that the user says holds numbers
_CODE = re.compile(r"(?=\S*\d)\S{6,}")  # one word with a digit
_FEW_ROWS = 1000  # from here on, categories that fill over half of the rows are free text as well
_LEAST_ROWS, _NEARLY_ALL = (
    50,
    0.9,
)  # from so many rows on, values that differ in nearly all of them are free text


@dataclass(frozen=True)
class Extras:
    """Further columns of both splits by name with prefix, and what the user should know of the others."""

    train: dict[str, pa.Array]
    test: dict[str, pa.Array]
    notes: tuple[str, ...]
    readings: "dict[str, ColumnReading]"  # of each column that is read


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
    return _read(cells, reading, name, reading.last_day)


def read_numbers(cells: pa.ChunkedArray, name: str, told: Mark | None) -> np.ndarray:
    """A column that must hold numbers, float64 of shape (n_rows,), NaN where a cell is none; see `decide_extras`."""
    reading = _reading(cells, name, "numeric", told)
    if isinstance(reading, str):
        return np.full(len(cells), np.nan)
    values: np.ndarray = _numbers(cells, reading, name)[0].to_numpy(zero_copy_only=False)
    return values


def word_columns(columns: dict[str, pa.ChunkedArray], used: set[str]) -> list[str]:
    """Names of the columns that hold lists of strings: their words are written to the text."""
    return [name for name, column in columns.items() if name not in used and _is_words(column.type)]


def _is_words(kind: pa.DataType) -> bool:
    if not holds_lists(kind) or pa.types.is_map(kind):
        return False
    value = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    is_kind = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(one(value) for one in is_kind)


def decide_extras(
    train: ValidatedRows,
    test: ValidatedRows | None,
    used: set[str],
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    told: Mark | None = None,
) -> Extras:
    """Further columns, typed.

    Args:
        used: columns that are something else already (id, text, image link, price).
        numeric, categorical: columns whose type the user says; the others go by their values.
        told: the mark before decimals in the prices of the training file; None: they do not tell.

    Raises:
        CatalogError: a column that the user names is missing, named twice, used already or does not hold numbers.
    """
    of_train = _columns(train, used)
    of_test = None if test is None else _columns(test, used)
    named = _named(train, test, used, of_train, of_test, numeric, categorical)
    notes: list[str] = []
    readings: dict[str, ColumnReading] = {}
    columns: dict[str, dict[str, pa.Array]] = {"train": {}, "test": {}}
    for name, cells in of_train.items():
        if of_test is not None and name not in of_test:
            notes.append(f"column {name!r} is in {train.source.path} only: left out")
            continue
        reading = _reading(cells, name, named.get(name), told)
        if isinstance(reading, str):
            notes.append(f"column {name!r} is left out: {reading}{_nearly_numbers(cells, name)}")
            continue
        if reading.kind == "categorical" and name not in named:
            hint = _nearly_numbers(cells, name) or _lists(cells, name)
            notes.extend([f"column {name!r} is read as categories{hint}"] if hint else [])
        last = _last_day(cells, reading, name)
        readings[name] = replace(reading, last="" if np.isnat(last) else str(last))
        parts, stray = _read(cells, reading, name, last)
        if (
            stray
            and named.get(name) == "numeric"
            and len(stray) >= _MOST_STRAY_NAMED * _n_present(cells, name)
        ):
            line = train.source.lines[train.index[stray[0][0]]]
            raise CatalogError(
                f"--numeric {name}: line {line} of {train.source.path} holds {stray[0][1]!r}, which is no "
                f"number: clean it, or take the column as '--categorical {name}'"
            )
        if reading.kind == "date":  # a part that is the same everywhere says nothing
            parts = {key: values for key, values in parts.items() if pc.count_distinct(values).as_py() > 1}
        if taken := parts.keys() & columns["train"].keys():
            raise CatalogError(
                f"column {name!r} of {train.source.path} becomes {min(taken).partition(':')[2]!r}, and another column is "
                "called so: rename one of the two"
            )
        columns["train"].update(parts)
        notes.extend(_said(reading, name, stray, "train"))
        notes.extend(_doubts(cells, reading, name))
        if of_test is None:
            continue
        tested, stray = _read(of_test[name], reading, name, last)
        columns["test"].update({key: tested[key] for key in parts})
        if stray and reading.kind == "numeric":
            notes.append(
                f"column {name!r} holds {len(stray)} values in test that are no numbers (first: "
                f"{stray[0][1]!r}): taken as missing"
            )
        elif stray:
            notes.extend(_said(reading, name, stray, "test")[-1:])
    if test is not None and of_test is not None:
        only = [name for name in of_test if name not in of_train]
        notes.extend(f"column {name!r} is in {test.source.path} only: left out" for name in only)
    return Extras(columns["train"], columns["test"], tuple(notes), readings)


def _columns(rows: ValidatedRows, used: set[str]) -> dict[str, pa.ChunkedArray]:
    """Further columns of usable rows; the fields of a struct are columns of their own."""
    found: dict[str, pa.ChunkedArray] = {}
    for name, column in rows.source.columns.items():
        if name not in used:
            for part, cells in flattened(name, rows.take(column)):
                if part in used:
                    continue
                if part in found:
                    raise CatalogError(
                        f"{rows.source.path} has a column {part!r} and a struct with that field: rename one of the two"
                    )
                found[part] = cells
    return found


def flattened(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """A column under its name, or each field of a struct as `name.field`."""
    if not pa.types.is_struct(column.type):
        yield name, column
        return
    for field, part in zip(column.type, column.flatten(), strict=True):
        yield from flattened(f"{name}.{field.name}", part)


def _named(
    train: ValidatedRows,
    test: ValidatedRows | None,
    used: set[str],
    of_train: dict[str, pa.ChunkedArray],
    of_test: dict[str, pa.ChunkedArray] | None,
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
) -> dict[str, Kind]:
    named: dict[str, Kind] = dict.fromkeys(numeric, "numeric")
    named.update((name, "categorical") for name in categorical)
    if both := set(numeric) & set(categorical):
        raise CatalogError(f"column {min(both)!r} is named as --numeric and --categorical: choose one")
    for name, kind in named.items():
        for rows, columns in ((train, of_train), (test, of_test)):
            if rows is not None and columns is not None and name not in columns:
                rows.source.require(name, f"--{kind}")
        if name in used:
            raise CatalogError(
                f"column {name!r} is the id, text, image or price already: take it out of --{kind}"
            )
    return named


# ---- how a column is read ------------------------------------------------------------------------


def _reading(cells: pa.ChunkedArray, name: str, kind: Kind | None, told: Mark | None) -> ColumnReading | str:
    """How a column is read, or why it is not."""
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
    if is_free:
        return (
            f"{distinct} distinct values in {n} rows are free text, not categories "
            "(name it with --text-column to join it to the text, or with --categorical to keep it)"
        )
    return ColumnReading("categorical")


# ---- reading it ----------------------------------------------------------------------------------


def _read(
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
        if pa.types.is_timestamp(cells.type) and not _knows_zone(cells.type):
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


def _knows_zone(kind: pa.TimestampType) -> bool:
    try:
        pa.array([0], kind).cast(pa.date32(), safe=False)
    except pa.ArrowInvalid:
        return False
    return True


def _last_day(cells: pa.ChunkedArray, reading: ColumnReading, name: str) -> np.datetime64:
    if reading.kind != "date":
        return MISSING_DAY
    days, _ = _days(cells, reading, name)
    return np.nanmax(days) if not np.isnat(days).all() else MISSING_DAY  # type: ignore[no-any-return]


def _categories(cells: pa.ChunkedArray, name: str) -> pa.Array:
    return pa.array(
        [None if is_missing(cell) else cell.strip() for cell in as_text(cells, name).to_pylist()],
        pa.string(),
    )


# ---- what the user should know -------------------------------------------------------------------


def _nearly_numbers(cells: pa.ChunkedArray, name: str) -> str:
    """That more than half of a column's cells are numbers, and how to have it read so; else nothing."""
    if not pa.types.is_string(cells.type):
        return ""
    present = [cell for cell in cells.to_pylist() if not is_missing(cell)]
    measures = find_measures(present) if present else None
    if measures is None or measures[1] <= 1 - _MOST_STRAY_NAMED:
        return ""
    option = f"--numeric {shlex.quote(name)}"
    return f"; {measures[1]:.1%} of its values are numbers: {option!r} takes the others as missing"


def _lists(cells: pa.ChunkedArray, name: str) -> str:
    """That all cells of a column are written as lists, and how to have their words; else nothing."""
    present = [cell.strip() for cell in as_text(cells, name).to_pylist() if not is_missing(cell)]
    if not all(cell[0] == "[" and cell[-1] == "]" for cell in present):
        return ""
    return f"; its cells are lists: {f'--text-column {shlex.quote(name)}'!r} joins their words to the text"


def _doubts(cells: pa.ChunkedArray, reading: ColumnReading, name: str) -> Iterator[str]:
    """What was taken for granted about the cells of a training column."""
    if reading.kind == "date" and pa.types.is_timestamp(cells.type) and not _knows_zone(cells.type):
        yield f"column {name!r} has times of a zone that is not known here, {cells.type.tz!r}: its days are those of UTC"
    if not pa.types.is_string(cells.type):
        return
    counts = {one["values"]: one["counts"] for one in cells.value_counts().to_pylist()}
    counts = {cell: n for cell, n in counts.items() if cell and cell.strip()}
    if (
        reading.kind == "date"
        and reading.dates in ("day first", "month first")
        and not tells_order(list(counts))
    ):
        yield (
            f"column {name!r}: no date tells for sure whether the day or the month stands first, {reading.dates} is taken: "
            "write the dates year first (2024-12-31) if that is wrong"
        )
    if reading.kind not in ("numeric", "measure"):
        return
    option = f"--categorical {shlex.quote(name)}"
    for is_one, what, then in (
        (is_missing, "cells in train that say there is no value", "taken as missing"),
        (is_bound, "numbers in train that are not exact", "taken as the number"),
        (_has_zeros, "numbers in train with zeros before them", f"where they are codes, pass {option!r}"),
    ):
        if found := [cell for cell in counts if is_one(cell)]:
            n = sum(counts[cell] for cell in found)
            yield f"column {name!r} holds {n} {what} (first: {found[0]!r:.60}): {then}"


def _has_zeros(cell: str) -> bool:
    written = cell.strip()
    return written.startswith("0") and written.isdigit() and len(written) > 1


def _n_present(cells: pa.ChunkedArray, name: str) -> int:
    return sum(not is_missing(cell) for cell in as_text(cells, name).to_pylist())


def _said(reading: ColumnReading, name: str, stray: list[tuple[int, str]], split: str) -> list[str]:
    said = []
    if reading.measure is not None:
        unit = f" in {reading.measure.unit!r}" if reading.measure.unit else ""
        said.append(
            f"column {name!r} is read as numbers{unit}, written as {reading.measure.convention.example}"
            if not reading.measure.convention.is_sure or reading.measure.convention.decimal == ","
            else f"column {name!r} is read as numbers{unit}"
        )
    elif reading.kind == "date":
        how = f", {reading.dates}" if reading.dates else ""
        said.append(f"column {name!r} is read as dates{how}: year, month, weekday and age in days")
    if stray:
        what = "dates" if reading.kind == "date" else "numbers"
        if reading.measure is not None and is_measure(stray[0][1]):
            what += f" in {reading.measure.unit or reading.measure.currency or 'that unit'!r}"
        said.append(
            f"column {name!r} holds {len(stray)} values in {split} that are no {what} (first: {stray[0][1]!r:.60}): "
            "taken as missing"
        )
    return said
