"""The interface between an engine and the library that runs its network. Imports no torch: types only."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from embed.forward.precision import Mode
from embed.inputs.batch import Batch


class Passes(Protocol):
    """Forward passes of one encoder on one device: `TorchPasses`, or `ConvertedPasses` of OpenVINO."""

    mode: Mode
    most_waiting: int  # batches whose vectors are fetched only after later ones were started

    def apply(self, mode: Mode) -> None:
        """Put the network into a mode; passes run between `running()`'s enter and exit."""

    def running(self) -> AbstractContextManager[Any]:
        """The device is this thread's, and computes as the mode says."""

    def uploaded(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Any]]:
        """Each batch with its arrays on the device, or on their way to it."""

    def start(self, batch: Batch, inputs: Any) -> Any:
        """Vectors of a batch, which may still be on their way: for `finish`."""

    def finish(self, batch: Batch, inputs: Any, pending: Any) -> np.ndarray:
        """Wait for them: one vector per key, shape (n_keys, dim) float32."""

    def vectors(self, batch: Batch) -> np.ndarray:
        """All of it for one batch that is here, for measuring."""
