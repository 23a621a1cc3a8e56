"""The command `shelfprice`: finds the rooms' groups through the entry-point group `shelfprice.commands`."""

import io
import sys
from importlib.metadata import entry_points
from typing import Any

import click

from store.errors import ShelfpriceError
from store.printable import printable


class Interrupted(click.ClickException):
    """Ctrl-C: a file appears whole or not at all, so whatever was finished is there."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("stopped; what was finished is kept: run the same command again to go on")


class RoomGroup(click.Group):
    """Loads a room's commands only when they are asked for, and turns our errors into one line."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(point.name for point in entry_points(group="shelfprice.commands"))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        for point in entry_points(group="shelfprice.commands", name=name):
            command: click.Command = point.load()
            return command
        return None

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ShelfpriceError as error:
            raise click.ClickException(printable(str(error))) from error
        except KeyboardInterrupt as interrupt:
            raise Interrupted() from interrupt


@click.group(cls=RoomGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="shelfprice")
def main() -> None:
    """Predict prices from a catalogue: embed once, train heads off the cache, blend honestly."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character of a name shows '?'


if __name__ == "__main__":
    sys.exit(main())
