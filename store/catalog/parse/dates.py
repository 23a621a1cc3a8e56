"""Columns of dates: written dates -> days, and the numbers that heads learn from."""

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

MISSING_DAY = np.datetime64("NaT", "D")
FIRST_FAR_DAY = np.datetime64("9000-01-01", "D")  # such a day, mostly 9999-12-31, says that there is none
_TIME = r"(?:(?:[T,]| )\s*(?P<clock>\d{1,2}:\d{2}.{0,24}))?"
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d*)?))?\s*([ap])?", re.I)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = rf"(?P<month>(?:{'|'.join(_MONTHS)})[a-z]*)\.?"
_ORDINAL = r"(?:st|nd|rd|th)?"
_KINDS = {
    "year first": re.compile(rf"(?P<year>\d{{4}})[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}}){_TIME}"),
    "year last": re.compile(rf"(?P<first>\d{{1,2}})[-/.](?P<second>\d{{1,2}})[-/.](?P<year>\d{{4}}){_TIME}"),
    "day month": re.compile(
        rf"(?P<day>\d{{1,2}}){_ORDINAL}[ -]{_MONTH}[ ,-]+(?P<year>\d{{4}}|\d{{2}}){_TIME}", re.I
    ),
    "month day": re.compile(rf"{_MONTH} (?P<day>\d{{1,2}}){_ORDINAL},? (?P<year>\d{{4}}){_TIME}", re.I),
}
_MOST_CHARACTERS = 60


def find_dates(cells: Sequence[str]) -> tuple[str, float] | None:
    """The kind of dates that most cells are written in, and the share of cells that fit; None where none does.

    Kinds are "year first", "day first", "month first", "day month" and "month day" (these two with the month's name).
    """
    distinct = Counter(cell.strip() for cell in cells)
    best = max(_KINDS, key=lambda kind: sum(n for cell, n in distinct.items() if _match(kind, cell)))
    kind = best
    if best == "year last":
        n_day_first, n_month_first = _n_telling(distinct)
        kind = "month first" if n_month_first > n_day_first else "day first"
    fitting = sum(n for cell, n in distinct.items() if not np.isnat(day_of(cell, kind)))
    return (kind, fitting / len(cells)) if fitting else None


def tells_order(cells: Iterable[str]) -> bool:
    """Whether written dates with the year last tell which of the others is the day, as 25/01/2024 does."""
    n_day_first, n_month_first = _n_telling(cell.strip() for cell in cells)
    return n_day_first != n_month_first


def _n_telling(cells: Iterable[str]) -> tuple[int, int]:
    """How many dates have the day first, and the month, for sure."""
    pairs = [(int(m["first"]), int(m["second"])) for cell in cells if (m := _match("year last", cell))]
    return sum(first > 12 for first, _ in pairs), sum(second > 12 for _, second in pairs)


def day_of(cell: str, kind: str) -> np.datetime64:
    """The day of a written date; not a time where it is none of this kind."""
    match = _match_of(kind, cell)
    if match is None:
        return MISSING_DAY
    found = match.groupdict()
    if kind == "day first":
        found |= {"day": found["first"], "month": found["second"]}
    elif kind == "month first":
        found |= {"day": found["second"], "month": found["first"]}
    month = found["month"]
    number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
    try:
        year = int(found["year"])
        if len(found["year"]) == 2:
            year += 2000 if year < 69 else 1900  # as POSIX reads two digits
        return np.datetime64(datetime.date(year, number, int(found["day"])), "D")
    except ValueError:
        return MISSING_DAY


def part_of_day(cell: str, kind: str) -> float:
    """The time of day that is written beside a date, as a part of the day from 0 to 1; 0 where none is."""
    match = _match_of(kind, cell)
    clock = match and match["clock"] and _CLOCK.match(match["clock"])
    if not clock:
        return 0.0
    hours, minutes, seconds, half = clock.groups()
    hour = int(hours) if half is None else int(hours) % 12 + 12 * (half.lower() == "p")
    return min((hour * 3600 + int(minutes) * 60 + float(seconds or 0)) / 86_400, 1.0)


def date_numbers(days: np.ndarray, last: np.datetime64) -> dict[str, np.ndarray]:
    """What is learned from days, datetime64[D] of shape (n_rows,): each float64, NaN where missing.

    Args:
        last: the last day of the training rows, from which the age is counted back.
    """
    known = ~np.isnat(days)
    months = days.astype("datetime64[M]").astype(np.int64)
    numbers = {
        "year": 1970 + months // 12,
        "month": 1 + months % 12,
        "weekday": 1 + (days.astype(np.int64) + 3) % 7,  # 1: Monday
        "age in days": (last - days).astype(np.int64),
    }
    return {part: np.where(known, values, np.nan) for part, values in numbers.items()}


def _match_of(kind: str, cell: str) -> re.Match[str] | None:
    return _match("year last" if kind in ("day first", "month first") else kind, cell.strip())


def _match(kind: str, cell: str) -> re.Match[str] | None:
    return _KINDS[kind].fullmatch(cell) if len(cell) <= _MOST_CHARACTERS else None
