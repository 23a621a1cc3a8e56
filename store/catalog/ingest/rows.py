"""Which rows of a file can be used: an id of their own and, in train, a price."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from store.catalog.ingest.ids import Id
from store.catalog.ingest.source import TableSource
from store.errors import CatalogError
from store.schema import REJECTED

MOST_PRICE = 1e15  # in any currency; more is a slip, and its square would overflow
NO_PRICE = ("price is missing", "price is NaN")  # reasons of rows that hold none


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
    ids: list[str | None],
    prices: list[float | str] | None,
    *,
    no_product: dict[int, str],
    ids_are_integers: bool,
) -> ValidatedRows:
    """Sort the rows of a file into usable and rejected ones.

    Args:
        ids: as written, None where a row has none; one that comes again is refused.
        prices: each as a number, or the reason why it is none; None in test, where no price is needed.
        no_product: positions of rows that are none, and what they are; see `rows_of_no_product`.
        ids_are_integers: as decided over all files by `all_integers`.

    Raises:
        CatalogError: not one row is usable.
    """
    amounts: list[float | str] = prices if prices is not None else [1.0] * len(ids)
    rejected: list[tuple[int, str | None, str]] = [(line, None, reason) for line, reason in source.malformed]
    index: list[int] = []
    sample_id: list[Id] = []
    taken: dict[Id, int] = {}
    lines = source.lines.tolist()
    for position, (written, amount) in enumerate(zip(ids, amounts, strict=True)):
        if position in no_product:
            rejected.append((lines[position], written, no_product[position]))
            continue
        if written is None:
            rejected.append((lines[position], None, "no id"))
            continue
        identity: Id = int(written) if ids_are_integers else written
        if identity in taken:
            first = f"line {taken[identity]} of {source.path}"
            rejected.append((lines[position], written, f"duplicate id: first used on {first}"))
            continue
        reason = amount if isinstance(amount, str) else refuse_price(amount)
        if reason:
            rejected.append((lines[position], written, reason))
            continue
        taken[identity] = lines[position]
        index.append(position)
        sample_id.append(identity)
    rejected.sort(key=lambda row: row[0])
    if not index:
        counts = "; ".join(f"{n} with {reason}" for reason, n in count_reasons(rejected).items())
        raise CatalogError(
            f"none of the {len(rejected)} rows of {source.path} can be used ({counts}; first: line {rejected[0][0]}, "
            f"{rejected[0][2]}): check the file and the column options"
        )
    price = np.array([amounts[i] for i in index], np.float64) if prices is not None else None
    return ValidatedRows(source, np.array(index, np.int64), sample_id, price, tuple(rejected))


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


def refuse_price(price: float) -> str | None:
    """Why a number can't be a price; None where it can."""
    if math.isnan(price):
        return "price is NaN"
    if math.isinf(price):
        return "price is infinite"
    if price > MOST_PRICE:
        return f"price is beyond {MOST_PRICE:g}"
    if price == 0:
        return "price is zero"
    return "price is negative" if price < 0 else None
