"""The weights and volumes written in an item name: "8 Fl Oz", "1 1/2 lb", "6 x 330 ml", "24-1 ounce"."""

import re
from dataclasses import dataclass

from store.catalog.parse.units import MOST_AMOUNT, SPELLINGS, UNITS

Span = tuple[int, int]

# All patterns read lower case and start with a plain character class, which `re` scans fast. A number starts where
# no word, point or slash runs into it ("x500", "1.5", "1/4"), but "12x24 oz" holds two.
_SIZE = re.compile(
    r"(?P<number>[0-9.](?:(?<![\w./].)(?<!\d,.)|(?<=\d[x×].))[0-9.,/]*(?: [0-9]/[0-9])?)"
    r"[\s-]*"
    r"(?P<unit>fl(?:uid)?[\s.-]*(?:oz|ounces?)|fz|ounces?|ozs?|lbs?|pounds?|kgs?|kilos?|kilograms?|gra?ms?|gms?|gr|g"
    r"|mls?|millilit(?:er|re)s?|cl|lit(?:er|re)s?|ltrs?|lt|l|gal(?:lon)?s?|qts?|quarts?|pints?)"
    r"(?!\w|/m|'s|\s*[x×]\s*\d+(?:\.\d+)?\s*[bdhw]\b)"  # "23L x 23B" are lengths
)
# "15g protein", "5.4 oz cotton", "150 kg capacity": the number speaks of something else than what is sold.
_OF_SOMETHING = re.compile(
    r"[\s)]*(?:of |per |net |total |added |whey |plant[- ]|low |less |grass[- ]fed )*"
    r"(?:protein|carb|sugar|fib(?:er|re)|fats?\b|sodium|caffeine|collagen|calorie|serving|bcaa|cbd|thc|vitamin|omega"
    r"|electrolyte|cotton|fleece|canvas|denim|sq|(?:load |weight |max )?capacity)"
)
_UP_TO = re.compile(r"(?:up ?to|holds?|supports?|capacity:?|makes|less than|max\.?) *$")
_RANGE = re.compile(r"\d *[-–] *$")  # "for babies of 9-14 kg"
_TIMES_BEFORE = re.compile(
    r"(?<![\w.])(?<!\d,)\(?(?P<number>[0-9]{1,4})\)?"
    r"(?P<how>\s*(?P<noun>(?:[a-z-]+\s+){0,2})(?:[x×]|of)\s*|\s*-\s*|\)\s*)$"
)
_TIMES_AFTER = re.compile(r"\s*(?:[a-z]+\s*)?[x×]\s*(?P<number>[0-9]{1,3})(?![\w.])")
_EACH = re.compile(r"\s*(?:each|ea)\b")
_WIRELESS = frozenset((2, 3, 4, 5, 6))  # a phone's 5G


@dataclass(frozen=True, slots=True)
class Size:
    """A weight or volume written in a name."""

    amount: float  # of one, in the dimension
    dimension: str  # "g" or "ml"
    is_plain_ounce: bool = False  # "oz" alone, which sellers write for fluid ounces as well
    times: int = 1  # 6 of "6 x 330 ml", "10 bags of 330 ml", "330 ml x 6"
    is_each: bool = False
    start: int = -1


class Taken:
    """Which characters of a name belong to a number that was read: found in time that is linear in the name."""

    def __init__(self, n_characters: int = 0) -> None:
        self._mask = bytearray(n_characters)

    def add(self, span: Span) -> None:
        start, end = span
        self._mask[start:end] = b"\x01" * (end - start)

    def meets(self, span: Span) -> bool:
        """Whether any character of a span is taken."""
        return self._mask.find(1, *span) >= 0


def find_sizes(lowered: str, name: str, taken: Taken) -> tuple[Size, ...]:
    """Every size in a name, in order.

    Args:
        lowered: the name in lower case, character for character.
        name: as given.
        taken: the spans of the numbers read are added to it.
    """
    sizes: list[Size] = []
    for match in _SIZE.finditer(lowered):
        start, end = match.span()
        number = _decimal(match["number"].rstrip(".,/"))
        if not 0 < number <= MOST_AMOUNT or (
            name[end - 1] == "G" and name[end - 2].isdigit() and number in _WIRELESS
        ):
            continue
        if _OF_SOMETHING.match(lowered, end) or _UP_TO.search(lowered, max(0, start - 14), start):
            continue
        times, span = _times(lowered, start, end, number)
        if span is not None:
            taken.add(span)
        elif _RANGE.search(lowered, max(0, start - 6), start):
            continue
        taken.add((start, end))
        unit = SPELLINGS[re.sub(r"[\s.-]", "", match["unit"])]
        dimension, size = UNITS[unit]
        is_each = _EACH.match(lowered, end) is not None
        sizes.append(Size(number * size, dimension, unit == "ounce", times, is_each, start))
    return tuple(sizes)


def _times(lowered: str, start: int, end: int, number: float) -> tuple[int, Span | None]:
    before = _TIMES_BEFORE.search(lowered, max(0, start - 24), start)
    if before:
        times = int(before["number"])
        how = before["how"].strip(" )")
        is_bracketed = lowered[before.start("number") - 1 : before.start("number")] == "("  # "(40) 6 oz"
        is_measure = (before["noun"] or "").strip() in SPELLINGS  # "30 kg x 1 g" of a scale
        is_range = how == "-" and times <= number  # "4-6 oz", but not "24-1 ounce bags"
        if times > 1 and not is_measure and not is_range and (how or is_bracketed):
            return times, before.span("number")
    after = _TIMES_AFTER.match(lowered, end)
    if after and int(after["number"]) > 1:
        return int(after["number"]), after.span("number")
    return 1, None


def _decimal(text: str) -> float:
    """The number as written: "1,000", "7,2", "1/2", "1 1/2"; 0 where it is none ("1.2.3")."""
    whole, _, part = text.rpartition(" ")
    try:
        if "/" in part:
            numerator, denominator = part.split("/")
            return float(whole or 0) + float(numerator) / float(denominator)
        if "," in part and len(part.split(",")[1].split(".")[0]) != 3:
            return float(part.replace(",", "."))
        return float(part.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return 0.0
