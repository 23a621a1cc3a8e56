"""Bodies -> checked, content-addressed blobs. Uses no network."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, BinaryIO

from store.catalog.download.images import image_problem
from store.catalog.download.record import Journal, LinkRecord, file_sha256
from store.catalog.images.blobs import blob_path
from store.catalog.images.open import is_cut
from store.local import write_error
from store.workspace import Workspace

SPILL_BYTES = 1_000_000  # a larger body waits on disk


@dataclass(frozen=True)
class Body:
    """What a server sent, and what its record will say of it."""

    file: IO[bytes]
    n_bytes: int  # in the file
    link: str
    tries: int
    http_status: int | None
    etag: str | None = None
    last_modified: str | None = None
    keep: bool = False  # a refresh: a failure leaves the record as it is


@dataclass(frozen=True)
class Stored:
    """What became of one body."""

    is_new: bool  # these bytes were not here before
    reason: str | None = None  # why it is no image
    is_cut: bool = False  # its file lacks its end, of which little is missing


def keep(file: IO[bytes], piece: bytes) -> None:
    """Add to a body that may have spilled to disk.

    Raises:
        WorkspaceError: that disk is full.
    """
    try:
        file.write(piece)
    except OSError as error:
        raise write_error(f"a temporary file in {tempfile.gettempdir()}", error) from error


def store_bodies(
    workspace: Workspace, journal: Journal, bodies: Sequence[Body], max_pixels: int
) -> list[Stored]:
    """Check, journal and publish bodies; closes them. A body that is no image becomes a failed record.

    Raises:
        WorkspaceError: the workspace can't be written; what was published before stays valid.
    """
    results: list[Stored] = []
    lines: list[LinkRecord] = []
    wanted: dict[str, IO[bytes]] = {}
    for body in bodies:
        problem = image_problem(body.file, max_pixels)
        sha256 = file_sha256(body.file) if problem is None else None
        if sha256 is not None or not body.keep:
            lines.append(record_of(body, sha256, problem))
        is_new = sha256 is not None and sha256 not in wanted and not _is_there(workspace, sha256)
        if is_new and sha256 is not None:
            wanted[sha256] = body.file
        results.append(Stored(is_new, problem, problem is None and is_cut(body.file)))
    journal.write(lines)
    for sha256, file in wanted.items():
        _publish(workspace, sha256, file)
    for body in bodies:
        body.file.close()
    return results


def record_of(body: Body, sha256: str | None, reason: str | None) -> LinkRecord:
    if sha256 is None:
        return LinkRecord(body.link, None, reason, body.tries, body.http_status)
    return LinkRecord(
        body.link,
        sha256,
        None,
        body.tries,
        body.http_status,
        body.n_bytes,
        etag=body.etag,
        last_modified=body.last_modified,
    )


def _is_there(workspace: Workspace, sha256: str) -> bool:
    """Whether the blob lies here whole: after a power cut its name alone would prove nothing."""
    path = blob_path(sha256)
    if not workspace.exists(path):
        return False
    if not workspace.is_local:
        return True
    with workspace.open(path) as blob:
        return file_sha256(blob) == sha256


def _publish(workspace: Workspace, sha256: str, file: IO[bytes]) -> None:
    def write(target: BinaryIO) -> None:
        file.seek(0)
        shutil.copyfileobj(file, target, 1 << 20)

    workspace.publish(blob_path(sha256), write, flush=False)
