"""images/links.parquet, the one record of images: read and brought up to date."""

import pyarrow as pa
import pyarrow.compute as pc

from store.schema import LINKS
from store.workspace import Workspace

LINKS_FILE = "images/links.parquet"
LINKS_LOCK = "images/.links.lock"  # held only while the file is replaced


def read_links(workspace: Workspace) -> pa.Table:
    """Every row, by today's schema; empty where nothing was recorded yet."""
    if not workspace.exists(LINKS_FILE):
        return LINKS.empty_table()
    return links_by_schema(workspace.read_table(LINKS_FILE))


def links_by_schema(table: pa.Table) -> pa.Table:
    """A table of links with today's columns, null where an older file lacks them.

    Raises:
        pa.ArrowInvalid: a column has another type.
    """
    columns = [
        table[column.name].cast(column.type)
        if column.name in table.column_names
        else pa.nulls(len(table), column.type)
        for column in LINKS
    ]
    return pa.table(columns, schema=LINKS)


def merge_links(workspace: Workspace, new: pa.Table) -> None:
    """Put these rows in place of those of the same link, whoever else is writing; sorted by link."""
    with workspace.lock(LINKS_LOCK):
        links = read_links(workspace)  # one name for every state, so that the one before is freed
        links = links.filter(pc.invert(pc.is_in(links["link"], value_set=new["link"].combine_chunks())))
        links = pa.concat_tables([links, links_by_schema(new)]).sort_by("link")
        workspace.publish_table(LINKS_FILE, links)
