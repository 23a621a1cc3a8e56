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
    """Sorted distinct keys of sorted distinct parts; one part alone is given back as it is."""
    filled = [part for part in parts if len(part)]
    if len(filled) == 1:
        return filled[0]
    return _distinct(np.concatenate([NO_KEYS, *filled]))


def contains(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of `keys` are in `sorted_keys`, shape (n_keys,) bool."""
    found = np.zeros(len(keys), dtype=bool)
    if len(sorted_keys):
        for start in range(0, len(keys), BLOCK_KEYS):
            part = slice(start, start + BLOCK_KEYS)
            found[part] = locate(sorted_keys, keys[part]) >= 0
    return found


def count_of(sorted_keys: np.ndarray, keys: np.ndarray) -> int:
    """How many of `keys` are in `sorted_keys`."""
    return int(contains(sorted_keys, keys).sum()) if len(sorted_keys) else 0


def locate(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Position of each key in `sorted_keys`, -1 where it is not, shape (n_keys,) int64."""
    if len(sorted_keys) == 0:
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[at] == keys, at, -1)


def without(sorted_keys: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Keys of the first set that are not in the second, sorted."""
    return sorted_keys[~contains(removed, sorted_keys)] if len(removed) else sorted_keys


class KeyBuffer:
    """Gathers keys in one array, which grows by half where its size was not foreseen."""

    def __init__(self, capacity: int = 0) -> None:
        self._keys = np.empty(capacity, dtype=DTYPE)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, keys: pa.Array | pa.ChunkedArray | np.ndarray) -> None:
        """Copy keys in; nulls are left out."""
        new = keys if isinstance(keys, np.ndarray) else key_array(keys)
        if self._n + len(new) > len(self._keys):
            self._keys = np.resize(self._keys, max(self._n + len(new), self._n * 3 // 2))
        self._keys[self._n : self._n + len(new)] = new
        self._n += len(new)

    def distinct(self) -> np.ndarray:
        """Sorted distinct keys; leaves the buffer empty."""
        return self.counted()[0]

    def counted(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Sorted distinct keys and how often each was added, None where each was once; leaves the buffer empty."""
        keys, self._keys, self._n = self._keys[: self._n], NO_KEYS, 0
        keys = keys[sorting(keys)]
        starts = _starts(keys)
        if starts is None:
            return keys, None
        return keys[starts], np.diff(np.append(starts, len(keys))).astype(np.int32)


def _distinct(keys: np.ndarray) -> np.ndarray:
    keys = keys[sorting(keys)]
    starts = _starts(keys)
    return keys if starts is None else keys[starts]


def _starts(ordered: np.ndarray) -> np.ndarray | None:
    """Positions where another key begins; None where every key is there once."""
    if len(ordered) < 2:
        return None
    changes = ordered[1:] != ordered[:-1]
    return None if bool(changes.all()) else np.append(0, np.flatnonzero(changes) + 1)


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
