"""Every path under one root: the one place that opens, lists and publishes.

A file appears whole or not at all: on a local disk it is written beside its place, flushed and
renamed; on an object store it is one PUT. What was published is replaced, never edited.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from store.errors import CorruptFileError, WorkspaceError
from store.lease import held
from store.local import TEMPORARY_PREFIX, append_local, flush_filesystem, publish_local, write_error
from store.objects import ObjectFile, Objects, check_address

METADATA_KEY = b"shelfprice"
ROW_GROUP_ROWS = 8192
BLOCK_BYTES = 2**20  # least that one request to an object store reads of a file


class Workspace:
    """A root folder (local path or fsspec URL) and relative POSIX paths below it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        check_address(self.root)
        options: dict[str, Any] = {"use_listings_cache": False} if "://" in self.root else {}
        try:
            filesystem, path = fsspec.core.url_to_fs(self.root, **options)
        except (ImportError, ValueError) as error:
            raise WorkspaceError(
                f"workspace {self.root!r} can't be opened: {error} (for s3:// install 'shelfprice[s3]')"
            ) from error
        self.filesystem = filesystem
        self.is_local = isinstance(filesystem, LocalFileSystem)
        self._objects = Objects(filesystem, self.root)
        self._base = path.rstrip("/")

    @classmethod
    def of(cls, root: "Workspace | str | os.PathLike[str]") -> "Workspace":
        """A workspace as it is, or the one at a path or URL."""
        return root if isinstance(root, Workspace) else cls(root)

    def __repr__(self) -> str:
        return f"Workspace({self.root!r})"

    def path(self, relative: str) -> str:
        """The full path or URL-less key of a relative path."""
        return f"{self._base}/{relative}" if relative else self._base

    # ---- reading ---------------------------------------------------------------------------------

    def exists(self, relative: str) -> bool:
        if self.is_local:
            return os.path.exists(self.path(relative))
        return self._objects.exists(self.path(relative))

    def names(self, folder: str, prefix: str = "", suffix: str = "") -> list[str]:
        """Sorted names (files and folders) directly in `folder`; none where it does not exist."""
        try:
            if self.is_local:
                found = os.listdir(self.path(folder))
            else:
                self.filesystem.invalidate_cache(self.path(folder))
                listed = self._objects.call(self.filesystem.ls, self.path(folder), detail=False)
                found = [os.path.basename(p.rstrip("/")) for p in listed]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            n for n in found if n.startswith(prefix) and n.endswith(suffix) and not n.startswith(".")
        )

    def size(self, relative: str) -> int:
        """Bytes of a file."""
        if self.is_local:
            return os.path.getsize(self.path(relative))
        return int(self._objects.call(self.filesystem.size, self.path(relative)) or 0)

    def folder_bytes(self, folder: str) -> int:
        """Bytes of every file under a folder; 0 where it does not exist."""
        return int(self._objects.call(self.filesystem.du, self.path(folder))) if self.exists(folder) else 0

    def modified(self, relative: str) -> float:
        """When a file was last published, seconds since 1970."""
        return float(self._objects.call(self.filesystem.modified, self.path(relative)).timestamp())

    def open(self, relative: str) -> BinaryIO:
        """Open for reading.

        Raises:
            WorkspaceError: there is no such file.
        """
        try:
            if self.is_local:
                return open(self.path(relative), "rb")
            file = self._objects.call(self.filesystem.open, self.path(relative), "rb", block_size=BLOCK_BYTES)
            return cast(BinaryIO, ObjectFile(self._objects, file))
        except FileNotFoundError as error:
            raise WorkspaceError(f"workspace {self.root} has no {relative}") from error

    def read_bytes(self, relative: str) -> bytes:
        if self.is_local:
            with self.open(relative) as file:
                return file.read()
        try:
            return bytes(self._objects.call(self.filesystem.cat_file, self.path(relative)))
        except FileNotFoundError as error:
            raise WorkspaceError(f"workspace {self.root} has no {relative}") from error

    def read_json(self, relative: str) -> Any:
        try:
            return json.loads(self.read_bytes(relative))
        except ValueError as error:
            raise CorruptFileError(f"{self.path(relative)} is not JSON: {error}") from error

    @contextmanager
    def parquet(
        self, relative: str, *, memory_map: bool = True, whole: bool = False
    ) -> Iterator[pq.ParquetFile]:
        """An open Parquet file whose page checksums are verified as it is read.

        Args:
            memory_map: map a local file; what was read of it counts as this process's memory until it is closed.
            whole: all of it will be read: an object store is asked once.
        """
        if self.is_local and not self.exists(relative):
            raise WorkspaceError(f"workspace {self.root} has no {relative}")
        source: Any = self.path(relative)
        if not self.is_local:
            source = pa.BufferReader(self.read_bytes(relative)) if whole else self.open(relative)
        try:
            with pq.ParquetFile(
                source, memory_map=self.is_local and memory_map, page_checksum_verification=True
            ) as file:
                yield file
        except (pa.ArrowInvalid, OSError) as error:
            raise CorruptFileError(f"{self.path(relative)} is damaged: {error}") from error

    def read_table(self, relative: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self.parquet(relative, whole=columns is None) as file:
            return file.read(columns=list(columns) if columns is not None else None)

    def batches(
        self, relative: str, columns: Sequence[str] | None = None, rows: int = ROW_GROUP_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Stream a Parquet file; memory holds one batch."""
        with self.parquet(relative, memory_map=False) as file:
            yield from file.iter_batches(
                batch_size=rows, columns=list(columns) if columns is not None else None
            )

    def read_metadata(self, relative: str) -> dict[str, Any]:
        """The JSON that `publish_table` stored beside the columns; empty where there is none."""
        with self.parquet(relative) as file:
            return table_metadata(file.schema_arrow)

    # ---- publishing ------------------------------------------------------------------------------

    def publish(self, relative: str, write: Callable[[BinaryIO], object], *, flush: bool = True) -> None:
        """Make `relative` appear whole, holding what `write` writes; replaces what stood there.

        Args:
            flush: wait until it would outlive a power cut. Without, call `flush` after many of them and
                before anything is published that counts on them.

        Raises:
            WorkspaceError: the disk is full or the workspace can't be written; nothing half-written stays.
        """
        target = self.path(relative)
        try:
            if self.is_local:
                publish_local(target, write, flush)
            else:
                buffer = pa.BufferOutputStream()
                write(cast(BinaryIO, pa.PythonFile(buffer, mode="w")))
                self._objects.call(self.filesystem.pipe_file, target, buffer.getvalue().to_pybytes())
        except OSError as error:
            raise write_error(target, error) from error

    def flush(self) -> None:
        """Wait until everything published here would outlive a power cut."""
        if self.is_local:
            try:
                flush_filesystem(self.path(""))
            except OSError as error:
                raise write_error(self.path(""), error) from error

    def append(self, relative: str, content: bytes) -> None:
        """Add to the end of a local file, in one write; a killed process leaves a part of it at most.

        Raises:
            WorkspaceError: the disk is full or the workspace can't be written.
        """
        target = self.path(relative)
        try:
            append_local(target, content)
        except OSError as error:
            raise write_error(target, error) from error

    def create(self, relative: str, content: bytes) -> bool:
        """Publish a file on an object store unless there is one already; whether it was published."""
        try:
            self._objects.call(self.filesystem.pipe_file, self.path(relative), content, mode="create")
        except FileExistsError:
            return False
        return True

    def publish_bytes(self, relative: str, content: bytes) -> None:
        self.publish(relative, lambda file: file.write(content))

    def publish_json(self, relative: str, value: Any) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.publish_bytes(relative, (text + "\n").encode())

    def publish_table(
        self,
        relative: str,
        table: pa.Table,
        metadata: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Publish a table as Parquet with page checksums; `metadata` is stored as JSON in its schema."""
        if metadata is not None:
            encoded = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
            table = table.replace_schema_metadata({METADATA_KEY: encoded})
        settings = {"compression": "zstd", "row_group_size": ROW_GROUP_ROWS, **options}

        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, write_page_checksum=True, **settings)

        self.publish(relative, write)

    def remove(self, relative: str) -> None:
        """Delete one file or folder; no error where it is gone already."""
        if self.exists(relative):
            self._objects.call(self.filesystem.rm, self.path(relative), recursive=True)

    def rename(self, relative: str, to: str) -> None:
        """Move one file within the workspace.

        Raises:
            WorkspaceError: the workspace can't be written.
        """
        try:
            self._objects.call(self.filesystem.mv, self.path(relative), self.path(to))
        except OSError as error:
            raise WorkspaceError(f"can't rename {self.path(relative)}: {error.strerror or error}") from error

    # ---- one writer at a time --------------------------------------------------------------------

    @contextmanager
    def lock(self, relative: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold `relative` as an advisory lock: freed by the kernel however the process ends.

        An object store has none: there it is a lease, which lapses a minute after its holder died.
        """
        if not self.is_local:
            with held(self, relative, on_wait):
                yield
            return
        import fcntl

        target = self.path(relative)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            file = open(target, "wb")  # noqa: SIM115 - closed below, after the lock is released
        except OSError as error:
            raise WorkspaceError(f"can't write {target}: {error.strerror or error}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sweep(self, folder: str, older_than_seconds: float = 3600.0) -> int:
        """Delete what killed writers left half-written in `folder`; returns how many files went."""
        if not self.is_local or not os.path.isdir(self.path(folder)):
            return 0
        stale = [
            entry
            for entry in Path(self.path(folder)).iterdir()
            if entry.name.startswith(TEMPORARY_PREFIX)
            and time.time() - entry.stat().st_mtime > older_than_seconds
        ]
        for entry in stale:
            entry.unlink(missing_ok=True)
        return len(stale)


def table_metadata(schema: pa.Schema) -> dict[str, Any]:
    """The JSON that `Workspace.publish_table` stored in a schema; empty where there is none."""
    encoded = (schema.metadata or {}).get(METADATA_KEY)
    return json.loads(encoded) if encoded else {}
