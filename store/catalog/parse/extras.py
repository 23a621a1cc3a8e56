"""Further columns of the user's file: which are read, and what is said of them. How one is read is decided on train."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import as_text, holds_lists, is_missing
from store.catalog.ingest.rows import ValidatedRows
from store.catalog.parse.column import (
    MOST_STRAY_NAMED,
    ColumnReading,
    Kind,
    knows_zone,
    last_day_of,
    read_values,
    reading_of,
)
from store.catalog.parse.dates import (
    tells_order,
)
from store.catalog.parse.levels import in_known_spelling
from store.catalog.parse.measures import find_measures, is_bound, is_measure
from store.catalog.parse.written import Mark
from store.errors import CatalogError


@dataclass(frozen=True)
class Extras:
    """Further columns of both splits by name with prefix, and what the user should know of the others."""

    train: dict[str, pa.Array]
    test: dict[str, pa.Array]
    notes: tuple[str, ...]
    readings: "dict[str, ColumnReading]"  # of each column that is read
    texts: tuple[str, ...] = ()  # columns of words that differ in nearly every row: they join the text


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
    *,
    joins_text: bool = True,
) -> Extras:
    """Further columns, typed.

    Args:
        used: columns that are something else already (id, text, image link, price).
        numeric, categorical: columns whose type the user says; the others go by their values.
        told: the mark before decimals in the prices of the training file; None: they do not tell.
        joins_text: False where the user says which columns make up the text.

    Raises:
        CatalogError: a column that the user names is missing, named twice, used already or does not hold numbers.
    """
    of_train = _columns(train, used)
    of_test = None if test is None else _columns(test, used)
    named = _named(train, test, used, of_train, of_test, numeric, categorical)
    notes: list[str] = []
    texts: list[str] = []
    readings: dict[str, ColumnReading] = {}
    columns: dict[str, dict[str, pa.Array]] = {"train": {}, "test": {}}
    for name, cells in of_train.items():
        if of_test is not None and name not in of_test:
            notes.append(f"column {name!r} is in {train.source.path} only: left out")
            continue
        reading = reading_of(cells, name, named.get(name), told)
        if isinstance(reading, str):
            notes.append(f"column {name!r} is left out: {reading}{_nearly_numbers(cells, name)}")
            continue
        if reading.kind == "text":
            option = f"--text-column {shlex.quote(name)}"
            notes.append(
                f"column {name!r} differs in nearly every row: its words are joined to the text"
                if joins_text
                else f"column {name!r} is left out: it differs in nearly every row, and other columns are named as texts "
                f"({option!r} joins it to them)"
            )
            texts.extend([name] if joins_text else [])
            continue
        if reading.kind == "categorical" and name not in named:
            hint = _nearly_numbers(cells, name) or _lists(cells, name)
            notes.extend([f"column {name!r} is read as categories{hint}"] if hint else [])
        last = last_day_of(cells, reading, name)
        readings[name] = replace(reading, last="" if np.isnat(last) else str(last))
        parts, stray = read_values(cells, reading, name, last)
        if (
            stray
            and named.get(name) == "numeric"
            and len(stray) >= MOST_STRAY_NAMED * _n_present(cells, name)
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
        tested, stray = read_values(of_test[name], reading, name, last)
        if reading.kind == "categorical":
            tested = {key: in_known_spelling(tested[key], set(parts[key].to_pylist())) for key in parts}
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
    return Extras(columns["train"], columns["test"], tuple(notes), readings, tuple(texts))


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


# ---- reading it ----------------------------------------------------------------------------------


# ---- what the user should know -------------------------------------------------------------------


def _nearly_numbers(cells: pa.ChunkedArray, name: str) -> str:
    """That more than half of a column's cells are numbers, and how to have it read so; else nothing."""
    if not pa.types.is_string(cells.type):
        return ""
    present = [cell for cell in cells.to_pylist() if not is_missing(cell)]
    measures = find_measures(present) if present else None
    if measures is None or measures[1] <= 1 - MOST_STRAY_NAMED:
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
    if reading.kind == "date" and pa.types.is_timestamp(cells.type) and not knows_zone(cells.type):
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
            of = reading.measure.unit or reading.measure.currency
            what += (
                f" in {of!r}" if of else f" without a unit, written as {reading.measure.convention.example}"
            )
        said.append(
            f"column {name!r} holds {len(stray)} values in {split} that are no {what} (first: {stray[0][1]!r:.60}): "
            "taken as missing"
        )
    return said
