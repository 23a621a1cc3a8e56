"""What a run embeds: keys, and the content behind each. A catalogue is one source, a list of items another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embed.inputs.batch import RowWindow
from store.vectors.keys import contains, count_of, union

WINDOW_ROWS = 4096  # enough to sort texts by length within


class Source(Protocol):
    """Everything that is wanted of one encoder. What is missing is for the job to find out."""

    def wanted(self) -> "WantedKeys":
        """Keys of all contents."""

    def windows(self, missing: np.ndarray) -> Iterator[RowWindow]:
        """Every one of these sorted keys exactly once, with its content, `WINDOW_ROWS` at a time."""


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
    """All vector sets of one encoder: 16 bytes for each distinct content, beyond a quarter of a million in a file."""

    sets: dict[str, dict[str, SplitKeys]]  # vector set -> split -> keys

    def distinct(self, vector_set: str) -> np.ndarray:
        """Keys of one set, sorted."""
        return union([split.keys for split in self.sets[vector_set].values()])
