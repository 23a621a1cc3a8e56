"""Sets of content keys as sorted arrays: 16 bytes a row, whatever the catalogue's size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from store.schema import KEY_BYTES, KEY_TYPE

DTYPE = np.dtype(f"S{KEY_BYTES}")
BLOCK_KEYS = 2**20  # looked at together
NO_KEYS = np.array([], dtype=DTYPE)


def key_array(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Keys that are not null, shape (n_keys,), `S16`. Compare only with such arrays: NumPy hides trailing zeros."""
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    keys = keys.drop_null()
    return np.frombuffer(keys.buffers()[1], dtype=DTYPE, count=len(keys), offset=keys.offset * KEY_BYTES)


def key_bytes(keys: np.ndarray) -> list[bytes]:
    """All 16 bytes of each key."""
    content = np.ascontiguousarray(keys).tobytes()
    return [content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)]


def arrow_keys(keys: Sequence[bytes]) -> pa.Array:
    """Keys as Arrow stores them."""
    return pa.array(keys, KEY_TYPE)


def union(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Sorted distinct keys."""
    keys = np.concatenate([NO_KEYS, *parts])
    keys = keys[sorting(keys)]
    return keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys


def contains(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of `keys` are in `sorted_keys`, shape (n_keys,) bool."""
    return locate(sorted_keys, keys) >= 0


def locate(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Position of each key in `sorted_keys`, -1 where it is not, shape (n_keys,) int64."""
    if len(sorted_keys) == 0:
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[at] == keys, at, -1)


def without(sorted_keys: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Keys of the first set that are not in the second, sorted."""
    return sorted_keys[~contains(removed, sorted_keys)]


@dataclass(frozen=True)
class KeyedRows:
    """Rows by content key, in the order of the keys: a row is found without a hash table of all of them."""

    keys: np.ndarray  # (n_filled,) sorted, repeats kept
    row: np.ndarray  # (n_filled,) the row of each

    @classmethod
    def of(cls, keys: pa.Array) -> "KeyedRows":
        """Of the rows' keys, shape (n_rows,), null where a row has no content."""
        present = key_array(keys)
        rows = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
        order = sorting(present)
        return cls(present[order], rows[order])

    def holding(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every row that has one of these distinct keys: rows, ascending, and the position of each one's key."""
        at = sorting(keys)  # in order, a search stays where the one before it ended
        first = np.searchsorted(self.keys, keys[at], "left")
        count = np.searchsorted(self.keys, keys[at], "right") - first
        source = np.repeat(np.arange(len(keys)), count)
        within = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count)
        rows = self.row[first[source] + within]
        order = np.argsort(rows)
        return rows[order], at[source[order]]


def sorting(keys: np.ndarray) -> np.ndarray:
    """Positions that sort keys, by their first 8 bytes as numbers where those tell them apart."""
    order = np.argsort(_head(keys))
    for start in range(0, len(keys), BLOCK_KEYS):
        block = keys[order[start : start + BLOCK_KEYS + 1]]
        if bool((block[1:] < block[:-1]).any()):
            return np.argsort(keys, kind="stable")
    return order


def _head(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys).view(">u8")[::2].astype(np.uint64)
