"""Catalogue text -> fields: the columns of `store.schema.CATALOG_COLUMNS` that are read out of it.

The challenge writes a row as lines (`Item Name:`, `Bullet Point 1:`, `Product Description:`, `Value:`, `Unit:`),
of which any may be missing and any may run over several lines. Text without them is taken as it stands: its first
line is the name, the rest the description.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from store.catalog.parse.packs import NOTHING, find_packs
from store.catalog.parse.quantity import decide_quantity
from store.catalog.parse.sizes import Taken
from store.catalog.parse.units import MOST_AMOUNT, SPELLINGS, normalise
from store.schema import CATALOG_COLUMNS, NUMBERS_TYPE

FIELDS_VERSION = 3  # raised when the same text yields other fields: the catalogue is then parsed again
MOST_NUMBERS = 32  # kept of one row, in the order of the text

_LABEL = re.compile(r"(Item Name|Bullet Point(?: ?\d+)?|Product Description|Value|Unit) ?: ?", re.IGNORECASE)
_LABEL_INITIALS = frozenset("IBPVUibpvu")
_DIGIT = re.compile(r"\d")
_COUNT_WORD = re.compile(
    r"(?:pack|set|box|case|bundle)s? of |[ne][ -]pack|dozen", re.IGNORECASE
)  # without a digit
_NUMBER = re.compile(
    r"([0-9](?<![\w.,/].)[0-9]*(?:,[0-9]{3})*(?:\.[0-9]+)?)[ -]?"
    r"([Ss][Qq]\.? ?(?:[Mm]|[Ff][Tt])\b|[Mm]2\b|[A-Za-z]+²?|[\"″”%°])"
)
_VALUE = re.compile(r"[+-]?\d[\d,]*\.?\d*|\.\d+")
# Words that say nothing of the number before them.
_NO_WORD = frozenset(
    "a an and are as at by for from in is it of on or that the to with x th st nd rd".split()
)


@dataclass(frozen=True, slots=True)
class Fields:
    """What one catalogue text says; units as in `store.schema.CATALOG_COLUMNS`."""

    name: str | None = None
    bullets: list[str] = field(default_factory=list)
    description: str | None = None
    value: float | None = None
    unit: str | None = None
    pack_count: float = 1.0
    quantity: float | None = None
    quantity_unit: str | None = None
    numbers: list[tuple[float, str]] = field(default_factory=list)


def may_state_quantity(text: str) -> bool:
    """Whether a text holds a digit or words such as `pack of` or `dozen`: without any it states no quantity."""
    return _DIGIT.search(text) is not None or _COUNT_WORD.search(text) is not None


def is_labelled(text: str) -> bool:
    """Whether a text is written in the labelled lines of the challenge."""
    return any(line[0] in _LABEL_INITIALS and _LABEL.match(line) for line in text.splitlines() if line)


def parse_fields(text: str) -> Fields:
    """The fields of one catalogue text, any text at all; nothing raises."""
    name, bullets, description, value_line, unit_line = _sections(text)
    has_digit = _DIGIT.search(name) is not None
    packs = find_packs(name) if may_state_quantity(name) else NOTHING
    value = _value(value_line)
    unit = normalise(unit_line) if unit_line else None
    quantity = decide_quantity(value, unit, packs)
    numbers: list[tuple[float, str]] = []
    if has_digit:
        _collect(name, packs.taken, numbers)
    for part in (*bullets, description):
        if part and len(numbers) < MOST_NUMBERS:
            _collect(part, None, numbers)
    return Fields(
        name=name or None,
        bullets=bullets,
        description=description or None,
        value=value,
        unit=unit.name if unit is not None else None,
        pack_count=quantity.pack_count,
        quantity=quantity.amount,
        quantity_unit=quantity.dimension,
        numbers=numbers,
    )


def field_columns(texts: Iterable[str]) -> dict[str, pa.Array]:
    """The parsed columns of many texts, one array of shape (n_rows,) per column of the catalogue."""
    rows = [parse_fields(text) for text in texts]
    columns = {
        name: pa.array([getattr(row, name) for row in rows], CATALOG_COLUMNS[name])
        for name in ("name", "description", "value", "unit", "pack_count", "quantity", "quantity_unit")
    }
    columns["bullets"] = _list_array(
        [len(row.bullets) for row in rows],
        pa.array([bullet for row in rows for bullet in row.bullets], pa.string()),
    )
    pairs = [pair for row in rows for pair in row.numbers]
    columns["numbers"] = _list_array(
        [len(row.numbers) for row in rows],
        pa.StructArray.from_arrays(
            [
                pa.array([number for number, _ in pairs], pa.float64()),
                pa.array([word for _, word in pairs], pa.string()),
            ],
            fields=list(NUMBERS_TYPE.value_type),
        ),
    )
    return columns


def _list_array(lengths: list[int], values: pa.Array) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _sections(text: str) -> tuple[str, list[str], str, str, str]:
    """(name, bullets, description, value line, unit line), "" where missing."""
    name, value, unit = "", "", ""
    bullets: list[str] = []
    descriptions: list[str] = []
    has_label = False
    free: list[str] = []  # lines before any label
    target, lines = "", [""]

    for line in (*text.splitlines(), None):
        match = _LABEL.match(line) if line and line[0] in _LABEL_INITIALS else None
        if line is not None and match is None:
            if not has_label:
                free.append(line)
            elif line.strip():
                lines.append(line)
            continue
        part = "\n".join(lines if lines[0] else lines[1:]).strip()
        if target == "i":
            name = name or part
        elif target == "b" and part:
            bullets.append(part)
        elif target == "p" and (part or descriptions):
            descriptions.append(part)
        elif target == "v":
            value = part
        elif target == "u":
            unit = part
        if match is not None and line is not None:
            has_label = True
            target, lines = line[0].lower(), [line[match.end() :]]
    description = "\n".join(descriptions)
    lines = [line.strip() for line in free if line.strip()]
    if lines and not name:
        name, lines = lines[0], lines[1:]
    if lines:
        description = "\n".join([*lines, description] if description else lines)
    return name, bullets, description, value, unit


def _value(line: str) -> float | None:
    match = _VALUE.match(line)
    value = float(match[0].replace(",", "")) if match else None
    return value if value is not None and abs(value) <= MOST_AMOUNT else None


def _collect(part: str, taken: Taken | None, numbers: list[tuple[float, str]]) -> None:
    """Append the numbers of one part that have a word and were not taken as a size or a count, up to `MOST_NUMBERS`."""
    for match in _NUMBER.finditer(part):
        lowered = match[2].lower()
        word = SPELLINGS.get(lowered.replace(".", "").replace(" ", ""), lowered)
        number = float(match[1].replace(",", ""))
        if number > MOST_AMOUNT or lowered in _NO_WORD or (len(word) == 1 and word not in "%°"):
            continue
        if taken is not None and taken.meets(match.span(1)):
            continue
        numbers.append((number, word))
        if len(numbers) == MOST_NUMBERS:
            return
