"""Numbers as people write them: `1,299.00`, `1.299,00`, `1 299`, `12'500`, `1,23,456`.

Which mark separates thousands and which separates decimals is found from a column as a whole: `1,299` alone can be both.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Mark = Literal[".", ","]
PLAIN = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE | re.ASCII
)
_FULL_WIDTH = (0x3000, *range(0xFF01, 0xFF5F), *range(0xFFE0, 0xFFE7))
_USUAL = {code: unicodedata.normalize("NFKC", chr(code)) for code in _FULL_WIDTH}
GROUP_MARKS = " \u00a0\u2009\u202f'\u2019"  # part thousands wherever they are written
# A run of digits and marks that ends in a digit; no two marks in a row. "Rs.499" is no ".499".
CORE = rf"(?:(?<![^\W\d_])[.,])?[0-9]+(?:[.,{GROUP_MARKS}][0-9]+)*"
MOST_DIGITS = 400  # of one number; more is no number, and a float could not hold it
_MUCH_NEARER = float(np.log(10))  # on a log scale
_NEAR = 10  # times the largest number without a mark
_POINT_OF_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
_MARKED = re.compile(rf"[.,{GROUP_MARKS}]")


@dataclass(frozen=True)
class Convention:
    """How the numbers of one column are written."""

    decimal: Mark = "."
    is_sure: bool = True  # False: every number with a mark could be read either way

    @property
    def example(self) -> str:
        """One number in this convention."""
        return "1,299.50" if self.decimal == "." else "1.299,50"


def plain_characters(written: str) -> str:
    """A cell without blanks around it, out of the `="…"` of spreadsheets, and full-width characters as the usual ones."""
    stripped = written.strip()
    if stripped[:2] == '="' and stripped[-1] == '"' and len(stripped) > 3:
        stripped = stripped[2:-1].strip()
    return stripped if stripped.isascii() else stripped.translate(_USUAL)


def parse_number(written: str | None) -> float | None:
    """The number of a cell in the usual notation of programs, NaN and infinity included; None where it holds another."""
    if written is None:
        return None
    stripped = plain_characters(written)
    return float(stripped) if len(stripped) <= MOST_DIGITS and PLAIN.fullmatch(stripped) else None


def number_of(core: str, convention: Convention) -> float | None:
    """The value of a core (digits and marks) in a convention; None where its marks do not fit it."""
    if len(core) > MOST_DIGITS:
        return None
    whole, mark, part = core.rpartition(convention.decimal)
    if not mark:
        whole, part = core, ""
    marks = set(_MARKED.findall(whole))
    if len(marks) > 1 or convention.decimal in marks or _MARKED.search(part):
        return None
    if marks:
        first, *middle, last = whole.split(marks.pop())
        if not 1 <= len(first) <= 3 or len(last) != 3 or any(len(group) not in (2, 3) for group in middle):
            return None
        whole = "".join((first, *middle, last))
    return float(f"{whole or '0'}.{part or '0'}")


def find_convention(
    cores: Iterable[str], *, has_three_decimals: bool | None = True, told: Mark | None = None
) -> Convention:
    """The convention that fits a column.

    A number says which one holds when it has both marks (`1,299.00`), one mark twice (`1,299,000`), or one mark that
    does not stand before exactly three digits (`4,5`). Where no number does, a comma separates thousands and a point
    decimals, unless the other brings the numbers much nearer to those without a mark (`1.299` beside `499` and `899`).
    Thousands may lie far from those: a column of `82,000` and `1,200` has `320` and `5` in it where it goes down to zero.

    Args:
        told: the mark before decimals in the prices of the same file, where those tell; it takes the place of the point.
        has_three_decimals: whether decimals of three digits are usual, as in weights; None: rare, as in prices; False:
            there are none, as in prices with a currency beside them.
    """
    votes = {".": 0, ",": 0}
    doubtful: list[str] = []
    unmarked: list[float] = []
    for core in cores:
        if len(core) > MOST_DIGITS:
            continue
        decimal = _decimal_mark(core)
        if decimal in votes:
            votes[decimal] += 1
        elif decimal == "?":
            doubtful.append(core)
        elif not _MARKED.search(core):
            unmarked.append(float(core))
    if votes["."] or votes[","]:
        return Convention("." if votes["."] >= votes[","] else ",")
    marks = {mark for mark in ".," for core in doubtful if mark in core}
    if len(marks) != 1:
        return Convention(is_sure=not doubtful)
    as_decimal: Mark = "." if "." in marks else ","
    as_thousands: Mark = "," if "." in marks else "."
    usual = [value for value in unmarked if value > 0]
    is_sure = bool(usual) and max(usual) < 1000
    if has_three_decimals is False or (has_three_decimals is None and as_decimal == ","):
        return Convention(as_thousands, is_sure)
    expected = told or "."
    if not usual:
        return Convention(expected, told is not None)
    gain = _distance(doubtful, as_decimal, usual) - _distance(doubtful, as_thousands, usual)
    is_thousands = (
        gain > _MUCH_NEARER
        if as_decimal == expected
        else gain > -_MUCH_NEARER or _go_on(doubtful, as_thousands, usual)
    )
    decimal = as_thousands if is_thousands else as_decimal
    return Convention(decimal, decimal == told or (is_sure and is_thousands))


def told_mark(cores: Iterable[str]) -> Mark | None:
    """The mark before decimals, by the numbers that can be read in one way alone; None where there is none, or a tie."""
    votes = Counter(
        mark for core in cores if len(core) <= MOST_DIGITS and (mark := _decimal_mark(core)) in (".", ",")
    )
    if votes["."] == votes[","]:
        return None
    return "." if votes["."] > votes[","] else ","


def may_be_thousands(cells: Iterable[str]) -> bool:
    """Whether every point among these numbers stands before exactly three digits (`1.299`), and one does."""
    pointed = [cell.strip() for cell in cells if "." in cell]
    return bool(pointed) and all(_POINT_OF_THOUSANDS.fullmatch(cell) for cell in pointed)


def _decimal_mark(core: str) -> str:
    """ "." or "," where the number tells, "?" where it has one mark that could be either, "" where it has none."""
    marks = [mark for mark in _MARKED.findall(core) if mark in ".,"]
    if not marks:
        return ""
    if len(set(marks)) == 2:
        return marks[-1]
    mark = marks[0]
    if len(marks) > 1:
        return "," if mark == "." else "."
    head, _, tail = core.partition(mark)
    is_group = len(tail) == 3 and 1 <= len(head) <= 3 and not head.startswith("0")
    return "?" if is_group else mark


def _go_on(cores: list[str], decimal: Mark, usual: list[float]) -> bool:
    """Whether numbers with a mark begin near where those without one end, as thousands and hundreds of a column do."""
    values = [value for core in cores if (value := number_of(core, Convention(decimal)))]
    return bool(values) and min(values) <= _NEAR * max(usual)


def _distance(cores: list[str], decimal: Mark, usual: list[float]) -> float:
    """How far numbers are from the usual ones, on a log scale."""
    values = [value for core in cores if (value := number_of(core, Convention(decimal)))]
    return float(abs(np.median(np.log(values)) - np.median(np.log(usual)))) if values else np.inf
