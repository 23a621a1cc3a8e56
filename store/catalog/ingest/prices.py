"""The price column: written prices -> numbers, by one convention and in one currency."""

import re
from collections import Counter
from dataclasses import dataclass, replace

import pyarrow as pa

from store.catalog.ingest.cells import as_text, is_missing, is_number
from store.catalog.parse.currencies import THREE_DECIMALS, currency_of
from store.catalog.parse.written import (
    CORE,
    PLAIN,
    Convention,
    Mark,
    find_convention,
    may_be_thousands,
    number_of,
    parse_number,
    plain_characters,
    told_mark,
)
from store.config import DecimalMark, RangePolicy
from store.errors import CatalogError

_SIGNS = "+-−"
_CORE = re.compile(CORE)
_PRICE = re.compile(rf"(?P<before>[^\d]*?)(?P<core>{CORE})(?P<after>[^\d]*)", re.DOTALL)
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
    told: Mark | None = None  # before decimals, where the prices or the user tell it


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
        told: Mark | None = "." if decimal == "point" or any("." in cell for cell in present) else None
        return PriceReading(Convention(), True, None, 0, on_range, told)
    pairs = [(cell, one) for cell in present if (one := _take_apart(cell)) is not None]
    taken = [one for _, one in pairs]
    currencies = Counter(one.currency for one in taken if one.currency is not None)
    by_kind = _by_kind(currencies)
    if len(by_kind) > 1:
        counts = ", ".join(f"{kind} in {n} rows" for kind, n in by_kind.most_common())
        raise CatalogError(
            f"column {name!r} holds prices in {len(by_kind)} currencies ({counts}): nothing is converted: keep the "
            "rows of one currency, or convert the prices yourself"
        )
    currency = currencies.most_common(1)[0][0] if currencies else None
    kind = currency_of(currency) if currency is not None else None
    cores = [core for one in taken for core in one.cores]
    three = True if kind in THREE_DECIMALS else None if kind is None else False
    found = find_convention(cores, has_three_decimals=three)
    convention = found if decimal == "auto" else Convention("," if decimal == "comma" else ".")
    is_plain = convention.decimal == "." and all(PLAIN.fullmatch(cell.strip()) for cell, _ in pairs)
    is_told = decimal != "auto" or (convention.is_sure and any("." in core or "," in core for core in cores))
    told = convention.decimal if is_told else None
    return PriceReading(convention, is_plain, currency, sum(currencies.values()), on_range, told)


def read_prices_beside(
    column: pa.ChunkedArray,
    name: str,
    trained: PriceReading,
    decimal: DecimalMark,
    paths: tuple[str, str],
) -> PriceReading:
    """How the prices of a test file are written: as those of the training file, but for a mark that its own prices tell.

    Args:
        paths: of the training file and the test file.

    Raises:
        CatalogError: they are in another currency than those of the training file, or in several.
    """
    if is_number(column.type):
        return trained
    own = read_prices(column, name, decimal, trained.on_range)
    kinds = [currency_of(one.currency) for one in (trained, own) if one.currency is not None]
    if len(set(kinds)) > 1:
        raise CatalogError(
            f"column {name!r} holds prices in {kinds[0]} ({trained.n_with_currency} rows of {paths[0]}) and in {kinds[1]} "
            f"({own.n_with_currency} rows of {paths[1]}): nothing is converted, so convert one of them, or take the column "
            f"out of {paths[1]}"
        )
    if decimal == "auto":
        present = (cell for cell in as_text(column, name).to_pylist() if not is_missing(cell))
        told = told_mark(
            core for cell in present if (one := _take_apart(cell)) is not None for core in one.cores
        )
        if told is not None and told != trained.convention.decimal:
            return replace(own, convention=Convention(told))
    return replace(own, convention=trained.convention)


def _by_kind(currencies: Counter[str]) -> Counter[str]:
    by_kind: Counter[str] = Counter()
    for spelling, n in currencies.items():
        by_kind[currency_of(spelling) or ""] += n
    return by_kind


def _is_plain(cells: list[str]) -> bool:
    """Whether all prices are as programs write them, and one at least can't be thousands parted by a point."""
    return all(PLAIN.fullmatch(cell.strip()) for cell in cells) and not may_be_thousands(cells)


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
    stripped = plain_characters(cell)
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
