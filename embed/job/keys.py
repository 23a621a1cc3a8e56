"""Keys that the catalogue's rows want: 16 bytes for each distinct content, whatever the rows hold, and beyond a quarter of a million in a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from store.catalog.read import present_splits
from store.vectors.keys import KeyBuffer, contains, count_of, union
from store.vectors.sets import VectorSet, iter_row_keys
from store.workspace import Workspace


@dataclass(frozen=True)
class SplitKeys:
    """Rows of one split, as one vector set sees them."""

    n_rows: int
    n_filled: int  # rows that have content
    keys: np.ndarray  # sorted distinct keys of those
    rows: np.ndarray | None  # rows of each key, (n_keys,); None: one each

    def rows_in(self, sorted_keys: np.ndarray) -> int:
        """Rows whose key is among these."""
        if self.rows is None:
            return count_of(sorted_keys, self.keys)
        return int(self.rows[contains(sorted_keys, self.keys)].sum()) if len(sorted_keys) else 0


@dataclass(frozen=True)
class WantedKeys:
    """All vector sets of one encoder."""

    sets: dict[VectorSet, dict[str, SplitKeys]]  # set -> split -> keys

    @classmethod
    def read(cls, workspace: Workspace, vector_sets: Sequence[VectorSet]) -> "WantedKeys":
        """Stream every split once per set."""
        splits = present_splits(workspace)
        return cls({s: {split: _split_keys(workspace, s, split) for split in splits} for s in vector_sets})

    def distinct(self, vector_set: VectorSet) -> np.ndarray:
        """Keys of one set, sorted."""
        return union([split.keys for split in self.sets[vector_set].values()])


def _split_keys(workspace: Workspace, vector_set: VectorSet, split: str) -> SplitKeys:
    found, n_rows = KeyBuffer(), 0
    for batch, keys in iter_row_keys(workspace, vector_set, split):
        n_rows += batch.num_rows
        found.add(keys)
    n_filled = len(found)
    keys, rows = found.counted()
    return SplitKeys(n_rows, n_filled, keys, rows)
