"""Command-line options and output that every room shares."""

import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click

from store.printable import printable
from store.timings import Timings
from store.workspace import Workspace

MOST_COLUMNS = 80  # of a line on a terminal, that people read
WIDEST_LABEL = 24  # columns before the text of a line, which its further lines keep free
_LABEL = re.compile(r"\s*\S+(?: \S+)* {2,}(?=\S)")  # words and the gap after them
_C1 = re.compile("[\x7f-\x9f]")  # control characters that JSON leaves as they are


class ShareType(click.FloatRange):
    """A share from 0 to 1; NaN, which no range refuses, is none."""

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        share: float = super().convert(value, param, context)
        if share != share:
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, context)
        return share


SHARE = ShareType()
SEED = click.IntRange(0, 2**32 - 1)


class WorkspaceType(click.ParamType):
    name = "PATH|URL"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Workspace:
        return Workspace.of(value)


workspace_option: Callable[[Any], Any] = click.option(
    "-w",
    "--workspace",
    type=WorkspaceType(),
    default="workspace",
    envvar="SHELFPRICE_WORKSPACE",
    show_envvar=True,
    help="Root of everything on disk: a folder or an fsspec URL such as s3://bucket/run.",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object, for machines."
)
spreadsheet_option: Callable[[Any], Any] = click.option(
    "--spreadsheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A further CSV of the prices for people: an id that a spreadsheet would run as a formula (=, +, -, @) has an "
    "apostrophe before it.",
)


class InOrder(click.Group):
    """A group that lists its commands in the order of their use.

    Args:
        order: names of commands; others come last.
    """

    def __init__(self, *args: Any, order: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order = tuple(order)

    def list_commands(self, context: click.Context) -> list[str]:
        known = [name for name in self.order if name in self.commands]
        return [*known, *sorted(set(self.commands).difference(known))]


class Sectioned(click.Command):
    """A command of many options, which its help lists under headings.

    Args:
        sections: heading -> names of parameters; others come first, under "Options".
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        records = {one.name: one.get_help_record(context) for one in self.get_params(context)}
        placed = {name for names in self.sections.values() for name in names}
        first = [name for name in records if name not in placed]
        for title, names in {"Options": first, **self.sections}.items():
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := records[name]) is not None])


class Refused(click.ClickException):
    """An error of ours, in one line: on a terminal broken between words."""

    def show(self, file: IO[Any] | None = None) -> None:
        say(f"Error: {self.format_message()}", err=True)


class Interrupted(Refused):
    """Ctrl-C: a file appears whole or not at all, so whatever was finished is there."""

    exit_code = 130

    def __init__(
        self, said: str = "stopped; what was finished is kept: run the same command again to go on"
    ) -> None:
        super().__init__(said)


def user_timings() -> Timings:
    """How long steps took before, in the user's folder for settings of programs."""
    return Timings(Path(click.get_app_dir("shelfprice")))


def say(text: str, err: bool = False, colour: str | None = None) -> None:
    """One line for people, to stdout or stderr: what stands in ids, names and paths can't act on a terminal.

    On a terminal a longer line is broken between words; a file or pipe gets it whole.

    Args:
        colour: of the line, where it goes to a terminal and NO_COLOR (https://no-color.org) is not set.
    """
    line = printable(text)
    if (sys.stderr if err else sys.stdout).isatty():
        line = "\n".join(map(_wrapped, line.split("\n")))
    click.echo(click.style(line, fg=colour) if colour and not os.environ.get("NO_COLOR") else line, err=err)


def on_workspace(command: str, root: str) -> str:
    """The command as a user types it for the workspace at `root`."""
    return command if root == "workspace" else f"{command} -w {shlex.quote(root)}"


def _wrapped(line: str) -> str:
    width = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    label = _LABEL.match(line)
    hanging = len(label[0]) if label and len(label[0]) <= WIDEST_LABEL else len(indent)
    parts = textwrap.wrap(
        line.strip(), width, initial_indent=indent, subsequent_indent=" " * (hanging + 2),
        break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
    )  # fmt: skip
    return "\n".join(parts)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    click.echo(_C1.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
