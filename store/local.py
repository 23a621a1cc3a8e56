"""Writing to a local disk so that a crash loses nothing that was published."""

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable
from io import BufferedReader
from typing import BinaryIO

from store.errors import WorkspaceError

TEMPORARY_PREFIX = ".writing-"


class NotRegularError(OSError):
    """What lies at a path is a named pipe, a socket or a device."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file that someone else may have put there; a link is followed, and a named pipe is not waited for.

    Raises:
        NotRegularError: it is no regular file.
        OSError: it can't be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _not_regular(path) from error
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise (
            IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
            if stat.S_ISDIR(mode)
            else _not_regular(path)
        )
    return open(path, "rb", opener=lambda *_: handle)


def _not_regular(path: str | os.PathLike[str]) -> NotRegularError:
    return NotRegularError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", os.fspath(path))


def publish_local(target: str, write: Callable[[BinaryIO], object], flush: bool = True) -> None:
    """Write beside `target`, flush, rename; whoever looks sees the old file or the new one.

    Args:
        flush: without it the file is whole to every process, but a power cut may still tear it.
    """
    folder, name = os.path.split(os.path.abspath(target))
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{name}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def publish_file(target: str | os.PathLike[str], content: bytes) -> None:
    """Write a file of the user's, outside of any workspace; one that is there is replaced, a link is followed.

    Raises:
        WorkspaceError: it can't be written.
    """
    try:
        publish_local(os.path.realpath(target), lambda file: file.write(content))
    except OSError as error:
        raise write_error(os.fspath(target), error) from error


def append_local(target: str, content: bytes) -> None:
    """Add to the end of a file in one write; a killed process leaves a part of it at most."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    # Not through a link, which may lead anywhere, nor into a pipe.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.open(target, flags, 0o644)
    try:
        if os.write(file, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def flush_filesystem(path: str) -> None:
    """Flush the file system that holds `path`: one call, far faster than one for each of many files."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None
    if syncfs is None:
        os.sync()
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        if syncfs(folder) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(folder)


def write_error(target: str, error: OSError) -> WorkspaceError:
    """An error of the operating system while writing, as one of ours."""
    if error.errno == errno.ENOSPC:
        return WorkspaceError(f"no space left to write {target}: free some and run the command again")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        parts = os.path.abspath(target).split(os.sep)
        above = (os.sep.join(parts[:n]) for n in range(2, len(parts)))
        blocked = next((one for one in above if os.path.lexists(one) and not os.path.isdir(one)), None)
        if blocked is not None:
            return WorkspaceError(
                f"can't write {target}: {blocked} is no folder: delete what is there in its place"
            )
    is_other = error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO)
    way_on = ": delete what is there in its place" if is_other else ""
    return WorkspaceError(f"can't write {target}: {error.strerror or error}{way_on}")
