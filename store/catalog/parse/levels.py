"""Levels of a category, however the file or frame that they come from writes them."""

import re
from collections.abc import Mapping, Set
from functools import lru_cache

import pyarrow as pa

# What text becomes of columns of floats that hold whole numbers, and of timestamps.
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[ T]00:00(?::00(?:\.0+)?)?|([ T]\d{2}:\d{2}:\d{2})\.0+)")


def in_known_spelling(cells: pa.Array, known: Set[str | None]) -> pa.Array:
    """Levels of other rows as the training rows write them: `True` and `true` are one level, and `2.0` and `2`.

    >>> in_known_spelling(pa.array(["True", "2.0", "red", None]), {"true", "2"}).to_pylist()
    ['true', '2', 'red', None]
    >>> in_known_spelling(pa.array(["2024-05-01"]), {"2024-05-01 00:00:00.000000"}).to_pylist()
    ['2024-05-01 00:00:00.000000']

    A level that is known stays as it is, and so does one that could be two of the known ones.

    Args:
        known: levels of the training rows; None, of rows without one, is no level.
    """
    spelling = _spellings(frozenset(level for level in known if level is not None))
    spelled = [
        cell if cell is None or cell in known else spelling.get(_plain(cell), cell)
        for cell in cells.to_pylist()
    ]
    return pa.array(spelled, pa.string())


@lru_cache(maxsize=256)
def _spellings(known: frozenset[str]) -> Mapping[str, str]:
    """The known level of each plain form that only one has."""
    found: dict[str, set[str]] = {}
    for level in known:
        found.setdefault(_plain(level), set()).add(level)
    return {plain: next(iter(levels)) for plain, levels in found.items() if len(levels) == 1}


def _plain(level: str) -> str:
    if level.lower() in ("true", "false"):
        return level.lower()
    if whole := _WHOLE.fullmatch(level):
        return whole[1]
    moment = _MOMENT.fullmatch(level)
    return moment[1] + (moment[2] or "") if moment else level
