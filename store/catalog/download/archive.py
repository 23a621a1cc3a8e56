"""Export images to a folder or a tar, and import them elsewhere; an import relies only on digests."""

import io
import os
import re
import secrets
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.catalog.download.record import IMAGES_LOCK, file_sha256, fold_journals, read_journal
from store.catalog.download.rows import show_images
from store.catalog.images.blobs import MOST_BYTES, blob_path, stored_digests, sweep_images
from store.catalog.images.links import LINKS_FILE, links_by_schema, mend_links, merge_links, read_links
from store.errors import CatalogError, WorkspaceError
from store.local import TEMPORARY_PREFIX
from store.schema import LINKS
from store.workspace import Workspace

_BLOB = re.compile(r"(?:.*/)?blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_LINKS = re.compile(r"(?:\./)?(?:images/)?links\.parquet")
_JOURNAL = re.compile(r"(?:\./)?(?:images/)?journal/[^/]+\.jsonl")
MOST_RECORD_BYTES = 2**30  # of one file of records, packed and again unpacked; a link takes about 200
MOST_EXPANSION, LEAST_UNPACKED_BYTES = 20, 2**24  # times its own bytes that a links.parquet may unpack to
MOST_VALUE_BYTES = 2**16  # of one link or reason
_RECORDS_AT_ONCE = 1024


@dataclass
class ArchiveTransfer:
    """What was handed over or taken in."""

    n_links: int = 0
    n_images: int = 0
    n_bytes: int = 0
    n_present: int = 0  # images that were here already
    odd: Counter[str] = field(default_factory=Counter)

    @property
    def passed_over(self) -> list[tuple[str, int]]:
        """(why, how many) of what was not taken, most frequent first."""
        return self.odd.most_common()


def export_images(workspace: Workspace, target: str) -> ArchiveTransfer:
    """Write links.parquet and every image it names to a new folder, or a file ending in `.tar`.

    Raises:
        CatalogError: there is nothing to hand over, or the target exists and is not an empty folder.
        WorkspaceError: the target can't be written.
    """
    path = Path(target)
    is_tar = path.suffix == ".tar"
    if path.exists() and (is_tar or not path.is_dir() or any(path.iterdir())):
        raise CatalogError(f"--to must be a new file or an empty folder, {target} exists: name another")
    with workspace.lock(IMAGES_LOCK):
        fold_journals(workspace)
        links = read_links(workspace)
        there = stored_digests(workspace)
        digests = sorted(set(links["sha256"].drop_null().to_pylist()) & there)
        if not digests:
            raise CatalogError(
                f"no images in {workspace.root}: run 'shelfprice catalog images -w {workspace.root}'"
            )
        done = ArchiveTransfer(n_links=len(links))
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            if is_tar:
                _write_tar(workspace, links, digests, path, done)
            else:
                _write_folder(workspace, links, digests, path, done)
        except OSError as error:
            raise WorkspaceError(f"can't write {target}: {error.strerror or error}") from error
    return done


def import_images(workspace: Workspace, source: str) -> ArchiveTransfer:
    """Take in what `export_images` wrote, or an `images/` folder as it lies in a workspace.

    An image counts only if its bytes have the digest that it is named by. A link that has an image here
    keeps it.

    Raises:
        CatalogError: the source is neither, or its links.parquet is missing or damaged.
        WorkspaceError: the workspace can't be written.
    """
    done = ArchiveTransfer()
    records: list[pa.Table] = []
    with workspace.lock(IMAGES_LOCK):
        if mend_links(workspace):
            done.odd[f"{LINKS_FILE} of this workspace, damaged and put aside"] += 1
        sweep_images(workspace)
        fold_journals(workspace)
        there = stored_digests(workspace)
        with _whole(source), closing(_files_of(source)) as files:
            for name, n_bytes, file in files:
                blob = _BLOB.fullmatch(name)
                if file is None:
                    done.odd["links and special files"] += 1
                elif blob is not None:
                    _take_blob(workspace, blob[2], n_bytes, file, there, done)
                elif _LINKS.fullmatch(name):
                    records.insert(0, _records(source, name, n_bytes, file, _links_table))
                elif _JOURNAL.fullmatch(name):
                    records.append(_records(source, name, n_bytes, file, _journal_table))
                elif not os.path.basename(name).startswith("."):
                    done.odd["files that are no image by digest"] += 1
        if not records:
            raise CatalogError(
                f"{source} holds no links.parquet: name a folder or tar written by images-export"
            )
        offered = _last_of_each(pa.concat_tables(records))
        lacking = set(offered["sha256"].drop_null().to_pylist()) - there
        if lacking:  # so is a tar that was cut off between two files
            done.odd["images that its links name and it does not hold"] += len(lacking)
        new = _worth_taking(read_links(workspace), offered, there)
        workspace.flush()
        if len(new):
            merge_links(workspace, new)
        done.n_links = len(new)
        show_images(workspace)
    return done


# ---- writing -------------------------------------------------------------------------------------


def _write_folder(
    workspace: Workspace, links: pa.Table, digests: list[str], path: Path, done: ArchiveTransfer
) -> None:
    building = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        building.mkdir()
        pq.write_table(links, building / "links.parquet", compression="zstd", write_page_checksum=True)
        for sha256 in digests:
            blob = building / "blobs" / sha256[:2] / sha256
            blob.parent.mkdir(parents=True, exist_ok=True)
            with workspace.open(blob_path(sha256)) as file, open(blob, "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                done.n_bytes += copy.tell()
            done.n_images += 1
        if path.exists():
            path.rmdir()
        building.rename(path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _write_tar(
    workspace: Workspace, links: pa.Table, digests: list[str], path: Path, done: ArchiveTransfer
) -> None:
    building = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        with tarfile.open(building, "w", format=tarfile.PAX_FORMAT) as tar:
            buffer = io.BytesIO()
            pq.write_table(links, buffer, compression="zstd", write_page_checksum=True)
            _add(tar, "links.parquet", buffer.tell(), buffer)
            for sha256 in digests:
                relative = blob_path(sha256)
                n_bytes = workspace.size(relative)
                with workspace.open(relative) as file:
                    _add(tar, relative.removeprefix("images/"), n_bytes, file)
                done.n_bytes += n_bytes
                done.n_images += 1
        building.rename(path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise


def _add(tar: tarfile.TarFile, name: str, n_bytes: int, file: IO[bytes]) -> None:
    """Add with no time, owner or mode of this machine: the same images give the same tar."""
    entry = tarfile.TarInfo(name)
    entry.size = n_bytes
    file.seek(0)
    tar.addfile(entry, file)


# ---- reading -------------------------------------------------------------------------------------


def _files_of(source: str) -> Generator[tuple[str, int, IO[bytes] | None], None, None]:
    """(relative name, bytes, open file) of every file in a folder or tar; None: it is no regular one."""
    if os.path.isdir(source):
        for folder, folders, names in os.walk(source):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in sorted([*names, *links]):
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, source).replace(os.sep, "/")
                if os.path.islink(path) or not os.path.isfile(path):
                    yield relative, 0, None
                    continue
                with _opened(path) as file:
                    yield relative, os.fstat(file.fileno()).st_size, file
        return
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                if member.issparse():  # a sparse file: a few bytes may unpack to any number
                    raise CatalogError(
                        f"{member.name} of {source} can't be read: {member.size} bytes as a sparse file, which "
                        "images-export does not write"
                    )
                if not member.isdir():
                    yield member.name, member.size, tar.extractfile(member) if member.isreg() else None
    except (EOFError, ValueError, IndexError, KeyError) as error:  # tarfile lets them out of damaged headers
        raise tarfile.ReadError(f"damaged header, {error}") from error


@contextmanager
def _whole(source: str) -> Iterator[None]:
    """Errors of tarfile while headers or contents are read, as CatalogError."""
    try:
        yield
    except tarfile.TarError as error:
        raise CatalogError(f"{source} is not a whole tar: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        file = open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW))  # noqa: SIM115 - closed below
    except OSError as error:
        raise CatalogError(f"can't read {path}: {error.strerror or error}") from error
    with file:
        yield file


def _take_blob(
    workspace: Workspace, sha256: str, n_bytes: int, file: IO[bytes], there: set[str], done: ArchiveTransfer
) -> None:
    if sha256 in there:
        done.n_present += 1
        return
    if n_bytes > MOST_BYTES:
        done.odd[f"images over {MOST_BYTES} bytes"] += 1
        return
    with tempfile.SpooledTemporaryFile(1_000_000) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        if file_sha256(copy) != sha256:
            done.odd["images whose bytes do not match their digest"] += 1
            return

        def write(target: BinaryIO) -> None:
            copy.seek(0)
            shutil.copyfileobj(copy, target, 1 << 20)

        workspace.publish(blob_path(sha256), write, flush=False)
    there.add(sha256)
    done.n_images += 1
    done.n_bytes += n_bytes


def _records(
    source: str, name: str, n_bytes: int, file: IO[bytes], read: Callable[[bytes], pa.Table]
) -> pa.Table:
    try:
        if n_bytes > MOST_RECORD_BYTES:
            raise ValueError(f"{n_bytes} bytes, {MOST_RECORD_BYTES} at most")
        return read(file.read(n_bytes))
    except (pa.ArrowException, OSError, ValueError, AttributeError) as error:
        raise CatalogError(f"{name} of {source} can't be read: {error}") from error


def _links_table(content: bytes) -> pa.Table:
    """Of links.parquet, unpacked a little at a time: few bytes can stand for any number of links, and long ones."""
    most = min(MOST_RECORD_BYTES, max(LEAST_UNPACKED_BYTES, MOST_EXPANSION * len(content)))
    too_much = ValueError(f"more than {most} bytes when unpacked")
    texts = [field.name for field in LINKS if pa.types.is_string(field.type)]
    with pq.ParquetFile(io.BytesIO(content), read_dictionary=texts) as file:
        if sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)) > most:
            raise too_much
        parts, n_bytes = [LINKS.empty_table()], 0
        for batch in file.iter_batches(_RECORDS_AT_ONCE, columns=LINKS.names):
            for column in batch.columns:
                values = column.dictionary if pa.types.is_dictionary(column.type) else column
                if (
                    pa.types.is_string(values.type)
                    and (pc.max(pc.binary_length(values)).as_py() or 0) > MOST_VALUE_BYTES
                ):
                    raise ValueError(f"a value of more than {MOST_VALUE_BYTES} bytes")
            parts.append(links_by_schema(pa.Table.from_batches([batch])))
            n_bytes += parts[-1].nbytes
            if n_bytes > most:
                raise too_much
    return pa.concat_tables(parts).combine_chunks()


def _journal_table(content: bytes) -> pa.Table:
    return pa.Table.from_pylist(list(read_journal(content)), schema=LINKS)


def _last_of_each(table: pa.Table) -> pa.Table:
    last = {link: position for position, link in enumerate(table["link"].to_pylist()) if link is not None}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


def _worth_taking(here: pa.Table, offered: pa.Table, there: set[str]) -> pa.Table:
    """Rows that tell more than what is known: an image where there is none, a reason where nothing is known."""
    present = pa.array(sorted(there), pa.string())
    with_image = pc.is_in(offered["sha256"], value_set=present, skip_nulls=True)
    stored = here.filter(pc.is_in(here["sha256"], value_set=present, skip_nulls=True))["link"]
    is_stored = pc.is_in(offered["link"], value_set=stored.combine_chunks())
    is_known = pc.is_in(offered["link"], value_set=here["link"].combine_chunks())
    failed = pc.and_(pc.is_null(offered["sha256"]), pc.invert(is_known))
    return offered.filter(pc.or_(pc.and_(with_image, pc.invert(is_stored)), failed))
