"""Which rows of a file can be used: an id of their own and, in train, a price."""

import math
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.source import TableSource
from store.errors import CatalogError
from store.schema import REJECTED

Id = int | str
MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>"))  # cells that stand for none, lower case
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = 2**63
MOST_PRICE = 1e15  # in any currency; more is a slip, and its square would overflow


@dataclass(frozen=True)
class ValidatedRows:
    """The usable rows of one file, in file order; every array has shape (n_rows,)."""

    source: TableSource
    index: np.ndarray  # int64, positions in the file's columns
    sample_id: list[Id]
    price: np.ndarray | None  # float64, 0 < price <= MOST_PRICE; None in test
    rejected: tuple[tuple[int, str | None, str], ...]  # (line, id as given, reason), by line

    def take(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """One column of the file, usable rows only."""
        return column if len(self.index) == self.source.n_rows else column.take(pa.array(self.index))


def usable_rows(
    source: TableSource,
    id_column: str,
    price_column: str | None,
    taken: dict[Id, str],
    *,
    ids_are_integers: bool,
) -> ValidatedRows:
    """Sort the rows of a file into usable and rejected ones.

    Args:
        price_column: None in test, where no price is needed.
        taken: ids that may not come again -> where each was used; the ids of this file are added.
        ids_are_integers: as decided over all files by `all_integers`.

    Raises:
        CatalogError: a column is missing, or not one row is usable.
    """
    ids = written_ids(source, id_column)
    prices = source.require(price_column, "--price-column") if price_column else None
    amounts: list[float | str] = (
        price_values(prices, str(price_column)) if prices is not None else [1.0] * len(ids)
    )
    rejected: list[tuple[int, str | None, str]] = [(line, None, reason) for line, reason in source.malformed]
    index: list[int] = []
    sample_id: list[Id] = []
    lines = source.lines.tolist()
    for position, (written, amount) in enumerate(zip(ids, amounts, strict=True)):
        if written is None:
            rejected.append((lines[position], None, "no id"))
            continue
        identity: Id = int(written) if ids_are_integers else written
        if identity in taken:
            rejected.append((lines[position], written, f"duplicate id: first used on {taken[identity]}"))
            continue
        reason = amount if isinstance(amount, str) else _refuse_price(amount)
        if reason:
            rejected.append((lines[position], written, reason))
            continue
        taken[identity] = f"line {lines[position]} of {source.path}"
        index.append(position)
        sample_id.append(identity)
    if not index:
        counts = "; ".join(f"{n} with {reason}" for reason, n in count_reasons(rejected).items())
        raise CatalogError(
            f"not one of the {len(rejected)} rows of {source.path} is usable ({counts}; first: line {rejected[0][0]}, "
            f"{rejected[0][2]}): check the file and the column options"
        )
    rejected.sort(key=lambda row: row[0])
    price = np.array([amounts[i] for i in index], np.float64) if prices is not None else None
    return ValidatedRows(source, np.array(index, np.int64), sample_id, price, tuple(rejected))


def written_ids(source: TableSource, id_column: str) -> list[str | None]:
    """The ids of a file as text, None where there is none."""
    column = source.require(id_column, "--id-column")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
        with suppress(pa.ArrowInvalid):  # they are no integers
            column = column.cast(pa.int64())  # integers that a missing id turned into floats
    return [
        None if id is None or id.lower() in MISSING else id
        for id in map(_stripped, as_text(column, id_column).to_pylist())
    ]


def all_integers(ids: list[str | None]) -> bool:
    """True when every id is an integer of 64 bits and written in its one usual way, so that nothing is lost."""
    return all(id is None or (_INTEGER.fullmatch(id) and -_INT64 <= int(id) < _INT64) for id in ids)


def price_values(column: pa.ChunkedArray, name: str) -> list[float | str]:
    """Each price as a number, or the reason why it is none."""
    if is_number(column.type):
        numbers = column.cast(pa.float64(), safe=False).to_pylist()
        return ["price is missing" if number is None else number for number in numbers]
    values: list[float | str] = []
    for written in as_text(column, name).to_pylist():
        number = parse_number(written)
        if number is not None:
            values.append(number)
        elif written is None or written.strip().lower() in MISSING:
            values.append("price is missing")
        else:
            values.append(f"price is not a number: {written.strip()[:60]!r}")
    return values


def parse_number(written: str | None) -> float | None:
    """The number a cell holds, NaN and infinity included; None where it holds something else."""
    if written is None:
        return None
    stripped = written.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else None


def as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column as strings.

    Raises:
        CatalogError: it holds lists, structs or bytes that are not UTF-8.
    """
    if pa.types.is_string(column.type):
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(
            f"column {name!r} holds {column.type}, which can't be read as text: {error}"
        ) from error


def count_reasons(
    rejected: list[tuple[int, str | None, str]] | tuple[tuple[int, str | None, str], ...],
) -> dict[str, int]:
    """Rejected rows by kind of reason (what stands before the colon), most frequent first."""
    return dict(Counter(reason.split(":")[0] for _, _, reason in rejected).most_common())


def rejected_table(parts: list[ValidatedRows]) -> pa.Table:
    """Rejected rows of every file, columns of `store.schema.REJECTED`."""
    rows = [(part.source.path, *row) for part in parts for row in part.rejected]
    columns = zip(*rows, strict=True) if rows else ([] for _ in REJECTED)
    return pa.table(
        [pa.array(list(c), f.type) for c, f in zip(columns, REJECTED, strict=True)], schema=REJECTED
    )


def _refuse_price(price: float) -> str | None:
    if math.isnan(price):
        return "price is NaN"
    if math.isinf(price):
        return "price is infinite"
    if price > MOST_PRICE:
        return f"price is beyond {MOST_PRICE:g}"
    if price == 0:
        return "price is zero"
    return "price is negative" if price < 0 else None


def _stripped(written: str | None) -> str | None:
    return None if written is None else written.strip()


def is_number(kind: pa.DataType) -> bool:
    """True for integers, floats and decimals."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
