"""Levels of a category, however the file or frame that they come from writes them."""

import re
from collections.abc import Mapping, Set
from functools import lru_cache

import pyarrow as pa

_WHOLE = re.compile(r"([+-]?\d+)\.0+")  # a whole number, as a column of floats becomes text


def in_known_spelling(cells: pa.Array, known: Set[str | None]) -> pa.Array:
    """Levels of other rows as the training rows write them: `True` and `true` are one level, and `2.0` and `2`.

    >>> in_known_spelling(pa.array(["True", "2.0", "red", None]), {"true", "2"}).to_pylist()
    ['true', '2', 'red', None]

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
    whole = _WHOLE.fullmatch(level)
    return whole[1] if whole else level
