"""The price column: written prices -> numbers, by one convention and in one currency."""

import re
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from store.catalog.ingest.cells import as_text, is_missing, is_number
from store.catalog.parse.currencies import THREE_DECIMALS, currency_of
from store.catalog.parse.written import CORE, PLAIN, Convention, find_convention, number_of, parse_number
from store.config import DecimalMark, RangePolicy
from store.errors import CatalogError

_SIGNS = "+-−"
_CORE = re.compile(CORE)
_PRICE = re.compile(rf"(?P<before>[^\d]*?)(?P<core>{CORE})(?P<after>[^\d]*)", re.DOTALL)
_MAY_BE_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
_BETWEEN = re.compile(r"\s*(?:[-–—~]|\bto\b|\bbis\b)\s*", re.IGNORECASE)
_WHOLE = frozenset(("/-", ",-", ".-", ",–", "/–", ",--", ".--"))  # written after a price without decimals
_LABELS = re.compile(r"^(?:mrp|price)\b[\s.:]*", re.IGNORECASE)
MOST_CHARACTERS = 100  # of a written price


@dataclass(frozen=True)
class PriceReading:
    """How a price column is written; the same for every file of a catalogue."""

    convention: Convention
    is_plain: bool  # every number is as programs write it
    currency: str | None  # as it is written most often; None: no sign
    n_with_currency: int
    on_range: RangePolicy


@dataclass(frozen=True)
class _Written:
    """One price taken apart: one core, or the two of a range."""

    cores: tuple[str, ...]
    is_negative: bool = False
    currency: str | None = None  # as written
    number: float | None = None  # of a number that programs wrote, with an exponent


def read_prices(
    column: pa.ChunkedArray, name: str, decimal: DecimalMark = "auto", on_range: RangePolicy = "refuse"
) -> PriceReading:
    """Find how the prices of a column are written.

    Args:
        decimal: which mark parts decimals; "auto": found from the column.
        on_range: what becomes of `10-12`: "refuse", or "mid" for the middle of the two.

    Raises:
        CatalogError: prices are in several currencies.
    """
    if is_number(column.type):
        return PriceReading(Convention(), True, None, 0, on_range)
    present = [
        cell for cell in as_text(column, name).to_pylist() if cell is not None and not is_missing(cell)
    ]
    if decimal != "comma" and _is_plain(present):
        return PriceReading(Convention(), True, None, 0, on_range)
    pairs = [(cell, one) for cell in present if (one := _take_apart(cell)) is not None]
    taken = [one for _, one in pairs]
    currencies = Counter(one.currency for one in taken if one.currency is not None)
    by_kind: Counter[str] = Counter()
    for spelling, n in currencies.items():
        by_kind[currency_of(spelling) or ""] += n
    if len(by_kind) > 1:
        counts = ", ".join(f"{kind} in {n} rows" for kind, n in by_kind.most_common())
        raise CatalogError(
            f"column {name!r} holds prices in {len(by_kind)} currencies ({counts}): nothing is converted: keep the "
            "rows of one currency, or convert the prices yourself"
        )
    currency = currencies.most_common(1)[0][0] if currencies else None
    kind = currency_of(currency) if currency is not None else None
    cores = (core for one in taken for core in one.cores)
    three = True if kind in THREE_DECIMALS else None if kind is None else False
    found = find_convention(cores, has_three_decimals=three)
    convention = found if decimal == "auto" else Convention("," if decimal == "comma" else ".")
    is_plain = convention.decimal == "." and all(PLAIN.fullmatch(cell.strip()) for cell, _ in pairs)
    return PriceReading(convention, is_plain, currency, sum(currencies.values()), on_range)


def _is_plain(cells: list[str]) -> bool:
    """Whether all prices are as programs write them, and one at least can't be thousands parted by a point."""
    if not all(PLAIN.fullmatch(cell.strip()) for cell in cells):
        return False
    pointed = [cell for cell in cells if "." in cell]
    return not pointed or any(not _MAY_BE_THOUSANDS.fullmatch(cell.strip()) for cell in pointed)


def price_values(column: pa.ChunkedArray, name: str, reading: PriceReading) -> list[float | str]:
    """Each price as a number, or the reason why it is none."""
    if is_number(column.type):
        numbers = column.cast(pa.float64(), safe=False).to_pylist()
        return ["price is missing" if number is None else number for number in numbers]
    return [_price(cell, reading) for cell in as_text(column, name).to_pylist()]


def describe(reading: PriceReading, name: str) -> str | None:
    """How prices were read, for people; None where there is nothing to say."""
    if reading.is_plain and reading.convention.is_sure:
        return None
    thousands, decimals = (
        ("a comma", "a point") if reading.convention.decimal == "." else ("a point", "a comma")
    )
    said = f"prices of {name!r} are read as {reading.convention.example}: {thousands} separates thousands, {decimals} decimals"
    if not reading.convention.is_sure:
        other = "point" if reading.convention.decimal == "," else "comma"
        said += f" (no price tells for sure; pass '--decimal {other}' if it is the other way round)"
    if reading.currency is not None:
        said += f"; marked {reading.currency!r} in {reading.n_with_currency} rows"
    return said


def _price(cell: str | None, reading: PriceReading) -> float | str:
    number = parse_number(cell) if reading.convention.decimal == "." else None
    if number is not None:
        return number
    if cell is None or is_missing(cell):
        return "price is missing"
    one = _take_apart(cell)
    if one is None:
        return _no_number(cell)
    if one.number is not None:
        return one.number
    values = [number_of(core, reading.convention) for core in one.cores]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"price is not written as {reading.convention.example}: {cell.strip()[:60]!r}"
    if len(known) == 2:
        if reading.on_range == "mid":
            return sum(known) / 2
        return f"price is a range (--price-range mid takes its middle): {cell.strip()[:60]!r}"
    return -known[0] if one.is_negative else known[0]


def _take_apart(cell: str) -> _Written | None:
    stripped = cell.strip()
    if len(stripped) > MOST_CHARACTERS:
        return None
    if PLAIN.fullmatch(stripped) and not _CORE.fullmatch(stripped.lstrip("+-")):
        return _Written((), number=float(stripped))  # an exponent, infinity, or a point at the end
    stripped = _LABELS.sub("", stripped)
    one = _single(stripped)
    if one is not None:
        return one
    parts = _BETWEEN.split(stripped)
    sides = [_single(part) for part in parts] if len(parts) == 2 else []
    if len(sides) == 2 and sides[0] is not None and sides[1] is not None:
        if sides[0].is_negative or sides[1].is_negative:
            return None
        return _Written(sides[0].cores + sides[1].cores, currency=sides[0].currency or sides[1].currency)
    return None


def _single(text: str) -> _Written | None:
    match = _PRICE.fullmatch(text)
    if match is None:
        return None
    before, after = match["before"].strip(), match["after"].strip()
    is_negative = any(sign in before for sign in "-−")
    before = before.strip(_SIGNS + " ")
    if after in _WHOLE or not after:
        after = ""
    elif before:
        return None
    currency = before or after
    if currency and currency_of(currency) is None:
        return None
    return _Written((match["core"],), is_negative, currency or None)


def _no_number(cell: str) -> str:
    return f"price is not a number: {cell.strip()[:60]!r}"
