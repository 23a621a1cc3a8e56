"""`shelfprice status`: what the workspace contains, what is stale and why, and the next command."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from store.config import Config, load_config
from store.options import json_option, on_workspace, print_json, say, workspace_option
from store.rooms import Section, find_rooms, size_text
from store.workspace import Workspace

MARGIN = 12


@dataclass(frozen=True)
class Status:
    """Everything that a workspace holds."""

    workspace: str
    sections: tuple[Section, ...]
    disk: dict[str, int]  # kind -> bytes, largest first

    @property
    def record(self) -> dict[str, Any]:
        """What the sections tell, by the keys of `status --json`."""
        return {key: value for section in self.sections for key, value in section.record.items()}

    @property
    def next_step(self) -> tuple[str, str] | None:
        """The next command and why; None where all is done."""
        steps = (section.step for section in self.sections if section.step is not None)
        return next(((on_workspace(command, self.workspace), why) for command, why in steps), None)


def read_status(workspace: Workspace, config: Config) -> Status:
    """Take stock of a workspace.

    Raises:
        CorruptFileError: a file of the contract can't be read; damaged shards are told, not raised.
    """
    rooms = find_rooms()
    sections = [section for room in rooms for section in room.sections(workspace, config)]
    disk = [(kind, n_bytes) for room in rooms for kind, n_bytes in room.disk(workspace).items() if n_bytes]
    return Status(
        workspace.root,
        tuple(sorted(sections, key=lambda one: one.place)),
        dict(sorted(disk, key=lambda one: -one[1])),
    )


@click.command()
@workspace_option
@json_option
@click.option(
    "--failures", is_flag=True, help="List rows whose image or vector failed instead, each with its file."
)
def status(workspace: Workspace, as_json: bool, failures: bool) -> None:
    """Show what the workspace holds and which command comes next.

    What is stale is named with the reason, disk use by kind.

    \b
    Examples:
      shelfprice status -w run
      shelfprice status --failures -w run
    """
    if failures:
        from store.failures import failed_rows, failure_lines

        rows = list(failed_rows(workspace, load_config(workspace)))
        if as_json:
            print_json({"failures": [dataclasses.asdict(row) for row in rows]})
            return
        for line in failure_lines(rows):
            say(line)
        return
    found = read_status(workspace, load_config(workspace))
    step = found.next_step
    if as_json:
        told = {key: _plain(value) for key, value in found.record.items()}
        following = dict(zip(("command", "why"), step, strict=True)) if step else None
        print_json({"workspace": workspace.root, **told, "disk": found.disk, "next": following})
        return
    for line in _lines(found):
        say(line)


def _lines(found: Status) -> Iterator[str]:
    """One line a thing, its subject in the margin."""
    step = found.next_step
    used = ", ".join(f"{kind} {size_text(n_bytes)}" for kind, n_bytes in found.disk.items())
    subjects = [
        ("workspace", (found.workspace,)),
        *((section.subject, section.lines) for section in found.sections),
        ("disk", (used or "nothing",)),
        ("next", (f"{step[0]}  ({step[1]})" if step else "nothing: all is up to date",)),
    ]
    for subject, lines in subjects:
        for number, line in enumerate(lines or ("none",)):
            yield f"{subject if number == 0 else '':<{MARGIN}}{line}"


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
