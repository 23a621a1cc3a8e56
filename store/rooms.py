"""What each room reports about its part of a workspace, for `status` and `prune`.

A room is one of the packages store, embed, heads and ensemble, or a package that an entry point of the group
`shelfprice.rooms` adds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from store.config import Config
from store.workspace import Workspace

YOUNG_SECONDS = 3600.0  # files that are not older may belong to a running command


@dataclass(frozen=True)
class Section:
    """One subject of `shelfprice status`."""

    place: int  # sections stand in this order; the next command is that of the first one that has one
    subject: str  # in the margin
    lines: tuple[str, ...]  # for people
    record: dict[str, Any]  # for machines: keys of `status --json` with plain data or dataclasses
    step: tuple[str, str] | None = None  # the command that comes next (without -w), and why


@dataclass(frozen=True)
class Leftover:
    """Something that no configuration refers to and nothing that stands was made of."""

    path: str  # a file or folder
    n_bytes: int
    why: str
    locks: tuple[str, ...] = ()  # held while it is removed: where a writer holds one, it stays
    first: tuple[str, ...] = ()  # files that go before it, so that a part of it is never taken for the whole


@dataclass(frozen=True)
class Room:
    """One room's part of a workspace; every function only looks."""

    sections: Callable[[Workspace, Config], Iterable[Section]]
    leftovers: Callable[[Workspace, Config], Iterable[Leftover]]
    # Bytes on disk, kind -> bytes.
    disk: Callable[[Workspace], dict[str, int]]
    # Files and folders of other rooms that it needs.
    needs: Callable[[Workspace, Config], Iterable[str]] = lambda workspace, config: ()
    # What blending so many heads takes on a few rows: rows times heads, and seconds.
    measure_blend: Callable[[int], Iterable[tuple[int, float]]] = lambda n_heads: ()


def find_rooms() -> list[Room]:
    """Every installed room."""
    return [
        point.load() for point in sorted(entry_points(group="shelfprice.rooms"), key=lambda one: one.name)
    ]


def size_text(n_bytes: int) -> str:
    """Bytes in the unit that reads best."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
