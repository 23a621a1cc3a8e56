"""Images on disk: links.parquet says which bytes a reference stands for; blobs hold the bytes by content."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
from tqdm import tqdm

from store.catalog.images.folder import Folder, ImageFile
from store.catalog.images.links import FILE_PREFIX, MADE_AGAIN, merge_links, read_links
from store.contracts import IMAGE_BYTES
from store.errors import CorruptFileError, StoreError, WorkspaceError
from store.local import open_regular
from store.schema import LINKS
from store.workspace import Workspace

BLOBS = "images/blobs"
DAMAGED_PREFIX = "damaged-"  # of the name of a blob that was put aside
MOST_BYTES = IMAGE_BYTES  # of one image file; more is no image
KILLED_SECONDS = 60.0  # a file to which nothing was added for so long belongs to a killed run
_THREADS = 16
_BATCH = 4096


def blob_path(sha256_hex: str) -> str:
    """Where the bytes with this digest lie: two characters of fan-out, then the digest."""
    return f"{BLOBS}/{sha256_hex[:2]}/{sha256_hex}"


def read_blob(workspace: Workspace, sha256_hex: str) -> bytes:
    """The image with this digest. Bytes that have another one are put aside, so that they can be fetched again.

    Raises:
        CorruptFileError: its bytes are others.
        StoreError: it can't be read, for another reason than damage.
        WorkspaceError: it is not there.
    """
    path = blob_path(sha256_hex)
    aside = f"{BLOBS}/{sha256_hex[:2]}/{DAMAGED_PREFIX}{sha256_hex}"
    try:
        content = workspace.read_bytes(path)
    except StoreError:
        raise
    except WorkspaceError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise StoreError(str(error)) from error
        if not workspace.exists(aside):
            raise WorkspaceError(f"image {path} is gone: {MADE_AGAIN}") from error
    else:
        if hashlib.sha256(content).hexdigest() == sha256_hex:
            return content
        with suppress(WorkspaceError):  # read only, or another thread was faster
            workspace.rename(path, aside)
    raise CorruptFileError(
        f"image {path} is damaged (its digest does not match) and was renamed: {MADE_AGAIN}"
    )


def damaged_blobs(workspace: Workspace, digests: Iterable[str]) -> dict[str, str]:
    """Digest -> why it can't be read, of every image that can't; reads all of them."""

    def problem(sha256_hex: str) -> str | None:
        try:
            read_blob(workspace, sha256_hex)
        except StoreError:
            raise
        except (WorkspaceError, OSError) as error:
            return str(error)
        return None

    asked = list(digests)
    with ThreadPoolExecutor(_THREADS) as pool:
        return {one: why for one, why in zip(asked, pool.map(problem, asked), strict=True) if why is not None}


def stored_digests(workspace: Workspace) -> set[str]:
    """Digests of every blob that lies here, by name."""
    return {
        name
        for fan in workspace.names(BLOBS)
        for name in workspace.file_names(f"{BLOBS}/{fan}")
        if len(name) == 64 and name.startswith(fan)
    }


def lost_images(workspace: Workspace) -> set[str]:
    """Digests of images that links.parquet names and that don't lie here."""
    return set(read_links(workspace)["sha256"].drop_null().to_pylist()) - stored_digests(workspace)


def sweep_images(workspace: Workspace) -> int:
    """Delete what killed runs left half-written among the images; returns how many files went."""
    folders = ["images", *(f"{BLOBS}/{fan}" for fan in workspace.names(BLOBS))] if workspace.is_local else []
    return workspace.sweep(*folders, older_than_seconds=KILLED_SECONDS)


@dataclass(frozen=True)
class FolderImport:
    """What `import_folder` did, counted in files."""

    n_stored: int  # content that was not there yet
    n_present: int  # content that was
    n_unread: int  # of those, files not read again: unchanged name, size and time
    failed: tuple[tuple[str, str], ...]  # (file name, reason)
    # Of those read now, by their first bytes: (file name, what it is).
    no_images: tuple[tuple[str, str], ...] = ()


def import_folder(workspace: Workspace, folder: Folder, names: Iterable[str]) -> FolderImport:
    """Copy image files into the workspace by content and record them as `file:<name>`.

    Of a file only the first bytes are looked at here: an empty or broken one is stored as well, and decoding says what
    it is. A file that can't be read is recorded with the reason. Unchanged files (name, size, time) whose bytes are
    there are not read again.

    Args:
        names: files of `folder` that belong to a row.
    """
    sweep_images(workspace)
    known = read_links(workspace).to_pylist()
    before = {row["link"]: row for row in known if row["link"].startswith(FILE_PREFIX)}
    blobs = stored_digests(workspace)
    wanted = sorted(names)
    rows: list[dict[str, object]] = []
    stored: set[str] = set()
    no_images: dict[str, str] = {}
    n_unread = 0

    def take(name: str) -> tuple[dict[str, object], bool]:
        """Its row in links.parquet, and whether it had to be read."""
        file = folder.stat(name)
        old = before.get(FILE_PREFIX + name)
        same = old is not None and (old["n_bytes"], old["mtime_ns"]) == (file.n_bytes, file.mtime_ns)
        if old is not None and same and old["sha256"] in blobs:
            return old, False
        return _store_file(workspace, folder, file, blobs, stored, no_images), True

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
    return FolderImport(len(stored), n_present, n_unread, tuple(failed), tuple(sorted(no_images.items())))


def import_content(workspace: Workspace, content: Mapping[str, bytes | pa.Buffer | None]) -> int:
    """Keep images that came as bytes, and record them; returns how many contents were not there yet.

    Args:
        content: reference -> bytes, or an Arrow buffer of them; None: they could not be read, which is recorded.
    """
    before = {row["link"]: row for row in read_links(workspace).to_pylist() if row["link"] in content}
    blobs = stored_digests(workspace)
    stored: set[str] = set()

    def take(one: tuple[str, bytes | pa.Buffer | None]) -> dict[str, object]:
        row = dict.fromkeys(LINKS.names) | {"link": one[0], "tries": 1}
        if one[1] is None:
            return row | {"reason": "a data: URI that can't be read"}
        return row | _store(workspace, one[1], blobs, stored)

    with ThreadPoolExecutor(_THREADS) as pool:
        rows = list(tqdm(pool.map(take, content.items()), "images", len(content), unit="image", disable=None))
    if any(before.get(str(row["link"])) != row for row in rows):
        merge_links(workspace, pa.Table.from_pylist(rows, schema=LINKS))
    return len(stored)


def _store_file(
    workspace: Workspace,
    folder: Folder,
    file: ImageFile,
    blobs: set[str],
    stored: set[str],
    no_images: dict[str, str],
) -> dict[str, object]:
    from store.catalog.download.images import SNIFF_BYTES, describe_other, sniff  # imports Pillow

    row: dict[str, object] = dict.fromkeys(LINKS.names)
    row |= {"link": FILE_PREFIX + file.name, "tries": 1, "n_bytes": file.n_bytes, "mtime_ns": file.mtime_ns}
    try:
        with open_regular(os.path.join(folder.path, file.name)) as image:
            content = image.read(MOST_BYTES + 1)
    except OSError as error:
        return row | {"reason": f"can't be read: {error.strerror or error}"}
    if sniff(content[:SNIFF_BYTES]) is None:
        no_images[file.name] = describe_other(content[:SNIFF_BYTES])
    return row | _store(workspace, content, blobs, stored)


def _store(
    workspace: Workspace, content: bytes | pa.Buffer, blobs: set[str], stored: set[str]
) -> dict[str, object]:
    """Keep the bytes where they are not yet; what the row in links.parquet says of them."""
    if len(content) > MOST_BYTES:
        return {"reason": f"larger than {MOST_BYTES} bytes"}
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in blobs and sha256 not in stored:
        stored.add(sha256)  # two threads with the same content at once write it twice, harmlessly
        workspace.publish(blob_path(sha256), lambda target: target.write(content))
    return {"sha256": sha256, "n_bytes": len(content)}
