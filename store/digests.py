"""Digests that records and tables contain of their own content, so that a change is found even where a file is valid.

A digest includes the file's path, so that an intact file of another path is refused. Version 0.1.0 wrote no digests;
files of versions between that one and this have digests without the path.
"""

import hashlib
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.contracts import parse_json

METADATA_KEY = b"shelfprice"
DIGEST_KEY = b"shelfprice.sha256"  # of a table's columns, number of rows and metadata; pages have checksums
ARROW_SCHEMA = b"ARROW:schema"  # in the metadata of every table that Arrow writes, after ours
RECORD_DIGEST = "record_sha256"  # in a JSON record: of all the rest of it
OTHER_WRITER = re.compile(r"(?!parquet-cpp-arrow|shelfprice)[A-Za-z-]+( .*)?")  # DuckDB version v1.1, Polars
SHA256_CHARACTERS = 64


def sealed_record(value: dict[str, Any], relative: str) -> dict[str, Any]:
    """A record with its own digest."""
    return value | {RECORD_DIGEST: _record_digest(value, relative)}


def opened_record(value: dict[str, Any], relative: str) -> tuple[dict[str, Any], str | None]:
    """A record without its digest, and what contradicts that; None: nothing."""
    rest = dict(value)
    stated = rest.pop(RECORD_DIGEST, None)
    known = (None, _record_digest(rest, relative), _record_digest(rest))
    if stated not in known or (stated is None and _holds_digest(rest, relative)):
        return rest, "its content or place is not what its own digest says"
    return rest, None


def sealed_metadata(table: pa.Table, metadata: dict[str, Any] | None, relative: str) -> dict[bytes, bytes]:
    """Metadata of a table's schema with its own digest.

    Args:
        metadata: kept as JSON; None: what the schema has of it.
    """
    kept = {} if metadata is not None else dict(table.schema.metadata or {})
    if metadata is not None:
        kept[METADATA_KEY] = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    told = parse_json(kept.get(METADATA_KEY, b"{}"))
    kept[DIGEST_KEY] = _table_digest(table.schema, table.num_rows, told, relative)
    return kept


def own_metadata(file: pq.ParquetFile) -> dict[bytes, bytes]:
    """Metadata and digest of an open file, as a schema keeps them."""
    found = _written_metadata(file)
    return {name: found[name] for name in (METADATA_KEY, DIGEST_KEY) if name in found}


def table_metadata(file: pq.ParquetFile) -> dict[str, Any]:
    """The JSON that `Workspace.publish_table` stored in a file; empty where there is none."""
    encoded = _written_metadata(file).get(METADATA_KEY)
    found: dict[str, Any] = parse_json(encoded) if encoded else {}
    return found


def digest_problem(file: pq.ParquetFile, relative: str) -> str | None:
    """What contradicts a table's own digest in its columns, number of rows or metadata; None: nothing."""
    of_groups = sum(file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups))
    if of_groups != file.metadata.num_rows:
        return "its parts do not have the rows that it states"
    found = _written_metadata(file)
    if ARROW_SCHEMA not in found and not OTHER_WRITER.fullmatch(file.metadata.created_by or ""):
        return "its metadata are gone"
    try:
        told = file.schema_arrow, file.metadata.num_rows, table_metadata(file)
    except ValueError as error:
        return f"its metadata are not JSON: {error}"
    stated, digest = found.get(DIGEST_KEY), _table_digest(*told, relative)
    known = (None, digest, _table_digest(*told))
    is_lost = stated is None and any(DIGEST_KEY in name or digest in one for name, one in found.items())
    if stated not in known or is_lost:
        return "its columns, rows, metadata or place are not what its own digest says"
    return None


def _written_metadata(file: pq.ParquetFile) -> dict[bytes, bytes]:
    """Of the file itself: Arrow keeps a copy in its own schema, which no digest is over."""
    return dict(file.metadata.metadata or {})


def _record_digest(value: dict[str, Any], relative: str = "") -> str:
    as_read = json.loads(json.dumps(value, allow_nan=False))  # where every name is text
    content = relative + json.dumps(as_read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def _holds_digest(value: dict[str, Any], relative: str) -> bool:
    """Whether a record's digest stands in it under a name that was damaged."""
    suspects = [name for name, one in value.items() if isinstance(one, str) and len(one) == SHA256_CHARACTERS]
    return any(
        _record_digest({n: one for n, one in value.items() if n != name}, relative) == value[name]
        for name in suspects
    )


def _table_digest(schema: pa.Schema, n_rows: int, metadata: Any, relative: str = "") -> bytes:
    # Parquet has a name of its own for the items of a list.
    columns = [[one.name, str(one.type).replace("<item:", "<element:"), one.nullable] for one in schema]
    content = relative + json.dumps([columns, n_rows, metadata], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest().encode()
