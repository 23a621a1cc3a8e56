"""`shelfprice catalog show`."""

import sys

import click

from store.options import say, workspace_option
from store.workspace import Workspace

PAGE_FILE = "catalog.html"


@click.command()
@workspace_option
@click.option("--text", is_flag=True, help="Print only: write no page.")
def show(workspace: Workspace, text: bool) -> None:
    """Show counts, prices, fields, duplicates, train and test.

    Printed, and written to catalog.html, one page that needs no network. Duplicates are those that 'shelfprice catalog
    clean' found.

    \b
    Examples:
      shelfprice catalog show -w run
    """
    from store.catalog.show.facts import read_facts
    from store.catalog.show.words import ASCII_BLOCKS, BLOCKS, fact_lines

    facts = read_facts(workspace)
    try:
        BLOCKS.encode(sys.stdout.encoding)
        blocks = BLOCKS
    except UnicodeEncodeError:
        blocks = ASCII_BLOCKS
    for line in fact_lines(facts, blocks):
        say(line)
    if text:
        return
    from store.catalog.images.open import quiet_pillow
    from store.catalog.show.page import page_of, thumbnail_of

    with quiet_pillow():
        page = page_of(facts, lambda digest: thumbnail_of(workspace, digest))
    workspace.publish_bytes(PAGE_FILE, page.encode())
    say(f"\nwrote {workspace.path(PAGE_FILE)}")
