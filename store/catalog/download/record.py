"""What became of each link: a journal while a run lasts, folded into images/links.parquet.

The journal has one line per link, with a checksum, and is written *before* the image's bytes
appear. So after a kill a line counts exactly if its bytes are there whole, and no image that was
stored is ever fetched again. Folding flushes the bytes to disk before links.parquet names them.
"""

import hashlib
import io
import json
import re
import secrets
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

import pyarrow as pa

from store.catalog.images.blobs import blob_path
from store.catalog.images.links import SHA256, merge_links
from store.errors import WorkspaceError
from store.schema import LINKS
from store.workspace import Workspace

JOURNAL_FOLDER = "images/journal"
IMAGES_LOCK = "images/.lock"  # held while images are fetched, handed over or pruned
PART_LINES = 200  # of a journal on an object store, which can't be appended to


@dataclass(frozen=True)
class LinkRecord:
    """One row of images/links.parquet; units in `store.schema.LINKS`."""

    link: str
    sha256: str | None = None
    reason: str | None = None
    tries: int = 0
    http_status: int | None = None
    n_bytes: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    last_modified: str | None = None


class Journal:
    """Appends records; several threads may write."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        self._start_part()

    def _start_part(self) -> None:
        self._name = f"{JOURNAL_FOLDER}/{time.time_ns():020d}-{secrets.token_hex(4)}.jsonl"

    def write(self, records: Iterable[LinkRecord]) -> None:
        """Add lines; on a local disk they outlive this process at once."""
        lines = [_line(record) for record in records]
        with self._lock:
            if self._workspace.is_local:
                if lines:
                    self._workspace.append(self._name, b"".join(lines))
                return
            self._waiting += lines
            if len(self._waiting) >= PART_LINES:
                self._publish_part()

    def close(self) -> None:
        """Write out what waits and start a new part."""
        with self._lock:
            self._publish_part()

    def _publish_part(self) -> None:
        if self._waiting:
            self._workspace.publish_bytes(self._name, b"".join(self._waiting))
            self._waiting = []
        self._start_part()


def fold_journals(workspace: Workspace, *, trusted: bool = False) -> int:
    """Fold every journal into links.parquet and remove it; returns how many lines were void.

    Args:
        trusted: this process wrote all of them and saw each image published; else (after a crash)
            each image is read back and its digest compared.
    """
    names = workspace.names(JOURNAL_FOLDER, suffix=".jsonl")
    if not names:
        return 0
    records: dict[str, tuple[Any, ...]] = {}  # tuples: a dict of each would take four times the memory
    n_void = 0
    for name in names:
        for record in read_journal(workspace.read_bytes(f"{JOURNAL_FOLDER}/{name}")):
            sha256 = record["sha256"]
            if sha256 is not None and not trusted and not blob_is_whole(workspace, sha256):
                n_void += 1
                continue
            records[record["link"]] = tuple(record.get(column) for column in LINKS.names)
    workspace.flush()
    if records:
        columns = zip(*records.values(), strict=True)
        merge_links(
            workspace, pa.table([pa.array(c, f.type) for c, f in zip(columns, LINKS, strict=True)], LINKS)
        )
    for name in names:  # oldest first: should we be killed here, what is left still ends in the latest state
        workspace.remove(f"{JOURNAL_FOLDER}/{name}")
    pa.default_memory_pool().release_unused()  # a long run folds often, each time more
    return n_void


def read_journal(content: bytes) -> Iterator[dict[str, Any]]:
    """Records of one journal; a line that a crash cut short, or that holds no digest as one, is passed over."""
    for line in io.BytesIO(content):
        checksum, _, text = line.partition(b" ")
        text = text.removesuffix(b"\n")
        if text and checksum == b"%08x" % zlib.crc32(text):
            record = json.loads(text)
            digest = record.get("sha256") if isinstance(record, dict) else None
            if digest is None or re.fullmatch(SHA256, str(digest)):
                yield record


def file_sha256(file: IO[bytes]) -> str:
    """Hex digest of a file from its start; leaves it at its end."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def blob_is_whole(workspace: Workspace, sha256: str) -> bool:
    """Whether the image is there and its bytes have this digest."""
    try:
        with workspace.open(blob_path(sha256)) as file:
            return file_sha256(file) == sha256
    except (WorkspaceError, OSError):
        return False


def _line(record: LinkRecord) -> bytes:
    text = json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return b"%08x %s\n" % (zlib.crc32(text), text)
