"""`shelfprice prune`: removes files that the configuration does not use and that no current result was made of."""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import click

from store.config import Config, load_config
from store.options import json_option, print_json, say, workspace_option
from store.rooms import Leftover, Room, find_rooms, size_text
from store.workspace import Workspace

LISTED = 8  # leftovers of one kind that are listed one by one


@dataclass(frozen=True)
class Pruned:
    """What became of the leftovers."""

    removed: tuple[Leftover, ...]
    busy: tuple[Leftover, ...]  # a run at work holds their lock
    outside: tuple[Leftover, ...] = ()  # behind a link that leads out of the workspace


class _BusyError(Exception):
    """Another process holds a lock."""


def find_leftovers(workspace: Workspace, config: Config) -> list[Leftover]:
    """Everything that may go, and what would but lies behind a link out of the workspace; only looks."""
    found = [one for room in find_rooms() for one in _leftovers(room, workspace, config)]
    paths = {one.path for one in found}
    return [one for one in found if not any(folder in paths for folder in _folders_above(one.path))]


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _leftovers(room: Room, workspace: Workspace, config: Config) -> list[Leftover]:
    needed = {path for other in find_rooms() for path in other.needs(workspace, config)}
    return [one for one in room.leftovers(workspace, config) if one.path not in needed]


def remove_leftovers(workspace: Workspace, config: Config) -> Pruned:
    """Remove them, each under its locks and only if it still is one then; what a run at work holds stays.

    Raises:
        WorkspaceError: something can't be removed.
    """
    removed: list[Leftover] = []
    outside: list[Leftover] = []
    busy: list[Leftover] = []
    for room in find_rooms():
        found = _leftovers(room, workspace, config)
        for locks in dict.fromkeys(one.locks for one in found):
            try:
                with ExitStack() as held:
                    for lock in locks:
                        held.enter_context(workspace.lock(lock, _give_up))
                    for one in _leftovers(room, workspace, config) if locks else found:
                        if one.locks == locks and not workspace.holds(one.path):
                            outside.append(one)
                        elif one.locks == locks:
                            _remove(workspace, one)
                            removed.append(one)
            except _BusyError:
                busy += [one for one in found if one.locks == locks]
    return Pruned(tuple(removed), tuple(busy), tuple(outside))


def _give_up() -> None:
    raise _BusyError


def _remove(workspace: Workspace, one: Leftover) -> None:
    for path in (*one.first, one.path):
        workspace.remove(path)


@click.command()
@click.option("--yes", is_flag=True, help="Remove them; without it they are only listed.")
@workspace_option
@json_option
def prune(yes: bool, workspace: Workspace, as_json: bool) -> None:
    """List what is no longer needed, and remove it with --yes.

    It lists superseded predictions and blends, vectors of encoders that the configuration does not name, old tuning,
    images that no link names, and incomplete files of killed runs. Current results are never removed, and neither are
    files that a running command may need.

    \b
    Examples:
      shelfprice prune -w run
      shelfprice prune --yes -w run
    """
    config = load_config(workspace)
    if yes:
        pruned = remove_leftovers(workspace, config)
    else:
        held = {one: workspace.holds(one.path) for one in find_leftovers(workspace, config)}
        inside, outside = (tuple(one for one in held if held[one] is way) for way in (True, False))
        pruned = Pruned(inside, (), outside)
    found = pruned.removed
    if as_json:
        told = [
            [{"path": o.path, "n_bytes": o.n_bytes, "why": o.why} for o in of] for of in (found, pruned.busy)
        ]
        print_json({"leftovers": told[0], "busy": told[1], "removed": yes, "n_bytes": _n_bytes(found)})
        return
    for line in _lines(found):
        say(line)
    total = f"{len(found):,} of them, {size_text(_n_bytes(found))}"
    if not found:
        say("nothing to remove")
    else:
        say(f"removed: {total}" if yes else f"to remove: {total}; run 'shelfprice prune --yes'")
    for one in pruned.busy:
        say(f"{one.path} stays: a run at work holds its lock", err=True)
    for one in pruned.outside:
        say(f"{one.path} stays: it lies behind a link out of the workspace; delete it there", err=True)


def _n_bytes(leftovers: Sequence[Leftover]) -> int:
    return sum(one.n_bytes for one in leftovers)


def _lines(leftovers: Sequence[Leftover]) -> Iterator[str]:
    by_why: dict[str, list[Leftover]] = {}
    for one in leftovers:
        by_why.setdefault(one.why, []).append(one)
    for why, alike in by_why.items():
        if len(alike) > LISTED:
            folder = posixpath.commonpath([one.path for one in alike]) or "."
            yield f"{size_text(_n_bytes(alike)):>10}  {folder}/  {len(alike):,} times: {why}"
        else:
            yield from (f"{size_text(one.n_bytes):>10}  {one.path}  {why}" for one in alike)
