"""The digest of a split: over content, whatever the order of the rows; changed by any cell, image bytes included."""

import hashlib
import json
from collections.abc import Mapping

import pyarrow as pa

from store.catalog.parse.fields import FIELDS_VERSION
from store.schema import FURTHER_IMAGES

DIGEST_CHARACTERS = 16
_ROWS_AT_ONCE = 4096


def split_metadata(digest: str) -> dict[str, str | int]:
    """What is stored in a split's file beside its columns."""
    return {"digest": digest, "fields_version": FIELDS_VERSION}


def split_digest(given: pa.Table, digests: Mapping[str, str | None]) -> str:
    """16 hex characters over the rows of one split.

    Args:
        given: every column that is not parsed out of another one: `sample_id`, `text`, `image_link`, `image`, `price`
            and the further columns. What is parsed follows from the text and `FIELDS_VERSION`.
        digests: image reference -> hex SHA-256, so that a changed image changes the digest.
    """
    names = sorted(given.column_names)
    described = [[name, str(given.schema.field(name).type)] for name in names]
    content = hashlib.sha256(json.dumps([FIELDS_VERSION, described]).encode())
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    rows: list[bytes] = []
    for batch in given.select(names).to_batches(_ROWS_AT_ONCE):
        columns = [column.to_pylist() for column in batch.columns]
        columns.append([digests.get(reference) for reference in batch.column("image").to_pylist()])
        if FURTHER_IMAGES.name in names:
            further = batch.column(FURTHER_IMAGES.name).to_pylist()
            columns.append([[digests.get(reference) for reference in row or ()] for row in further])
        rows += (hashlib.sha256(encode(row).encode()).digest() for row in zip(*columns, strict=True))
    for row in sorted(rows):
        content.update(row)
    return content.hexdigest()[:DIGEST_CHARACTERS]
