"""The prices of a catalogue: of train, those that a test file has, and what must not stand beside them."""

import shlex
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.prices import PriceReading, describe, price_values, read_prices, read_prices_beside
from store.catalog.ingest.publish import HOLDOUT_FILE
from store.catalog.ingest.rows import NO_PRICE, ValidatedRows, refuse_price
from store.catalog.ingest.source import TableSource
from store.catalog.parse.currencies import currency_counts
from store.catalog.parse.extras import flattened
from store.config import ColumnConfig
from store.errors import CatalogError

_MOST_CURRENCIES = 60  # distinct cells of a column of currencies
_NOT_THE_PRICE = {
    "sample_id": "--id-column",
    "test_id": "--test-id-column",
    "text": "--text-column",
    "more_text": "--text-column",
    "image_link": "--image-column",
    "group": "--group-column",
    "time": "--time-column",
}


class Prices:
    """The prices of train, and of test where its file has them."""

    reading: PriceReading
    of_train: list[float | str]

    def __init__(self, sources: dict[str, TableSource], columns: ColumnConfig, notes: list[str]) -> None:
        self._column, self._decimal, self._path = columns.price, columns.decimal, sources["train"].path
        train = sources["train"].require(columns.price, "--price-column")
        self.reading = read_prices(train, columns.price, columns.decimal, columns.price_range)
        self.of_train = price_values(train, columns.price, self.reading)
        if (said := describe(self.reading, columns.price)) is not None:
            notes.append(said)

    def holdout(self, rows: ValidatedRows, notes: list[str]) -> np.ndarray | None:
        """Prices of usable test rows, float64 of shape (n_rows,), NaN where unknown; None where the file has none."""
        source = rows.source
        if self._column not in source.columns:
            return None
        cells = rows.take(source.columns[self._column])
        paths = (self._path, source.path)
        reading = read_prices_beside(cells, self._column, self.reading, self._decimal, paths)
        values = price_values(cells, self._column, reading)
        price = np.array([np.nan if isinstance(value, str) else value for value in values], np.float64)
        reasons = [value if isinstance(value, str) else refuse_price(value) for value in values]
        price[[reason is not None for reason in reasons]] = np.nan
        unused = [at for at, reason in enumerate(reasons) if reason not in (None, *NO_PRICE)]
        n_known = int(np.isfinite(price).sum())
        about = f"column {self._column!r} of {source.path} is not learned from"
        first = f"line {source.lines[rows.index[unused[0]]]}, {reasons[unused[0]]}" if unused else ""
        if not n_known:
            none = (
                f"none of its {len(unused)} prices can be used (first: {first})"
                if unused
                else "it holds no price"
            )
            notes.append(f"{about}: {none}")
            return None
        others = f"; {len(unused)} others can't be used (first: {first})" if unused else ""
        if reading.convention.decimal != self.reading.convention.decimal:
            others += (
                f"; they are written as {reading.convention.example}, other than those of the training file"
            )
        if reading.currency is not None and self.reading.currency is None:
            others += f"; they are marked {reading.currency!r}, and taken to be in the currency of the training file"
        notes.append(
            f"{about}: its {n_known} prices are kept apart in {HOLDOUT_FILE}, to compare predictions with them{others}. "
            "To train on these rows as well, add them to the training file"
        )
        return price


def check_roles(columns: ColumnConfig, notes: list[str]) -> None:
    """Refuse the column of prices in another role, where models would learn from what they are to predict.

    Raises:
        CatalogError: it is named as something else.
    """
    for role, option in _NOT_THE_PRICE.items():
        named = getattr(columns, role)
        if columns.price in (named if isinstance(named, tuple) else (named,)):
            raise CatalogError(
                f"{option} {shlex.quote(columns.price)}: that column holds the prices, which are predicted and may not be "
                f"learned from: name another column with {option}, or the prices with --price-column"
            )
    if columns.weight == columns.price:
        notes.append(
            f"column {columns.weight!r} is the weight of the rows as well: each counts as much as its price"
        )


def check_currencies(sources: dict[str, TableSource], used: set[str], reading: PriceReading) -> None:
    """Refuse prices without a currency beside a column that holds several of them.

    Raises:
        CatalogError: a further column holds the codes or signs of several currencies, and nothing else.
    """
    if reading.currency is not None:
        return
    flat = [
        dict(pair for name, column in source.columns.items() for pair in flattened(name, column))
        for source in sources.values()
    ]
    for name in [name for name in flat[0] if name not in used]:
        cells: Counter[str] = Counter()
        for column in [columns[name] for columns in flat if name in columns]:
            if not pa.types.is_string(column.type) or pc.count_distinct(column).as_py() > _MOST_CURRENCIES:
                break
            for one in column.value_counts().to_pylist():
                cells[(one["values"] or "").strip()] += one["counts"]
        else:
            counts = currency_counts(cells)
            if len(counts) > 1:
                told = ", ".join(f"{kind} in {n} rows" for kind, n in counts.most_common())
                raise CatalogError(
                    f"column {name!r} holds {len(counts)} currencies ({told}) beside prices without one: nothing is "
                    "converted, so keep the rows of one currency, or convert them before; if all prices are in one "
                    f"currency, keep the column with {f'--categorical {shlex.quote(name)}'!r}"
                )
