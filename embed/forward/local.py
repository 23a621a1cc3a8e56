"""An encoder at work in this process: a thread prepares inputs ahead of the model."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from embed.forward.prefetch import Prefetch
from embed.inputs.batch import Batch, RowWindow
from embed.job.source import Source
from store.workspace import Workspace


class LocalRunner(ABC):
    """Implements `embed.job.run.Runner` by three steps: one device (`Engine`) or several (`Fleet`)."""

    memory: Workspace  # where what was measured is remembered
    _windows: Iterator[RowWindow]

    @abstractmethod
    def begin(self, window: RowWindow, n_rows: int) -> str:
        """Get ready for so many rows, measuring on the first; returns what was chosen, in words."""

    @abstractmethod
    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        """Prepare inputs; called in a background thread."""

    @abstractmethod
    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Each batch with its vectors, shape (n_keys, dim), in any order."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What was chosen on this machine."""

    def start(self, source: Source, missing: np.ndarray) -> str:
        """Begin with the source's first window."""
        windows = source.windows(missing)
        first = next(windows)
        self._windows = itertools.chain([first], windows)
        return self.begin(first, len(missing))

    @contextmanager
    def results(self) -> Iterator[Iterator[tuple[Batch, np.ndarray]]]:
        """Vectors of what was started."""
        with Prefetch(self.batches(self._windows)) as prepared:
            yield self.encode(iter(prepared))
