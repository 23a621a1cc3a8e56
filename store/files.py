"""Bytes below one root, on a local disk or an object store: the one place that opens, lists, publishes and locks.

A file is written completely or not at all: on a local disk under a temporary name, then flushed and renamed; on an
object store by one PUT. What was published is replaced, never edited.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from store.contracts import ANY, contract_of
from store.errors import CorruptFileError, WorkspaceError
from store.lease import held
from store.local import (
    TEMPORARY_PREFIX,
    NotRegularError,
    append_local,
    flush_filesystem,
    open_regular,
    publish_local,
    write_error,
)
from store.objects import ObjectFile, Objects, check_address

BLOCK_BYTES = 2**20  # least that one request to an object store reads of a file


class Files:
    """A root folder (local path or fsspec URL) and relative POSIX paths below it; nothing is made before a write."""

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

    def path(self, relative: str) -> str:
        """The full path or URL-less key of a relative path.

        Raises:
            WorkspaceError: it leads out of the workspace.
        """
        if relative.startswith("/") or (".." in relative and ".." in relative.split("/")):
            raise WorkspaceError(f"{relative!r} leads out of the workspace {self.root}")
        return f"{self._base}/{relative}" if relative else self._base

    # ---- reading ---------------------------------------------------------------------------------

    def exists(self, relative: str) -> bool:
        """Whether there is a file or a folder; one that may not be looked for is an error, never a no."""
        if not self.is_local:
            return self._objects.exists(self.path(relative))
        try:
            os.stat(self.path(relative))
        except ValueError:  # no path at all
            return False
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise self._unreadable(relative, error) from error
        return True

    def holds(self, relative: str) -> bool:
        """Whether a path lies in the workspace itself, and not behind a link that leads out of it."""
        if not self.is_local or not relative:
            return True
        root, folder = (os.path.realpath(one) for one in (self._base, os.path.dirname(self.path(relative))))
        return os.path.commonpath([root, folder]) == root

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
        except OSError as error:
            raise self._unreadable(folder, error) from error
        return sorted(
            n for n in found if n.startswith(prefix) and n.endswith(suffix) and not n.startswith(".")
        )

    def file_names(self, folder: str) -> list[str]:
        """Names directly in `folder` behind which there is a file: no folder, no link that leads nowhere."""
        if not self.is_local:
            return self.names(folder)
        try:
            with os.scandir(self.path(folder)) as entries:
                return sorted(one.name for one in entries if os.path.isfile(one.path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def size(self, relative: str) -> int:
        """Bytes of a file."""
        if self.is_local:
            return self._stat(relative).st_size
        return int(self._objects.call(self.filesystem.size, self.path(relative)) or 0)

    def folder_bytes(self, folder: str) -> int:
        """Bytes of every file under a folder; 0 where it does not exist."""
        if self.is_local:
            return sum(stat.st_size for _, stat in self._files(folder))
        return int(self._objects.call(self.filesystem.du, self.path(folder))) if self.exists(folder) else 0

    def modified(self, relative: str) -> float:
        """When a file was last published, seconds since 1970."""
        if self.is_local:
            return self._stat(relative).st_mtime
        return float(self._objects.call(self.filesystem.modified, self.path(relative)).timestamp())

    def _stat(self, relative: str) -> os.stat_result:
        try:
            return os.stat(self.path(relative))
        except PermissionError as error:
            raise self._unreadable(relative, error) from error
        except OSError:  # a link that leads nowhere, or to itself
            return os.lstat(self.path(relative))

    def open(self, relative: str) -> BinaryIO:
        """Open for reading; a link is followed.

        Raises:
            CorruptFileError: a pipe, a socket or a device is in its place.
            WorkspaceError: there is no such file, or it may not be read.
        """
        try:
            if self.is_local:
                return open_regular(self.path(relative))
            file = self._objects.call(self.filesystem.open, self.path(relative), "rb", block_size=BLOCK_BYTES)
            return cast(BinaryIO, ObjectFile(self._objects, file))
        except FileNotFoundError as error:
            if self.is_local and os.path.islink(self.path(relative)):
                leads_nowhere = OSError(errno.ELOOP, "it is a link that leads nowhere")
                raise self._unreadable(relative, leads_nowhere) from error
            raise self._absent(relative) from error
        except OSError as error:
            raise self._unreadable(relative, error) from error

    def read_bytes(self, relative: str) -> bytes:
        """Content of a file.

        Raises:
            CorruptFileError: see `open`; or it is larger than a file of its kind can be.
            WorkspaceError: there is no such file, or it can't be read.
        """
        if self.is_local:
            most = contract_of(relative).most_bytes
            with self.open(relative) as file:
                if most is not None and os.fstat(file.fileno()).st_size > most:
                    raise self._unreadable(relative, OSError(errno.EFBIG, f"it is larger than {most} bytes"))
                try:
                    return file.read()
                except OSError as error:
                    raise self._unreadable(relative, error) from error
        try:
            return bytes(self._objects.call(self.filesystem.cat_file, self.path(relative)))
        except FileNotFoundError as error:
            raise self._absent(relative) from error

    def _absent(self, relative: str) -> WorkspaceError:
        contract = contract_of(relative)
        way_on = f": {contract.made_by}" if contract is not ANY else ""
        return WorkspaceError(f"workspace {self.root} has no {relative}{way_on}")

    def _unreadable(self, relative: str, error: OSError) -> WorkspaceError:
        message = f"can't read {self.path(relative)}: {error.strerror or error}"
        is_damage = isinstance(error, NotRegularError) or error.errno == errno.EFBIG
        # Something else is in its place, which the user has to look at.
        if is_damage or error.errno in (errno.EISDIR, errno.ELOOP):
            made_by = contract_of(relative).made_by
            message += f": {made_by}" if made_by.startswith("delete ") else f": delete it, then {made_by}"
        return CorruptFileError(message) if is_damage else WorkspaceError(message)

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

    def remove(self, relative: str) -> None:
        """Delete one file, link or folder; no error where it is gone already.

        Raises:
            WorkspaceError: it may not be deleted, or is a folder behind a link that leads out of the workspace.
        """
        target = self.path(relative)
        if not self.is_local:
            if self.exists(relative):
                self._objects.call(self.filesystem.rm, target, recursive=True)
            return
        try:
            if os.path.isdir(target) and not os.path.islink(target):
                if not self.holds(relative):
                    raise WorkspaceError(f"{target} lies behind a link out of the workspace: delete it there")
                shutil.rmtree(target)
            else:
                os.unlink(target)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise WorkspaceError(f"can't remove {target}: {error.strerror or error}") from error

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
            # Not through a link, and what lies there is left as it is.
            handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise write_error(target, error) from error
        with os.fdopen(handle, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sweep(self, *folders: str, older_than_seconds: float = 3600.0) -> int:
        """Delete what killed writers left half-written directly in these folders; returns how many files went."""
        n_swept = 0
        for folder in folders if self.is_local else ():
            with suppress(OSError):  # there is no such folder, or nothing may be deleted in it
                for entry in Path(self.path(folder)).iterdir():
                    with suppress(FileNotFoundError):  # its writer has just renamed it
                        is_left = entry.name.startswith(TEMPORARY_PREFIX)
                        if is_left and time.time() - entry.stat().st_mtime > older_than_seconds:
                            entry.unlink()
                            n_swept += 1
        return n_swept

    def half_written(self, older_than_seconds: float) -> Iterator[str]:
        """Files anywhere below the root that killed writers left half-written."""
        for path, stat in self._files("") if self.is_local else ():
            if (
                os.path.basename(path).startswith(TEMPORARY_PREFIX)
                and time.time() - stat.st_mtime > older_than_seconds
            ):
                yield os.path.relpath(path, self.path("")).replace(os.sep, "/")

    def _files(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Full path of every file below a local folder; one that goes meanwhile is passed over."""
        for at, _, names in os.walk(self.path(folder)):
            for path in (os.path.join(at, name) for name in names):
                with suppress(FileNotFoundError):
                    yield path, os.lstat(path)
