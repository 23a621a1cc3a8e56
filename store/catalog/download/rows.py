"""Updates the catalogue after a download: column `image` and the catalogue's digest."""

from collections.abc import Container

import pyarrow as pa

from store.catalog.download.addresses import read_link
from store.catalog.images.links import is_given, known_links
from store.catalog.ingest.digest import split_digest, split_metadata
from store.catalog.parse.fields import FIELDS_VERSION
from store.catalog.read import CATALOG_LOCK, SPLITS, image_references, split_path
from store.config import ImagePolicy, load_config
from store.errors import CatalogError
from store.schema import CATALOG_COLUMNS, FURTHER_IMAGES
from store.workspace import Workspace

GIVEN = ("text", "image_link", "image")  # of the catalogue's columns; the others are parsed out of the text


def known_references(cell: str | None, known: Container[str], policy: ImagePolicy) -> list[str]:
    """The keys into links.parquet that a cell of the link column stands for, of those of which something is known."""
    if not known or cell is None:
        return []
    return [url for url in read_link(cell, take_all=policy == "all").urls if url in known]


def image_columns(references: list[list[str]]) -> dict[str, pa.Array]:
    """Columns `image` and, where a row has several images, `further_images`."""
    columns = {"image": pa.array([row[0] if row else None for row in references], pa.string())}
    if any(len(row) > 1 for row in references):
        columns[FURTHER_IMAGES.name] = pa.array([row[1:] or None for row in references], FURTHER_IMAGES.type)
    return columns


def _references(table: pa.Table, known: Container[str], policy: ImagePolicy) -> list[list[str]]:
    """Images of each row: files of a folder as they are, else the links of which something is known."""
    cells = zip(image_references(table), table["image_link"].to_pylist(), strict=True)
    return [
        images if images and is_given(images[0]) else known_references(cell, known, policy)
        for images, cell in cells
    ]


def show_images(workspace: Workspace) -> int:
    """Bring column `image` and the digest of each split up to date with links.parquet, as an ingest would.

    Returns:
        How many rows have an image by link now.

    Raises:
        CatalogError: the catalogue was ingested by another version of the parser.
    """
    n_with_image = 0
    if not any(workspace.exists(split_path(split)) for split in SPLITS):
        return n_with_image
    known, policy = known_links(workspace), load_config(workspace).columns.images_per_row
    with workspace.lock(CATALOG_LOCK):
        for split in SPLITS:
            if not workspace.exists(split_path(split)):
                continue
            path = split_path(split)
            metadata = workspace.read_metadata(path)
            if metadata.get("fields_version", FIELDS_VERSION) != FIELDS_VERSION:
                raise CatalogError(
                    f"the {split} catalogue was ingested by another version of shelfprice: the images are stored, "
                    f"run 'shelfprice catalog ingest -w {workspace.root}' again to join them to its rows"
                )
            table = workspace.read_table(path)
            references = _references(table, known, policy)
            n_with_image += sum(
                any(not is_given(one) and known.get(one) is not None for one in row) for row in references
            )
            table = _with_images(table, image_columns(references))
            given = table.select([n for n in table.column_names if n in GIVEN or n not in CATALOG_COLUMNS])
            digest = split_digest(given, known)
            if digest != metadata.get("digest"):
                workspace.publish_table(path, table, metadata=metadata | split_metadata(digest))
    return n_with_image


def _with_images(table: pa.Table, images: dict[str, pa.Array]) -> pa.Table:
    at = table.schema.get_field_index("image")
    table = table.set_column(at, "image", images["image"])
    if FURTHER_IMAGES.name in table.column_names:
        table = table.drop([FURTHER_IMAGES.name])
    if FURTHER_IMAGES.name in images:
        return table.add_column(1 + len(CATALOG_COLUMNS), FURTHER_IMAGES, images[FURTHER_IMAGES.name])
    return table
