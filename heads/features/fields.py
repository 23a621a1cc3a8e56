"""Catalogue rows -> the table of parsed fields: numbers, flags, lengths, categories. Nothing is fitted.

Which words and facts become a column is decided by how often they occur, never by price.
"""

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from heads.features.rows import CategoricalColumn, FieldTable
from store.catalog.extremes import apart_note, clip_extremes, extremes_note, set_apart, signed_log
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


def field_table(rows: pa.Table, n_train: int | None = None) -> FieldTable:
    """Fields of catalogue rows. Train and test must be parsed together, so that their columns agree.

    Args:
        n_train: the first so many rows decide what becomes a column, so that other test rows change nothing about
            what models are fitted on; None: all rows decide.
    """
    n_train, notes = rows.num_rows if n_train is None else n_train, []

    def logs_of(name: str, values: np.ndarray) -> np.ndarray:
        clipped, n_clipped = clip_extremes(values, n_train)
        if n_clipped:
            notes.append(extremes_note(name, n_clipped, len(values)))
        return signed_log(clipped)

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
    for word, values in _word_numbers(rows["numbers"], n_train).items():
        numbers[f"number:{word}"] = logs_of(f"number before {word!r}", values)
    numeric, categorical = extra_columns(rows.schema)
    for name in numeric:
        logs, n_apart = set_apart(logs_of(name, _floats(rows[name])), n_train)
        if n_apart:
            notes.append(apart_note(name, n_apart, len(logs)))
        numbers[name] = logs
    for name in categorical:
        of_column = name.removeprefix(CATEGORICAL_PREFIX)
        for kind, values in _cell_numbers(rows[name], n_train).items():
            numbers[f"{NUMERIC_PREFIX}{of_column} ({kind})"] = logs_of(f"{of_column} ({kind})", values)

    categories = {"unit": _category(rows["unit"]), "quantity_unit": _category(rows["quantity_unit"])}
    for name in categorical:
        categories[name] = _category(rows[name])
    categories |= _fact_categories(bullets, n_train)
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


def _word_numbers(column: pa.ChunkedArray, n_train: int) -> dict[str, np.ndarray]:
    rows = [
        {n["word"]: n["value"] for n in reversed(numbers or ()) if n["word"]}
        for numbers in column.to_pylist()
    ]
    counts = Counter(word for row in rows[:n_train] for word in row)
    return {
        word: np.array([row.get(word, np.nan) for row in rows], dtype=float)
        for word in _often(counts, n_train)
    }


def _cell_numbers(column: pa.ChunkedArray, n_train: int) -> dict[str, np.ndarray]:
    """Numbers read out of the words of a column, by what they count; of two that are the same in every row, one."""
    cells = column.to_pylist()
    found = {cell: cell_numbers(cell) for cell in set(cells) if cell}
    counts = Counter(kind for cell in cells[:n_train] for kind in found.get(cell, ()))
    often = sorted(_often(counts, n_train), key=lambda kind: (-counts[kind], kind))
    numbers: dict[str, np.ndarray] = {}
    known = set()
    for kind in often[:MOST_CELL_NUMBERS]:
        values = np.array([found.get(cell, {}).get(kind, np.nan) for cell in cells])
        distinct = np.unique(values[:n_train][np.isfinite(values[:n_train])])
        if len(distinct) >= LEAST_VALUES and values.tobytes() not in known:
            known.add(values.tobytes())
            numbers[kind] = values
    return numbers


def _fact_categories(bullets: list[list[str] | None], n_train: int) -> dict[str, CategoricalColumn]:
    facts = [facts_of(row) for row in bullets]
    counts = Counter(key for row in facts[:n_train] for key in row)
    return {
        f"fact:{key}": _category(pa.chunked_array([pa.array([row.get(key) for row in facts], pa.string())]))
        for key in _often(counts, n_train)
    }
