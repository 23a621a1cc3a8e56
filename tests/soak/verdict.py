"""The outcome of an attack; the next step that a message names is taken."""

import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.commands import Said
from tests.soak.world import INPUTS, OF_SEARCH, World, plain

BAD = ("traceback", "hang", "crash", "silent", "stuck", "lost")
MOST_WAYS = 12
COMMAND = re.compile(r"'shelfprice ([a-z]+ [a-z-]+|[a-z]+)([^']*)'")
COPY = re.compile(r"(?:kept in|go back to) ([^\s,]+), ")
UNKNOWN = re.compile(r"unknown head '([^']+)', did you mean ([a-z-]+)\b.* and correct heads\.run in (\S+)")
DENIED = re.compile(r"can't (?:read|write) (\S+): Permission denied")
NOTE = re.compile(
    r"damaged|again|anew|changed|note:|left out|stale|lacks|gone|broken|unreadable|fail|rejected",
    re.IGNORECASE,
)


@dataclass
class Verdict:
    """How it ended, and what was said on the way."""

    outcome: str
    said: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # of a case that is many

    @property
    def is_bad(self) -> bool:
        return self.outcome in BAD


def follow(world: World, root: Path, commands: Sequence[str], name: str) -> Verdict:
    """Run commands as a user would who does what the messages say, and hold the end against the pristine workspace.

    Args:
        commands: run in this order, and all of them again after each way on.
        name: of the file that was tampered with; a line that names it, or says that something changed, is a note.
    """
    said: list[str] = []
    noted, outcome = run_on(world, root, commands, name, said)
    if outcome is not None:
        return Verdict(outcome, said)
    others = differing(world, root)
    if others:
        said.append(f"other than before: {', '.join(others)}")
        # What these commands had no need to read is still as the damage left it.
        is_read = any(one.partition(" ")[0] not in INPUTS for one in others)
        return Verdict("noted" if noted else "silent" if is_read else "unread", said)
    return Verdict(noted or "unchanged", said)


def run_on(
    world: World, root: Path, commands: Sequence[str], name: str, said: list[str]
) -> tuple[str | None, str | None]:
    """Run commands and take the ways on that they name until all go well.

    Args:
        said: takes what was run and what it said.

    Returns:
        "told" or "healed" where something was said of it, and the outcome where it is bad.
    """
    ways: list[tuple[str, ...]] = []
    noted: str | None = None
    way_on: str | None = None  # a command that a message named, which may name another
    while len(ways) <= MOST_WAYS:
        failed = None
        for one in world.run(root, tuple(commands) if way_on is None else (way_on,)):
            said.append(f"$ {one.line}\n[{one.code}] {one.output.strip()[-3000:]}")
            if one.fault:
                return noted, one.fault
            lines = [line for line in one.output.splitlines() if plain(line, root) not in world.usual]
            if any(name in line or NOTE.search(line) for line in lines):
                noted = noted or "healed"
            if one.code:
                failed = one
                break
        if failed is None and way_on is None:
            return noted, None
        named = ways_on(world, root, failed) if failed else []
        way = next((way for way in named if way not in ways), None)
        way = way or next(
            (way for way in named if way != ways[-1]), None
        )  # after another it may be due again
        if way is None and way_on is None:
            return noted, "stuck"
        way_on = None
        if way is not None:
            noted = "told"
            ways.append(way)
            said.append(f"way on: {' '.join(way)}")
            if way[0] == "run":
                way_on = way[1]
            else:
                take(way)
    return noted, "stuck"


def differing(world: World, root: Path) -> list[str]:
    """Subjects of which the workspace says another thing than the pristine one, and what."""
    found = world.meaning(root)
    names = {*found, *world.outcome} - ({"packed"} - {*found})  # not every route packs
    return [f"{one} {found.get(one)}" for one in sorted(names) if found.get(one) != world.outcome.get(one)]


def judged(
    world: World, root: Path, said: Sequence[Said], before: Sequence[Said] = (), is_searched: bool = False
) -> Verdict:
    """Commands that had to go well, held against the pristine workspace.

    Args:
        before: commands that may have failed in words.
        is_searched: parameters were searched meanwhile: what follows from them must be there, and may be another.
    """
    lines = [f"$ {one.line}\n[{one.code}] {one.output.strip()[-3000:]}" for one in (*before, *said)]
    fault = next((one.fault for one in said if one.fault), None)
    if fault or any(one.code for one in said):
        return Verdict(fault or "stuck", lines)
    others = differing(world, root)
    if is_searched:
        others = [one for one in others if not re.fullmatch(rf"({'|'.join(OF_SEARCH)}) [0-9a-f]{{12}}", one)]
    if others:
        return Verdict("lost", [*lines, f"other than before: {', '.join(others)}"])
    return Verdict("told" if any(one.code for one in before) else "healed", lines)


def ways_on(world: World, root: Path, failed: Said) -> list[tuple[str, ...]]:
    """What a message tells to do: commands to run, files to delete, to copy or to let be read."""
    ways: list[tuple[str, ...]] = []
    message = failed.output.split("Error: ")[-1] if "failed:" not in failed.output else failed.output
    ways += [("copy", match[1], match[1].removesuffix(".last")) for match in COPY.finditer(message)]
    for match in re.finditer(r"(?:[Dd]elete|remove) (its folder|it\b|what is there|\S+)", message):
        paths = re.findall(rf"{re.escape(str(root))}/[^\s:,;()']+", message)
        if paths:
            path = match[1].rstrip(",;:.") if match[1].startswith(str(root)) else paths[-1]
            ways.append(("delete", str(Path(path).parent) if match[1] == "its folder" else path))
    ways += [("permit", match[1]) for match in DENIED.finditer(message)]
    ways += [("correct", str(root / match[3]), match[1], match[2]) for match in UNKNOWN.finditer(message)]
    known = (*world.steps, *world.looks, "catalog folds", "catalog images", "heads tune")
    for match in COMMAND.finditer(message):
        named = next((one for one in (f"{match[1]}{match[2]}", match[1]) if one in known), None)
        if named or match[1].split()[0] in ("catalog", "embed", "heads", "ensemble"):
            options = re.sub(r" -w \S+", "", match[2])
            ways.append(("run", f"{match[1]}{options}" if named is None or options.strip() else named))
    return ways


def take(way: tuple[str, ...]) -> None:
    """Take a way on that is no command."""
    if way[0] == "copy":
        if Path(way[2]).is_symlink():  # the message says "in place of the link"
            Path(way[2]).unlink()
        shutil.copyfile(way[1], way[2])
    elif way[0] == "correct":
        Path(way[1]).write_text(Path(way[1]).read_text().replace(way[2], way[3]))
    elif way[0] == "permit":
        for folder in reversed(Path(way[1]).parents):
            if folder.is_dir() and not folder.stat().st_mode & stat.S_IRUSR:
                folder.chmod(0o755)
        if Path(way[1]).exists():
            Path(way[1]).chmod(0o755 if Path(way[1]).is_dir() else 0o644)
    else:
        path = Path(way[1])
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
