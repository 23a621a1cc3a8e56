"""torch: batches to the device and vectors back, so that a GPU never waits for a copy."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch

from embed.inputs.batch import Batch

Inputs = tuple[torch.Tensor, ...]


class Pending(Protocol):
    """Vectors that may still be on their way."""

    def numpy(self) -> np.ndarray:
        """Wait for them, shape (n_keys, dim)."""


class DeviceTransfer(Protocol):
    """How batches reach a device."""

    most_waiting: int  # batches whose vectors are fetched only after later ones were started

    def here(self) -> AbstractContextManager[Any]:
        """Make the device the current one of this thread."""

    def uploaded(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Inputs]]:
        """Each batch with its arrays as tensors on the device, or on their way to it."""

    def download(self, vectors: torch.Tensor) -> Pending:
        """Start to bring vectors back."""


def pinned(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Arrays of a batch in page-locked memory, from which copies run beside the GPU's work."""
    return tuple(torch.from_numpy(a).pin_memory().numpy() for a in arrays)


class DirectTransfer:
    """The CPU, or a device that shares its memory: arrays as they are, vectors as they come."""

    most_waiting = 0

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def here(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def uploaded(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Inputs]]:
        for batch in batches:
            yield batch, tuple(torch.from_numpy(a).to(self._device) for a in batch.arrays)

    def download(self, vectors: torch.Tensor) -> Pending:
        return vectors.cpu()


class CudaTransfer:
    """Uploads on a stream of its own, one batch ahead of the computing; downloads that nobody waits for.

    Whoever iterates keeps a batch's tensors until its vectors have arrived: their memory belongs to the uploads'
    stream, which does not know how long the computing needs them.

    Args:
        cuda: `torch.cuda`, or what stands for it in a test.
    """

    most_waiting = 1

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device = device
        self._cuda = cuda
        self._stream = cuda.Stream(device)

    def here(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._cuda.device(self._device)
        return context

    def uploaded(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Inputs]]:
        waiting: tuple[Batch, Inputs, Any] | None = None
        for batch in batches:
            started = self._start(batch)
            if waiting is not None:
                yield self._arrived(*waiting)
            waiting = started
        if waiting is not None:
            yield self._arrived(*waiting)

    def download(self, vectors: torch.Tensor) -> Pending:
        host = vectors.to("cpu", non_blocking=True)
        return _Download(host, self._cuda.current_stream(self._device).record_event())

    def _start(self, batch: Batch) -> tuple[Batch, Inputs, Any]:
        host = tuple(torch.from_numpy(a) for a in batch.arrays)
        with self._cuda.stream(self._stream):
            try:
                inputs = tuple(a.to(self._device, non_blocking=True) for a in host)
            except torch.OutOfMemoryError:  # the forward pass uploads what it halves
                inputs = host
            return batch, inputs, self._stream.record_event()

    def _arrived(self, batch: Batch, inputs: Inputs, event: Any) -> tuple[Batch, Inputs]:
        self._cuda.current_stream(self._device).wait_event(event)
        return batch, inputs


class _Download:
    def __init__(self, host: torch.Tensor, event: Any) -> None:
        self._host, self._event = host, event

    def numpy(self) -> np.ndarray:
        self._event.synchronize()
        return self._host.numpy()


def transfer_to(device: torch.device) -> DeviceTransfer:
    """The way to a device."""
    return CudaTransfer(device) if device.type == "cuda" else DirectTransfer(device)
