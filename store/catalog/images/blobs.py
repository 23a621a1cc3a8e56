"""Images on disk: links.parquet says which bytes a reference stands for; blobs hold the bytes by content."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from tqdm import tqdm

from store.catalog.images.folder import Folder, ImageFile
from store.catalog.images.links import LINKS_FILE, merge_links, read_links
from store.schema import LINKS
from store.workspace import Workspace

BLOBS = "images/blobs"
FILE_PREFIX = "file:"
MOST_BYTES = 256 * 2**20  # of one image file; more is no image
_THREADS = 16
_BATCH = 4096


def blob_path(sha256_hex: str) -> str:
    """Where the bytes with this digest lie: two characters of fan-out, then the digest."""
    return f"{BLOBS}/{sha256_hex[:2]}/{sha256_hex}"


def image_digests(workspace: Workspace) -> dict[str, str]:
    """Image reference (column `image` of the catalogue) -> hex SHA-256, for every image that is there."""
    return {link: sha256 for link, sha256 in known_links(workspace).items() if sha256 is not None}


def row_images(references: pa.Array | pa.ChunkedArray, digests: dict[str, str]) -> pa.Array:
    """Hex SHA-256 of each row's image, shape (n_rows,), null where the row has none that is there.

    Args:
        references: column `image` of catalogue rows.
        digests: of the workspace, from `image_digests`.
    """
    return pa.array([digests.get(one) if one else None for one in references.to_pylist()], pa.string())


def known_links(workspace: Workspace) -> dict[str, str | None]:
    """Every reference that links.parquet has a row for -> hex SHA-256, None where there is a reason instead."""
    if not workspace.exists(LINKS_FILE):
        return {}
    links = workspace.read_table(LINKS_FILE, ["link", "sha256"])
    return dict(zip(links["link"].to_pylist(), links["sha256"].to_pylist(), strict=True))


@dataclass(frozen=True)
class FolderImport:
    """What `import_folder` did, counted in files."""

    n_stored: int  # content that was not there yet
    n_present: int  # content that was
    n_unread: int  # of those, files not read again: unchanged name, size and time
    failed: tuple[tuple[str, str], ...]  # (file name, reason)


def import_folder(workspace: Workspace, folder: Folder, names: Iterable[str]) -> FolderImport:
    """Copy image files into the workspace by content and record them as `file:<name>`.

    Bytes are not judged here: an empty or broken file is stored, decoding will say so. A file that can't be read is
    recorded with the reason. Unchanged files (name, size, time) whose bytes are there are not read again.

    Args:
        names: files of `folder` that belong to a row.
    """
    known = read_links(workspace).to_pylist()
    before = {row["link"]: row for row in known if row["link"].startswith(FILE_PREFIX)}
    blobs = {name for fan in workspace.names(BLOBS) for name in workspace.names(f"{BLOBS}/{fan}")}
    wanted = sorted(names)
    rows: list[dict[str, object]] = []
    stored: set[str] = set()
    n_unread = 0

    def take(name: str) -> tuple[dict[str, object], bool]:
        """Its row in links.parquet, and whether it had to be read."""
        file = folder.stat(name)
        old = before.get(FILE_PREFIX + name)
        same = old is not None and (old["n_bytes"], old["mtime_ns"]) == (file.n_bytes, file.mtime_ns)
        if old is not None and same and old["sha256"] in blobs:
            return old, False
        return _store(workspace, folder, file, blobs, stored), True

    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(wanted), desc="images", unit="file", disable=None) as bar,
    ):
        for first in range(0, len(wanted), _BATCH):
            for row, was_read in pool.map(take, wanted[first : first + _BATCH]):
                rows.append(row)
                n_unread += not was_read
                bar.update()
    if any(before.get(str(row["link"])) != row for row in rows):
        merge_links(workspace, pa.Table.from_pylist(rows, schema=LINKS))
    failed = [
        (str(row["link"]).removeprefix(FILE_PREFIX), str(row["reason"])) for row in rows if row["reason"]
    ]
    n_present = len(rows) - len(failed) - len(stored)
    return FolderImport(len(stored), n_present, n_unread, tuple(failed))


def _store(
    workspace: Workspace, folder: Folder, file: ImageFile, blobs: set[str], stored: set[str]
) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(LINKS.names)
    row |= {"link": FILE_PREFIX + file.name, "tries": 1, "n_bytes": file.n_bytes, "mtime_ns": file.mtime_ns}
    try:
        with open(os.path.join(folder.path, file.name), "rb") as image:
            content = image.read(MOST_BYTES + 1)
    except OSError as error:
        return row | {"reason": f"can't be read: {error.strerror or error}"}
    if len(content) > MOST_BYTES:
        return row | {"reason": f"larger than {MOST_BYTES} bytes"}
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in blobs and sha256 not in stored:
        stored.add(sha256)  # two threads with the same content at once write it twice, harmlessly
        workspace.publish_bytes(blob_path(sha256), content)
    return row | {"sha256": sha256, "n_bytes": len(content)}
