"""The command `shelfprice`: finds the rooms' groups through the entry-point group `shelfprice.commands`."""

import io
import sys
from importlib.metadata import entry_points
from typing import Any

import click

from store.errors import ShelfpriceError
from store.options import Interrupted, Refused

# How `shelfprice --help` groups commands, in the order of their use; others come last.
SECTIONS = {
    "From a catalogue to prices": ("catalog", "embed", "heads", "ensemble"),
    "A saved model": ("predict", "serve"),
    "The workspace": ("status", "prune"),
}


class RoomGroup(click.Group):
    """Loads a package's commands only when they are used, and prints a ShelfpriceError as one line."""

    def list_commands(self, context: click.Context) -> list[str]:
        found = {point.name for point in entry_points(group="shelfprice.commands")}
        known = [name for names in SECTIONS.values() for name in names]
        return [name for name in known if name in found] + sorted(found.difference(known))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        left = self.list_commands(context)
        width = formatter.width - 6 - max(map(len, left), default=0)
        for title, names in {**SECTIONS, "More": tuple(left)}.items():
            shown = [name for name in left if name in names]
            left = [name for name in left if name not in shown]
            commands = [(name, self.get_command(context, name)) for name in shown]
            rows = [(name, command.get_short_help_str(width)) for name, command in commands if command]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        for point in entry_points(group="shelfprice.commands", name=name):
            command: click.Command = point.load()
            return command
        return None

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ShelfpriceError as error:
            raise Refused(str(error)) from error
        except KeyboardInterrupt as interrupt:
            raise Interrupted() from interrupt


@click.group(cls=RoomGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="shelfprice")
def main() -> None:
    """Predict prices from a catalogue of texts and images.

    Run these commands in order: catalog ingest, embed run, heads run, ensemble blend, ensemble submit. Each does only
    what is missing; 'shelfprice status' says which comes next.

    \b
    Examples:
      shelfprice catalog demo --to demo
      shelfprice catalog ingest --train demo/train.csv --test demo/test.csv
      shelfprice status
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character of a name shows '?'


if __name__ == "__main__":
    sys.exit(main())
