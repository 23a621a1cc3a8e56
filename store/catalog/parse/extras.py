"""Further columns of the user's file: which are numbers, which categories, and which can't be used.

Types are decided on train and applied to test.
"""

import math
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.rows import MISSING, ValidatedRows, as_text, is_number, parse_number
from store.errors import CatalogError
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

Kind = Literal["numeric", "categorical"]
_FEW_ROWS = 1000  # from here on, categories that fill over half of the rows are free text as well


@dataclass(frozen=True)
class Extras:
    """Further columns of both splits by name with prefix, and what the user should know of the others."""

    train: dict[str, pa.Array]
    test: dict[str, pa.Array]
    notes: tuple[str, ...]


def decide_extras(
    train: ValidatedRows,
    test: ValidatedRows | None,
    used: set[str],
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
) -> Extras:
    """Further columns, typed.

    Args:
        used: columns that are something else already (id, text, image link, price).
        numeric, categorical: columns whose type the user says; the others go by their values.

    Raises:
        CatalogError: a column that the user names is missing, named twice, used already or does not hold numbers.
    """
    named: dict[str, Kind] = dict.fromkeys(numeric, "numeric")
    named.update((name, "categorical") for name in categorical)
    if both := set(numeric) & set(categorical):
        raise CatalogError(f"column {min(both)!r} is named as --numeric and --categorical: choose one")
    for name, kind in named.items():
        for rows in (train, test):
            if rows is not None:
                rows.source.require(name, f"--{kind}")
        if name in used:
            raise CatalogError(
                f"column {name!r} is the id, text, image or price already: take it out of --{kind}"
            )
    notes: list[str] = []
    columns: dict[str, dict[str, pa.Array]] = {"train": {}, "test": {}}
    for name in train.source.columns:
        if name in used:
            continue
        if test is not None and name not in test.source.columns:
            notes.append(f"column {name!r} is in {train.source.path} only: left out")
            continue
        raw = train.take(train.source.columns[name])
        kind_or_reason = named.get(name) or _kind(raw, name)
        if kind_or_reason not in ("numeric", "categorical"):
            notes.append(f"column {name!r} is left out: {kind_or_reason}")
            continue
        is_numeric = kind_or_reason == "numeric"
        for split, rows in (("train", train), ("test", test)):
            if rows is None:
                continue
            cells = rows.take(rows.source.columns[name])
            key = f"{NUMERIC_PREFIX if is_numeric else CATEGORICAL_PREFIX}{name}"
            if is_numeric:
                values, wrong = _numbers(cells, name)
                if wrong and split == "train":
                    line = rows.source.lines[rows.index[wrong[0][0]]]
                    raise CatalogError(
                        f"--numeric {name}: line {line} of {rows.source.path} holds {wrong[0][1]!r}, which is no "
                        f"number: clean it, or take the column as '--categorical {name}'"
                    )
                if wrong:
                    notes.append(
                        f"column {name!r} holds {len(wrong)} values in test that are no numbers (first: "
                        f"{wrong[0][1]!r}): taken as missing"
                    )
                columns[split][key] = values
            else:
                columns[split][key] = _categories(cells, name)
    if test is not None:
        only = [name for name in test.source.columns if name not in train.source.columns and name not in used]
        notes.extend(f"column {name!r} is in {test.source.path} only: left out" for name in only)
    return Extras(columns["train"], columns["test"], tuple(notes))


def _kind(raw: pa.ChunkedArray, name: str) -> str:
    """ "numeric", "categorical", or why the column is neither."""
    if pa.types.is_nested(raw.type) or pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type):
        return f"it holds {raw.type}"
    if pa.types.is_boolean(raw.type):
        return "categorical"
    if is_number(raw.type):
        return "numeric" if raw.null_count < len(raw) else "it is empty"
    present = [cell for cell in as_text(raw, name).to_pylist() if not _is_missing(cell)]
    if not present:
        return "it is empty"
    if all(parse_number(cell) is not None for cell in present):
        return "numeric"
    distinct = len(set(present))
    if distinct == len(present) or (len(present) >= _FEW_ROWS and distinct > len(present) / 2):
        return (
            f"{distinct} distinct values in {len(present)} rows are free text, not categories "
            "(name it with --categorical to keep it)"
        )
    return "categorical"


def _numbers(cells: pa.ChunkedArray, name: str) -> tuple[pa.Array, list[tuple[int, str]]]:
    """Numbers, null where missing or not finite, and (position, cell) of each that is none."""
    if is_number(cells.type):
        numbers = cells.cast(pa.float64(), safe=False).combine_chunks()
        return pc.if_else(pc.is_finite(numbers), numbers, None), []
    values: list[float | None] = []
    wrong: list[tuple[int, str]] = []
    for position, cell in enumerate(as_text(cells, name).to_pylist()):
        number = parse_number(cell)
        if number is None and cell is not None and not _is_missing(cell):
            wrong.append((position, cell))
        values.append(number if number is not None and math.isfinite(number) else None)
    return pa.array(values, pa.float64()), wrong


def _categories(cells: pa.ChunkedArray, name: str) -> pa.Array:
    return pa.array(
        [None if _is_missing(cell) else cell.strip() for cell in as_text(cells, name).to_pylist()],
        pa.string(),
    )


def _is_missing(cell: str | None) -> bool:
    return cell is None or cell.strip().lower() in MISSING
