"""Numbers among the words of a cell: `Intel Core i7 2.6GHz`, `128GB SSD + 1TB HDD`, `190Nm@ 2000rpm`, `3 bhk`."""

import re

from store.catalog.parse.measures import FAMILIES
from store.catalog.parse.units import SPELLINGS

MOST_DIGITS = 15  # more is a code
MOST_OF_ONE_KIND = 3  # numbers of one unit that are told apart in a cell, by their order

_NUMBER = re.compile(
    r"(?P<before>[^\W\d_]*)(?P<number>\d+(?:[.,]\d+)*)(?:[\s-]?(?P<unit>[^\W\d_]+(?:/[^\W\d_]+)?|[%\"″”°]))?"
)
_WORD_BEFORE = re.compile(r"([^\W\d_]+)\W{0,2}$")
_WORD_AFTER = re.compile(r"\W{0,2}([^\W\d_]+)")
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")


def cell_numbers(cell: str) -> dict[str, float]:
    """The numbers of a cell by what they count.

    A number is known by its unit (units of one dimension are one, in its base unit), and by its unit with the word
    that follows; one without a unit by the word before it, and as a plain number.

    >>> cell_numbers("Intel Core i7 2.6GHz")
    {'after i': 7.0, 'plain': 7.0, 'frequency': 2600000000.0}
    >>> cell_numbers("128GB SSD + 1TB HDD")["bytes hdd"]
    1000000000000.0
    """
    found: dict[str, float] = {}

    def add(kind: str, value: float) -> None:
        for place in range(1, MOST_OF_ONE_KIND + 1):
            key = kind if place == 1 else f"{kind} {place}"
            if key not in found:
                found[key] = value
                return

    for match in _NUMBER.finditer(cell):
        digits = _THOUSANDS.sub("", match["number"])
        if len(digits) > MOST_DIGITS or digits.count(".") + digits.count(",") > 1:
            continue  # a code, a version, an address
        value = float(digits.replace(",", "."))
        written = (match["unit"] or "").lower()
        unit = SPELLINGS.get(written, written)
        before = match["before"].lower()
        if unit:
            dimension, size = FAMILIES.get(unit, (unit, 1.0))
            add(dimension, value * size)
            if after := _WORD_AFTER.match(cell, match.end()):
                add(f"{dimension} {after[1].lower()}", value * size)
            continue
        if not before and (word := _WORD_BEFORE.search(cell, 0, match.start())):
            before = word[1].lower()
        if before:
            add(f"after {before}", value)
        add("plain", value)
    return found
