"""images/links.parquet, the one record of images: read and brought up to date."""

from collections.abc import Mapping
from itertools import chain, islice

import pyarrow as pa
import pyarrow.compute as pc

from store.contracts import contract_of
from store.errors import CorruptFileError, StoreError
from store.schema import FURTHER_IMAGES, LINKS
from store.workspace import Workspace

LINKS_FILE = "images/links.parquet"
DAMAGED_LINKS = "images/damaged-links.parquet"
LINKS_LOCK = "images/.links.lock"  # held only while the file is replaced
FILE_PREFIX = "file:"  # of a reference to a file of a folder
DATA_PREFIX = "data:"  # of a reference to bytes that stood in the table, by their SHA-256
SHA256 = "^[0-9a-f]{64}$"  # it becomes part of a path
MADE_AGAIN = contract_of("images/blobs/").made_by


def is_given(reference: str | None) -> bool:
    """Whether an image came with the table, as a file or as bytes, and not by a link to fetch it from."""
    return reference is not None and reference.startswith((FILE_PREFIX, DATA_PREFIX))


def read_links(workspace: Workspace) -> pa.Table:
    """Every row, by today's schema; empty where nothing was recorded yet.

    Raises:
        CorruptFileError: it can't be read.
    """
    return _read(workspace, LINKS.names)


def known_links(workspace: Workspace) -> dict[str, str | None]:
    """Every reference (column `image` of the catalogue) that was recorded -> hex SHA-256, None where it has a reason.

    A row that holds neither tells nothing and counts as lost.

    Raises:
        CorruptFileError: links.parquet can't be read.
    """
    links = _read(workspace, ["link", "sha256", "reason"])
    links = links.filter(pc.or_(links["sha256"].is_valid(), links["reason"].is_valid()))
    return dict(zip(links["link"].to_pylist(), links["sha256"].to_pylist(), strict=True))


def _read(workspace: Workspace, columns: list[str]) -> pa.Table:
    if not workspace.exists(LINKS_FILE):
        return LINKS.empty_table()
    try:
        found = links_by_schema(workspace.read_table(LINKS_FILE, columns))
        if pc.all(pc.match_substring_regex(found["sha256"], SHA256)).as_py() is False:
            raise CorruptFileError("column 'sha256' holds a value that is not a SHA-256 digest")
        return found
    except (CorruptFileError, pa.ArrowException, OSError) as error:
        raise CorruptFileError(
            f"{workspace.path(LINKS_FILE)} can't be read ({error}): {MADE_AGAIN}"
        ) from error


def mend_links(workspace: Workspace) -> str | None:
    """Put a links.parquet that can't be read aside, before its rows are made again; a line that says so."""
    try:
        read_links(workspace)
    except StoreError:
        raise
    except CorruptFileError:
        workspace.rename(LINKS_FILE, DAMAGED_LINKS)
        return f"{LINKS_FILE} could not be read and was put aside as {DAMAGED_LINKS}: its rows are made again"
    return None


def row_images(references: pa.Array | pa.ChunkedArray, known: Mapping[str, str | None]) -> pa.Array:
    """Hex SHA-256 of each row's image, shape (n_rows,), null where the row has none or it could not be fetched or read.

    Args:
        references: column `image` of catalogue rows.
        known: of the workspace, from `known_links`.

    Raises:
        CorruptFileError: a row names an image that links.parquet does not know: it was there and is lost.
    """
    found = references.to_pylist()
    try:
        return pa.array([known[reference] if reference else None for reference in found], pa.string())
    except KeyError:
        lost = [reference for reference in found if reference and reference not in known]
    raise CorruptFileError(
        f"{LINKS_FILE} lacks {len(lost)} images that the catalogue's {len(found)} rows name (first: "
        f"{lost[0]}): {MADE_AGAIN}"
    )


def further_row_images(rows: pa.Table, known: Mapping[str, str | None]) -> pa.Array:
    """Hex SHA-256 of each row's images after the first, list<string> of shape (n_rows,): empty where it has none.

    Args:
        rows: catalogue rows, with `further_images` where some have several.
        known: of the workspace, from `known_links`.

    Raises:
        CorruptFileError: as `row_images`.
    """
    if FURTHER_IMAGES.name not in rows.column_names:
        return pa.array([[]] * len(rows), FURTHER_IMAGES.type)
    lists = [row or [] for row in rows[FURTHER_IMAGES.name].to_pylist()]
    found = iter(row_images(pa.array(list(chain.from_iterable(lists)), pa.string()), known).to_pylist())
    return pa.array([list(islice(found, len(row))) for row in lists], FURTHER_IMAGES.type)


def have_image(rows: pa.Table, known: Mapping[str, str | None]) -> list[bool]:
    """Whether each row has an image that could be had, its first or another one; see `further_row_images`."""
    first, further = row_images(rows["image"], known).to_pylist(), further_row_images(rows, known).to_pylist()
    return [any((one, *others)) for one, others in zip(first, further, strict=True)]


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
