"""Sets of content keys as sorted arrays: 16 bytes a row, in a file where there are many of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from store.schema import KEY_BYTES, KEY_TYPE
from store.vectors.ondisk import Spool, give_back

DTYPE = np.dtype(f"S{KEY_BYTES}")
BLOCK_KEYS = 2**18  # looked at together
RUN_KEYS = 2**18  # sorted together, in memory
NO_KEYS = np.array([], dtype=DTYPE)


def key_array(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Keys that are not null, shape (n_keys,), `S16`. Compare only with such arrays: NumPy drops trailing zero bytes."""
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
    return filled[0] if len(filled) == 1 else _merged([NO_KEYS, *filled])[0]


def contains(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of `keys` are in `sorted_keys`, shape (n_keys,) bool."""
    found = np.zeros(len(keys), dtype=bool)
    if len(sorted_keys):
        for start in range(0, len(keys), BLOCK_KEYS):
            part = slice(start, start + BLOCK_KEYS)
            found[part] = locate(sorted_keys, keys[part]) >= 0
            if len(keys) > BLOCK_KEYS:
                give_back(sorted_keys, keys)
    return found


def among(sorted_keys: np.ndarray, keys: pa.Array) -> np.ndarray:
    """Which rows have one of the sorted keys, shape (n_rows,) bool; a row with a null has none."""
    found = keys.is_valid().to_numpy(zero_copy_only=False)
    found[found] = contains(sorted_keys, key_array(keys))
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
    """Gathers keys in sorted runs; what exceeds one lies in a file, so that memory does not grow with the keys."""

    def __init__(self) -> None:
        self._run = np.empty(RUN_KEYS, dtype=DTYPE)
        self._n_in_run = 0
        self._spilled: Spool | None = None

    def __len__(self) -> int:
        return self._n_in_run + (len(self._spilled) if self._spilled else 0)

    def add(self, keys: pa.Array | pa.ChunkedArray | np.ndarray) -> None:
        """Copy keys in; nulls are left out."""
        new = keys if isinstance(keys, np.ndarray) else key_array(keys)
        while len(new):
            taken, new = np.split(new, [RUN_KEYS - self._n_in_run])
            self._run[self._n_in_run : self._n_in_run + len(taken)] = taken
            self._n_in_run += len(taken)
            if self._n_in_run == RUN_KEYS:
                self._spilled = self._spilled or Spool(DTYPE)
                self._spilled.add(self._run[sorting(self._run)])
                self._n_in_run = 0

    def distinct(self) -> np.ndarray:
        """Sorted distinct keys; leaves the buffer empty."""
        return self.counted()[0]

    def counted(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Sorted distinct keys and how often each was added, None where each was once; leaves the buffer empty."""
        last, spilled = self._run[: self._n_in_run], self._spilled
        self._run, self._n_in_run, self._spilled = np.empty(RUN_KEYS, dtype=DTYPE), 0, None
        runs = [last[sorting(last)]]
        if spilled:
            filed = spilled.array()
            runs += [filed[start : start + RUN_KEYS] for start in range(0, len(filed), RUN_KEYS)]
        return _merged(runs)


def _merged(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Sorted distinct keys of sorted runs and how often each is there, None where each is once.

    A range of keys at a time, in memory where there is one range, else in files.
    """
    n_ranges = max(1, -(-sum(map(len, runs)) // RUN_KEYS))
    bounds = np.array([first_of_range(i, n_ranges) for i in range(1, n_ranges)], dtype=DTYPE)
    cuts = []
    for run in runs:
        cuts.append([0, *np.searchsorted(run, bounds).tolist(), len(run)])
        give_back(run)
    keys, counts, is_once = Spool(DTYPE, n_ranges > 1), Spool(np.dtype(np.int32), n_ranges > 1), True
    for i in range(n_ranges):
        parts = []
        for run, cut in zip(runs, cuts, strict=True):
            parts.append(np.array(run[cut[i] : cut[i + 1]]))
            give_back(run)
        part = np.concatenate(parts)
        part = part[sorting(part)]
        starts = np.append(0, np.flatnonzero(part[1:] != part[:-1]) + 1)[: len(part)]
        is_once &= len(starts) == len(part)
        keys.add(part[starts])
        counts.add(np.diff(np.append(starts, len(part))).astype(np.int32))
    return keys.array(), None if is_once else counts.array()


def first_of_range(i: int, n: int) -> np.bytes_:
    """The first key of the i-th of n ranges, from 0. Keys are digests, so that ranges hold about as many each."""
    return np.bytes_((i * 2**64 // n).to_bytes(8, "big"))


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
