"""A matrix in a file: rows are read when they are asked for, so that memory holds what is asked for alone."""

import io
import itertools
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from store.local import write_error

PAGE_BYTES = 2**21  # that a read of one row maps at the most
MAPPED_PAGES = 16  # before they are given back


class OnDisk:
    """Rows of a file, read like an array's: `matrix[index]` is an ordinary array of the chosen rows.

    Args:
        X: the mapped file, shape (n_rows, n_columns).
        index: which of its rows these are, in this order; None: all.
    """

    ndim = 2

    def __init__(self, X: np.memmap[Any, Any], index: np.ndarray | None = None) -> None:
        self._X = X
        self._index = index
        self.dtype = X.dtype
        self.shape = (len(X) if index is None else len(index), X.shape[1])

    @classmethod
    def zeros(cls, folder: Path, name: str, shape: tuple[int, int], dtype: Any) -> "OnDisk":
        """A new file of zeros, `NAME.npy` in NumPy's format, open for writing.

        Raises:
            WorkspaceError: the disk has no room for it.
        """
        path = folder / f"{name}.npy"
        try:
            mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):  # else a disk that fills up ends the process with a signal
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise write_error(f"{path} (TMPDIR names another disk)", error) from error
        return cls(mapped)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        positions = self._positions(index)
        rows = np.empty((len(positions), self.shape[1]), self.dtype)
        for part in self._parts(positions):
            rows[part] = self._X[positions[part]]
            give_back(self._X)
        return rows

    def __setitem__(self, index: Any, rows: np.ndarray) -> None:
        positions = self._positions(index)
        for part in self._parts(positions):
            self._X[positions[part]] = rows[part]
            give_back(self._X)

    def astype(self, dtype: Any) -> np.ndarray:
        """All rows, in memory."""
        return self[:].astype(dtype)

    def rows(self, index: np.ndarray) -> "OnDisk":
        """The chosen rows, by positions or mask, still in the file."""
        return OnDisk(self._X, self._positions(index))

    def _positions(self, index: Any) -> np.ndarray:
        """Rows of the file, from a slice, positions or a mask."""
        if self._index is not None:
            return self._index[index]
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        return np.flatnonzero(index) if index.dtype == bool else index

    def _parts(self, positions: np.ndarray) -> Iterator[slice]:
        """Positions in parts that map few pages."""
        pages = positions * self._X.strides[0] // PAGE_BYTES
        other = np.cumsum(pages[1:] != pages[:-1]) // MAPPED_PAGES
        ends = [*(np.flatnonzero(np.diff(other, prepend=0)) + 1).tolist(), len(positions)]
        return itertools.starmap(slice, itertools.pairwise([0, *ends]))


class Spool:
    """An array that grows at its end, in an unnamed temporary file or in memory.

    Args:
        in_file: whether in a file; `TMPDIR` says on which disk.
    """

    def __init__(self, dtype: np.dtype[Any], in_file: bool = True) -> None:
        self._dtype, self._n = dtype, 0
        # Closed with the last view of it.
        self._file = tempfile.TemporaryFile(prefix="shelfprice-") if in_file else io.BytesIO()  # noqa: SIM115

    def __len__(self) -> int:
        return self._n

    def add(self, values: np.ndarray) -> None:
        """Copy values to the end.

        Raises:
            WorkspaceError: the disk is full.
        """
        try:
            self._file.write(np.ascontiguousarray(values, self._dtype).data)
            self._file.flush()
        except OSError as error:
            raise write_error(f"to TMPDIR ({tempfile.gettempdir()})", error) from error
        self._n += len(values)

    def array(self) -> np.ndarray:
        """All of them, shape (n,), to be read."""
        if isinstance(self._file, io.BytesIO):
            return np.frombuffer(self._file.getbuffer(), self._dtype)
        return np.memmap(self._file, self._dtype, mode="r", shape=(self._n,))


def give_back(*arrays: np.ndarray) -> None:
    """Release the pages of mapped files: what was written stays in the file, what is read next is mapped again."""
    for X in arrays:
        mapped = getattr(X, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for such files, gone with the object; `TMPDIR` says on which disk."""
    return tempfile.TemporaryDirectory(prefix="shelfprice-")
