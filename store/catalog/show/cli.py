"""`shelfprice catalog show`."""

import sys

import click

from store.options import json_option, print_json, say, workspace_option
from store.workspace import Workspace

PAGE_FILE = "catalog.html"


@click.command()
@workspace_option
@click.option("--text", is_flag=True, help="Print only: write no page.")
@json_option
def show(workspace: Workspace, text: bool, as_json: bool) -> None:
    """Show counts, prices, fields, duplicates, train and test.

    They are printed and written to catalog.html, one page that needs no network. Duplicates are those that 'shelfprice
    catalog clean' found.

    \b
    Examples:
      shelfprice catalog show -w run
    """
    from store.catalog.show.facts import facts_record, read_facts
    from store.catalog.show.words import ASCII_BLOCKS, BLOCKS, fact_lines

    facts = read_facts(workspace)
    try:
        BLOCKS.encode(sys.stdout.encoding)
        blocks = BLOCKS
    except UnicodeEncodeError:
        blocks = ASCII_BLOCKS
    for line in fact_lines(facts, blocks) if not as_json else ():
        say(line)
    if not text:
        from store.catalog.images.open import quiet_pillow
        from store.catalog.show.page import page_of, thumbnail_of

        with quiet_pillow():
            page = page_of(facts, lambda digest: thumbnail_of(workspace, digest))
        workspace.publish_bytes(PAGE_FILE, page.encode())
    file = None if text else workspace.path(PAGE_FILE)
    if as_json:
        print_json(facts_record(facts) | {"file": file})
    elif file is not None:
        say(f"\nwrote {file}")
