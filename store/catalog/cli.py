"""`shelfprice catalog`: the catalogue of the workspace."""

import click


@click.group()
def catalog() -> None:
    """Take a catalogue in: validated rows, parsed fields, pictures, folds."""
