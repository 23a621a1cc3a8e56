"""Catalogue rows -> the table of parsed fields: numbers, flags, lengths, categories. Nothing is fitted.

Which words and facts become a column is decided by how often they occur, never by price.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from heads.features.rows import CategoricalColumn, FieldTable
from store.catalog.extremes import (
    GREATEST,
    Spread,
    apart_note,
    clip_to,
    extremes_note,
    signed_log,
    usual_range,
    usual_spread,
    within_range,
)
from store.catalog.parse.cell_numbers import cell_numbers
from store.catalog.read import extra_columns
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

FIELD_COLUMNS = (
    "text",
    "name",
    "bullets",
    "description",
    "value",
    "unit",
    "pack_count",
    "quantity",
    "quantity_unit",
    "numbers",
)
QUANTITY_UNITS = ("g", "ml", "count")
FLAGS = {
    "organic": re.compile(r"\borganic\b", re.IGNORECASE),
    "gluten_free": re.compile(r"\bgluten[- ]?free\b", re.IGNORECASE),
    "sugar_free": re.compile(r"\bsugar[- ]?free\b", re.IGNORECASE),
    "kosher": re.compile(r"\bkosher\b", re.IGNORECASE),
}
# A bullet that states a fact, "Brand: Levis"; longer ones are prose.
FACT = re.compile(r"\s*([A-Za-z][A-Za-z0-9 /&'-]{1,29}?)\s*:\s*(\S.{0,59}?)\s*")
MIN_SHARE = 0.01  # of the rows that must hold a word or a fact for it to become a column
MIN_ROWS = 10
LEAST_VALUES = 3  # of a number read out of the words of a column, for it to become a column
MOST_CELL_NUMBERS = 24  # of one column, the most frequent ones


def columns_read(schema: pa.Schema) -> list[str]:
    """The catalogue columns that `field_table` reads."""
    numeric, categorical = extra_columns(schema)
    return [*FIELD_COLUMNS, *numeric, *categorical]


@dataclass(frozen=True)
class FieldColumns:
    """What training rows decide about the columns of `field_table`: further rows are then read alike."""

    words: tuple[str, ...]  # before which a number is a column
    facts: tuple[str, ...]
    numeric: tuple[str, ...]  # the user's own columns, with prefix
    categorical: tuple[str, ...]
    spreads: dict[str, Spread]  # column -> where values beyond single precision are brought
    ranges: dict[str, tuple[float, float]]  # numeric column -> logarithms beyond which a value is missing
    cell_numbers: dict[str, tuple[str, ...]]  # categorical column -> what numbers in its cells count

    @classmethod
    def of(cls, rows: pa.Table) -> "FieldColumns":
        """From catalogue rows that hold `columns_read`."""
        numeric, categorical = extra_columns(rows.schema)
        by_word = _word_values(rows["numbers"])
        words = _often(Counter(word for row in by_word for word in row), rows.num_rows)
        facts = _often(
            Counter(key for row in rows["bullets"].to_pylist() for key in facts_of(row)), rows.num_rows
        )
        values = {name: _floats(rows[name]) for name in ("value", "pack_count", "quantity", *numeric)}
        values |= {_number_name(word): _values_of(by_word, word) for word in words}
        kinds = {}
        for name in categorical:
            cells = _cell_values(rows[name])
            kinds[name] = tuple(_cell_kinds(cells))
            values |= {_cell_name(name, kind): _values_of(cells, kind) for kind in kinds[name]}
        found = {name: usual_spread(column) for name, column in values.items()}
        spreads = {name: spread for name, spread in found.items() if spread is not None}
        logs = {name: signed_log(clip_to(values[name], spreads.get(name))) for name in numeric}
        reach = {name: usual_range(column) for name, column in logs.items()}
        ranges = {name: one for name, one in reach.items() if one is not None}
        return cls(tuple(words), tuple(facts), tuple(numeric), tuple(categorical), spreads, ranges, kinds)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "FieldColumns":
        """From its fields as JSON has them."""
        lists = ("words", "facts", "numeric", "categorical")
        given: dict[str, Any] = {name: tuple(record[name]) for name in lists}
        for name in ("spreads", "ranges", "cell_numbers"):
            given[name] = {column: tuple(one) for column, one in record[name].items()}
        return cls(**given)


def field_table(
    rows: pa.Table, n_train: int | None = None, columns: FieldColumns | None = None
) -> FieldTable:
    """Fields of catalogue rows. Train and test are parsed together, or by columns on record, so that they agree.

    Args:
        n_train: the first so many rows decide what becomes a column, so that other test rows change nothing about
            what models are fitted on; None: all rows decide.
        columns: decided before, on other rows.
    """
    notes: list[str] = []
    decided = columns or FieldColumns.of(rows.slice(0, n_train))

    def logs_of(name: str, values: np.ndarray) -> np.ndarray:
        n_extreme = int((np.abs(values) > GREATEST).sum())
        if n_extreme:
            notes.append(extremes_note(name.removeprefix(NUMERIC_PREFIX), n_extreme, len(values)))
            values = clip_to(values, decided.spreads.get(name))
        return signed_log(values)

    numbers: dict[str, np.ndarray] = {}
    numbers["log_value"] = logs_of("value", _floats(rows["value"]))
    numbers["log_pack_count"] = logs_of("pack_count", _floats(rows["pack_count"]))
    units = rows["quantity_unit"].to_pylist()
    log_quantity = logs_of("quantity", _floats(rows["quantity"]))
    for unit in QUANTITY_UNITS:
        here = np.array([u == unit for u in units], dtype=bool)
        numbers[f"log_quantity:{unit}"] = np.where(here, log_quantity, np.nan)
    texts = [text or "" for text in rows["text"].to_pylist()]
    for flag, pattern in FLAGS.items():
        numbers[f"flag:{flag}"] = np.array([pattern.search(text) is not None for text in texts], dtype=float)
    numbers["log_length:text"] = np.log1p([len(text) for text in texts])
    numbers["log_length:name"] = np.log1p([len(name or "") for name in rows["name"].to_pylist()])
    numbers["log_length:description"] = np.log1p([len(d or "") for d in rows["description"].to_pylist()])
    bullets = rows["bullets"].to_pylist()
    numbers["log_bullets"] = np.log1p([len(b or ()) for b in bullets])
    by_word = _word_values(rows["numbers"])
    for word in decided.words:
        numbers[f"number:{word}"] = logs_of(_number_name(word), _values_of(by_word, word))
    for name in decided.numeric:
        logs, n_apart = within_range(logs_of(name, _floats(rows[name])), decided.ranges.get(name))
        if n_apart:
            notes.append(apart_note(name.removeprefix(NUMERIC_PREFIX), n_apart, len(logs)))
        numbers[name] = logs
    for name in decided.categorical:
        cells = _cell_values(rows[name]) if decided.cell_numbers.get(name) else []
        for kind in decided.cell_numbers.get(name, ()):
            label = _cell_name(name, kind)
            numbers[f"{NUMERIC_PREFIX}{label}"] = logs_of(label, _values_of(cells, kind))

    categories = {"unit": _category(rows["unit"]), "quantity_unit": _category(rows["quantity_unit"])}
    for name in decided.categorical:
        categories[name] = _category(rows[name])
    facts = [facts_of(row) for row in bullets]
    for key in decided.facts:
        levels = dict[str, int]()
        codes = [
            -1 if (one := row.get(key)) is None else levels.setdefault(one, len(levels)) for row in facts
        ]
        categories[f"fact:{key}"] = CategoricalColumn(tuple(levels), np.array(codes, np.int32))
    X = np.column_stack(list(numbers.values())) if rows.num_rows else np.empty((0, len(numbers)))
    return FieldTable(tuple(numbers), X, categories, tuple(notes))


def facts_of(bullets: list[str] | None) -> dict[str, str]:
    """Facts that bullets state, key -> value, both lower case; the first of a key wins.

    >>> facts_of(["Brand: Levis", "Pattern: Solid; Material: Cotton", "Made with care"])
    {'brand': 'levis', 'pattern': 'solid', 'material': 'cotton'}
    """
    facts: dict[str, str] = {}
    for bullet in bullets or ():
        for part in bullet.split(";"):
            match = FACT.fullmatch(part)
            if match:
                facts.setdefault(match[1].lower(), match[2].lower())
    return facts


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def _category(column: pa.ChunkedArray) -> CategoricalColumn:
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int32)
    return CategoricalColumn(tuple(str(level) for level in encoded.dictionary.to_pylist()), codes)


def _often(counts: Mapping[str, int], n_rows: int) -> list[str]:
    least = max(MIN_ROWS, MIN_SHARE * n_rows)
    return sorted(key for key, count in counts.items() if count >= least)


def _word_values(column: pa.ChunkedArray) -> list[dict[str, float]]:
    """Word -> the first number before it, of each row."""
    return [
        {n["word"]: n["value"] for n in reversed(numbers or ()) if n["word"]}
        for numbers in column.to_pylist()
    ]


def _values_of(rows: list[dict[str, float]], word: str) -> np.ndarray:
    return np.array([row.get(word, np.nan) for row in rows], dtype=float)


def _number_name(word: str) -> str:
    return f"number before {word!r}"


def _cell_values(column: pa.ChunkedArray) -> list[dict[str, float]]:
    """Numbers read out of the words of a column, by what they count, of each row."""
    cells = column.to_pylist()
    found = {cell: cell_numbers(cell) for cell in set(cells) if cell}
    return [found.get(cell, {}) for cell in cells]


def _cell_kinds(cells: list[dict[str, float]]) -> list[str]:
    """What numbers in cells count that become columns; of two that are the same in every row, one."""
    counts = Counter(kind for row in cells for kind in row)
    often = sorted(_often(counts, len(cells)), key=lambda kind: (-counts[kind], kind))
    kinds, known = [], set()
    for kind in often[:MOST_CELL_NUMBERS]:
        values = _values_of(cells, kind)
        if len(np.unique(values[np.isfinite(values)])) >= LEAST_VALUES and values.tobytes() not in known:
            known.add(values.tobytes())
            kinds.append(kind)
    return kinds


def _cell_name(column: str, kind: str) -> str:
    return f"{column.removeprefix(CATEGORICAL_PREFIX)} ({kind})"
