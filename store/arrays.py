"""NumPy's archives (`.npz`) that someone else may have written: read within bounds, and never unpickled."""

import math
import os
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from store.errors import CorruptFileError
from store.local import open_regular

MOST_RATIO = 200  # of the bytes that an archive unpacks to and its own
LEAST_BYTES = 2**24  # that any archive may unpack to
KINDS = "biufUS"  # of values: truth, numbers, text; no objects, no structures
HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every array of an `.npz` file, by name.

    Raises:
        CorruptFileError: it is no such archive, its arrays hold objects, or they are not as long as they state.
        OSError: it can't be opened.
    """
    with open_regular(path) as file:
        return arrays_of(file, os.fspath(path))


def arrays_of(file: IO[bytes], name: str) -> dict[str, np.ndarray]:
    """As `read_arrays`, of an open file.

    Args:
        name: that an error calls it by.
    """
    try:
        most = max(LEAST_BYTES, MOST_RATIO * file.seek(0, os.SEEK_END))
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(one.file_size for one in members) > most:
                raise ValueError("it states more bytes than such a file unpacks to")
            return {one.filename.removesuffix(".npy"): _array(archive, one) for one in members}
    except (ValueError, TypeError, EOFError, OverflowError, NotImplementedError, RuntimeError) as error:
        raise _damaged(name, error) from error
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise _damaged(name, error) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"{member.filename} is of version {version}")
        shape, _, dtype = HEADERS[version](file)
        stated = math.prod(shape) * dtype.itemsize
        if dtype.kind not in KINDS or min(shape, default=0) < 0 or stated != member.file_size - file.tell():
            raise ValueError(f"{member.filename} is not the array that its header states")
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _damaged(name: str, error: Exception) -> CorruptFileError:
    return CorruptFileError(f"{name} is not what shelfprice wrote ({' '.join(str(error).split()):.200})")
