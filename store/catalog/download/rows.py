"""Rows of the catalogue see the images that arrived: column `image` and the catalogue's digest."""

from collections.abc import Container

import pyarrow as pa

from store.catalog.download.addresses import link_url
from store.catalog.images.links import FILE_PREFIX, known_links
from store.catalog.ingest.digest import split_digest, split_metadata
from store.catalog.parse.fields import FIELDS_VERSION
from store.catalog.read import CATALOG_LOCK, SPLITS, split_path
from store.errors import CatalogError
from store.schema import CATALOG_COLUMNS
from store.workspace import Workspace

GIVEN = ("text", "image_link", "image")  # of the catalogue's columns; the others are parsed out of the text
_ROWS_AT_ONCE = 4096


def known_reference(cell: str | None, known: Container[str]) -> str | None:
    """The key into links.parquet that a cell of the link column stands for, once something is known of it."""
    url = link_url(cell) if known else None
    return url if url is not None and url in known else None


def _images(batch: pa.RecordBatch, known: Container[str]) -> pa.Array:
    """Column `image`: a file of a folder as it is, else the link, once something is known of it."""
    cells = zip(batch["image"].to_pylist(), batch["image_link"].to_pylist(), strict=True)
    images = [
        image if image is not None and image.startswith(FILE_PREFIX) else known_reference(cell, known)
        for image, cell in cells
    ]
    return pa.array(images, pa.string())


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
    known = known_links(workspace)
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
            images = pa.chunked_array(
                [
                    _images(batch, known)
                    for batch in table.select(["image", "image_link"]).to_batches(_ROWS_AT_ONCE)
                ],
                pa.string(),
            )
            n_with_image += sum(
                image is not None and not image.startswith(FILE_PREFIX) and known.get(image) is not None
                for chunk in images.chunks
                for image in chunk.to_pylist()
            )
            table = table.set_column(table.schema.get_field_index("image"), "image", images)
            given = table.select([n for n in table.column_names if n in GIVEN or n not in CATALOG_COLUMNS])
            digest = split_digest(given, known)
            if digest != metadata.get("digest"):
                workspace.publish_table(path, table, metadata=metadata | split_metadata(digest))
    return n_with_image
