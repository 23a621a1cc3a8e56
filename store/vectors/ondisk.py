"""A matrix in a file: rows are read when they are asked for, so that memory holds what is asked for alone."""

import mmap
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RESIDENT_BYTES = 32 * 2**20  # mapped pages are given back after so many were touched
FAULT_BYTES = 64 * 2**10  # that a read of one row maps at the most


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
        self._touched = 0
        self.dtype = X.dtype
        self.shape = (len(X) if index is None else len(index), X.shape[1])

    @classmethod
    def zeros(cls, folder: Path, name: str, shape: tuple[int, int], dtype: Any) -> "OnDisk":
        """A new file of zeros, `NAME.npy` in NumPy's format, open for writing."""
        mapped = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        return cls(mapped)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = index if self._index is None else self._index[index]
        rows = np.array(self._X[chosen])
        self._touch(chosen, len(rows))
        return rows

    def __setitem__(self, index: Any, rows: np.ndarray) -> None:
        chosen = index if self._index is None else self._index[index]
        self._X[chosen] = rows
        self._touch(chosen, len(rows))

    def astype(self, dtype: Any) -> np.ndarray:
        """All rows, in memory."""
        return self[np.arange(len(self))].astype(dtype) if self._index is not None else self[:].astype(dtype)

    def rows(self, index: np.ndarray) -> "OnDisk":
        """The chosen rows, by positions or mask, still in the file."""
        positions = np.arange(len(self)) if self._index is None else self._index
        return OnDisk(self._X, positions[index])

    def _touch(self, chosen: Any, n_rows: int) -> None:
        row_bytes = self._X.strides[0]
        self._touched += n_rows * (row_bytes if isinstance(chosen, slice) else max(row_bytes, FAULT_BYTES))
        if self._touched > RESIDENT_BYTES:
            self._touched = 0
            give_back(self._X)


def give_back(X: np.memmap[Any, Any]) -> None:
    """Let go of a mapped file's pages: what was written stays in the file, what is read next is mapped again."""
    mapped = X._mmap  # type: ignore[attr-defined]
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for such files, gone with the object; `TMPDIR` says on which disk."""
    return tempfile.TemporaryDirectory(prefix="shelfprice-")
