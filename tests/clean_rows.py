"""Catalogues with something to clean, made on the spot."""

import hashlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from store.catalog.images.blobs import blob_path
from store.catalog.images.links import merge_links
from store.catalog.parse.fields import parse_fields
from store.schema import LINKS
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_folds


def image_bytes(seed: int, side: int = 224, quality: int = 90, form: str = "JPEG", turn: int = 0) -> bytes:
    """An image of its own; `turn` shifts its colours and leaves its brightness."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    if turn:
        y, cb, cr = image.convert("YCbCr").split()
        image = Image.merge("YCbCr", (y, cb.point(lambda v: (v + turn) % 256), cr)).convert("RGB")
    content = io.BytesIO()
    image.save(content, form, **({"quality": quality} if form == "JPEG" else {}))
    return content.getvalue()


def publish(
    workspace: Workspace,
    train: list[dict[str, Any]],
    test: list[dict[str, Any]] | None = None,
    images: dict[str, bytes] | None = None,
    fold: list[int] | None = None,
) -> None:
    """Put rows (`sample_id`, `text`, `price`, `image`) where ingest would; fields are parsed from the text."""
    links = []
    for link, content in (images or {}).items():
        sha256 = hashlib.sha256(content).hexdigest()
        workspace.publish_bytes(blob_path(sha256), content)
        links.append(dict.fromkeys(LINKS.names) | {"link": link, "sha256": sha256, "tries": 1})
    if links:
        merge_links(workspace, pa.Table.from_pylist(links, schema=LINKS))
    tables = [catalog_table([_parsed(row) for row in train])]
    if test is not None:
        tables.append(catalog_table([_parsed(row) for row in test], priced=False))
    publish_catalog(workspace, *tables)
    if fold is not None:
        publish_folds(workspace, np.array(fold))


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    fields = parse_fields(row["text"])
    parsed = {name: getattr(fields, name) for name in ("name", "bullets", "value", "unit")}
    return {"image": None, "image_link": row.get("image")} | parsed | row


def found(workspace: Workspace, finding: str) -> dict[Any, str]:
    """sample_id -> decision of one finding."""
    rows = workspace.read_table("cleaning.parquet").to_pylist()
    return {row["sample_id"]: row["decision"] for row in rows if row["finding"] == finding}


def reason(workspace: Workspace, finding: str, sample_id: Any) -> str:
    rows = workspace.read_table("cleaning.parquet").to_pylist()
    return next(r["reason"] for r in rows if (r["finding"], r["sample_id"]) == (finding, sample_id))
