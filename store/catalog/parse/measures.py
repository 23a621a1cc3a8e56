"""Columns of numbers with a unit beside them: `8GB`, `1.37kg`, `18.9 kmpl`, `45%`, `4,5`."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from store.catalog.parse.currencies import currency_of
from store.catalog.parse.units import SPELLINGS, UNITS
from store.catalog.parse.written import (
    CORE,
    Convention,
    Mark,
    find_convention,
    number_of,
    parse_number,
    plain_characters,
)

_MEASURE = re.compile(rf"(?P<before>[^\d]{{0,8}}?)(?P<core>{CORE})(?P<unit>[^\d].{{0,23}})?", re.DOTALL)
_BEFORE = frozenset(("", "+", "~", "≈", "<", ">", "≤", "≥", "±"))
_BOUNDS = _BEFORE - {"", "+", "±"}
_NORMALISED = frozenset(SPELLINGS.values())
_MINUS = frozenset("-−–")
_MOST_CHARACTERS = 60
_LEAST_OF_WORD = 4  # letters of a unit that is a word with a plural, "km" and "gas" are none
# Units that are the same thing in another size: unit -> (dimension, size of one).
FAMILIES: dict[str, tuple[str, float]] = {
    **{unit: known for unit, known in UNITS.items() if known[0] != "count"},
    "mm": ("length", 0.001),
    "cm": ("length", 0.01),
    "meter": ("length", 1.0),
    "km": ("length", 1000.0),
    "inch": ("length", 0.0254),
    "foot": ("length", 0.3048),
    "kb": ("bytes", 1e3),
    "mb": ("bytes", 1e6),
    "gb": ("bytes", 1e9),
    "tb": ("bytes", 1e12),
    "hz": ("frequency", 1.0),
    "khz": ("frequency", 1e3),
    "mhz": ("frequency", 1e6),
    "ghz": ("frequency", 1e9),
    "w": ("power", 1.0),
    "watt": ("power", 1.0),
    "watts": ("power", 1.0),
    "kw": ("power", 1e3),
}


@dataclass(frozen=True)
class MeasureReading:
    """How the numbers of one column are written."""

    unit: str | None  # as written most often; None: no unit
    convention: Convention
    sizes: dict[str, float]  # unit, normalised -> what a number in it is multiplied by
    currency: str | None = None  # beside most of those numbers that have one

    def value_of(self, cell: str) -> float | None:
        """The number of a cell in `unit`; None where it is none, or one in another unit or currency."""
        measure = _measure_of(cell)
        if measure is None or measure.unit not in self.sizes:
            return None
        if self.currency is not None and measure.currency not in (None, self.currency):
            return None
        value = measure.number
        if value is None:
            value = number_of(measure.core, self.convention)
        return None if value is None else value * measure.sign * self.sizes[measure.unit]


@dataclass(frozen=True)
class _Measure:
    core: str
    unit: str  # normalised, "" where there is none
    spelling: str  # as written
    sign: int = 1
    number: float | None = None  # of a number that programs wrote, where marks do not decide
    currency: str | None = None
    is_bound: bool = False  # "<5", "~3"


def find_measures(cells: Sequence[str], told: Mark | None = None) -> tuple[MeasureReading, float] | None:
    """How most cells are read as numbers, and the share of cells that fit; None where none does.

    One unit, or units of one dimension, and one currency hold for a column; a number without a unit is taken to be in it.

    Args:
        told: the mark before decimals in the prices of the same file, see `find_convention`.
    """
    distinct = Counter(cells)
    found = {cell: measure for cell in distinct if (measure := _measure_of(cell)) is not None}
    units: Counter[str] = Counter()
    for cell, measure in found.items():
        units[measure.unit] += distinct[cell]
    dimensions: Counter[str] = Counter()
    for unit, n in units.items():
        if unit:
            dimensions[_dimension(unit)] += n
    main = max(dimensions, key=lambda d: dimensions[d], default="")
    if main and dimensions[main] < units[""]:
        main = ""
    taken = {unit for unit in units if not unit or (main and _dimension(unit) == main)}
    usual = max((unit for unit in taken if unit), key=lambda unit: units[unit], default="")
    spellings: Counter[str] = Counter()
    for cell, measure in found.items():
        if measure.unit == usual:
            spellings[measure.spelling] += distinct[cell]
    one = FAMILIES[usual][1] if usual in FAMILIES else 1.0
    dimension = {
        unit for unit, (name, _) in FAMILIES.items() if name == main
    }  # test rows may have others of them
    known = taken | dimension | _numbers_of(usual)
    sizes = {unit: FAMILIES[unit][1] / one if unit in FAMILIES else 1.0 for unit in sorted(known)}
    cores = (m.core for m in found.values() if m.unit in taken and m.number is None)
    currencies: Counter[str] = Counter()
    for cell, measure in found.items():
        if measure.currency is not None and measure.unit in taken:
            currencies[measure.currency] += distinct[cell]
    reading = MeasureReading(
        spellings.most_common(1)[0][0] if usual else None,
        find_convention(cores, told=told),
        sizes,
        currencies.most_common(1)[0][0] if currencies else None,
    )
    fitting = sum(n for cell, n in distinct.items() if reading.value_of(cell) is not None)
    return (reading, fitting / len(cells)) if fitting else None


def is_measure(cell: str) -> bool:
    """Whether a cell is one number, in whatever unit or currency."""
    return _measure_of(cell) is not None


def is_bound(cell: str) -> bool:
    """Whether a cell is a number with a mark before it that says that it is not exact, such as `<5` and `~3`."""
    measure = _measure_of(cell)
    return measure is not None and measure.is_bound


def _dimension(unit: str) -> str:
    return FAMILIES[unit][0] if unit in FAMILIES else f"unit {min(_numbers_of(unit), default=unit)}"


def _numbers_of(unit: str) -> set[str]:
    """A unit made of words in the singular and in the plural: `1 bedroom` stands beside `2 bedrooms`."""
    is_word = len(unit) >= _LEAST_OF_WORD and unit.replace(" ", "").isalpha()
    if unit in FAMILIES or not is_word or unit.endswith("ss"):
        return {unit} - {""}
    one = unit.removesuffix("s")
    return {one, f"{one}s"}


def _measure_of(cell: str) -> _Measure | None:
    stripped = plain_characters(cell)
    if len(stripped) > _MOST_CHARACTERS:
        return None
    match = _MEASURE.fullmatch(stripped)
    if match is None:
        number = parse_number(stripped)
        return None if number is None else _Measure("", "", "", number=number)
    if match["unit"] and (number := parse_number(stripped)) is not None:
        return _Measure("", "", "", number=number)  # an exponent, or a point at the end
    before = match["before"].strip()
    sign = -1 if _MINUS & set(before) else 1
    before = before.strip("-−– ")
    currency = currency_of(before)
    if before not in _BEFORE and currency is None:
        return None
    spelling = " ".join((match["unit"] or "").split())
    lowered = spelling.lower().rstrip(".")
    unit = SPELLINGS.get(lowered.replace(".", ""), lowered)
    if currency is None and unit not in _NORMALISED:
        currency = currency_of(unit)
    return _Measure(match["core"], unit, spelling, sign, currency=currency, is_bound=before in _BOUNDS)
