"""Rows of the catalogue see the pictures that arrived: column `image` and the catalogue's digest."""

import pyarrow as pa

from store.catalog.digest import split_digest, split_metadata
from store.catalog.download.addresses import link_url
from store.catalog.fields import FIELDS_VERSION
from store.catalog.images import FILE_PREFIX, image_digests, known_links
from store.catalog.read import CATALOG_LOCK, SPLITS, split_path
from store.errors import CatalogError
from store.schema import CATALOG_COLUMNS
from store.workspace import Workspace

GIVEN = ("text", "image_link", "image")  # of the catalogue's columns; the others are parsed out of the text


def known_reference(cell: str | None, known: set[str]) -> str | None:
    """The key into links.parquet that a cell of the link column stands for, once something is known of it."""
    url = link_url(cell) if known else None
    return url if url in known else None


def show_pictures(workspace: Workspace) -> int:
    """Bring column `image` and the digest of each split up to date with links.parquet, as an ingest would.

    Returns:
        How many rows have a picture by link now.

    Raises:
        CatalogError: the catalogue was ingested by another version of the parser.
    """
    n_with_picture = 0
    if not any(workspace.exists(split_path(split)) for split in SPLITS):
        return n_with_picture
    known, digests = known_links(workspace), image_digests(workspace)
    with workspace.lock(CATALOG_LOCK):
        for split in SPLITS:
            if not workspace.exists(split_path(split)):
                continue
            path = split_path(split)
            metadata = workspace.read_metadata(path)
            if metadata.get("fields_version", FIELDS_VERSION) != FIELDS_VERSION:
                raise CatalogError(
                    f"the {split} catalogue was ingested by another version of shelfprice: the pictures are stored, "
                    f"run 'shelfprice catalog ingest -w {workspace.root}' again to join them to its rows"
                )
            table = workspace.read_table(path)
            images = [
                image if image is not None and image.startswith(FILE_PREFIX) else known_reference(cell, known)
                for image, cell in zip(
                    table["image"].to_pylist(), table["image_link"].to_pylist(), strict=True
                )
            ]
            n_with_picture += sum(
                1 for image in images if image in digests and not (image or "").startswith(FILE_PREFIX)
            )
            position = table.schema.get_field_index("image")
            table = table.set_column(position, "image", pa.array(images, pa.string()))
            given = table.select([n for n in table.column_names if n in GIVEN or n not in CATALOG_COLUMNS])
            digest = split_digest(given, digests)
            if digest != metadata.get("digest"):
                workspace.publish_table(path, table, metadata=metadata | split_metadata(digest))
    return n_with_picture
