"""Images -> batches, read and decoded ahead of the model: by threads, since decoding lets go of the GIL, or by processes."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.batch import Batch, BatchLimit, ImageReader, RowWindow
from embed.inputs.decoders import DecoderProcesses
from embed.inputs.images import decode_image
from store.catalog.images.jpeg_end import lacks_end
from store.catalog.images.open import quiet_pillow
from store.errors import StoreError, WorkspaceError

Decoded = np.ndarray | InputFailure
THREADS_THAT_WAIT = 4  # per processor, where images come over a network
WORTH_PROCESSES = 1000  # rows of the first window: fewer are decoded before processes have begun


class ImagePreparer:
    """Decodes with a pool of threads, in order; see `Preparer`.

    Args:
        preprocessing: of the encoder's spec.
        limit: most images per forward pass.
        n_threads: that read and decode; more where reading waits.
        processes: each thread has a process that decodes for it, where there is work enough: threads alone, waiting for
            one another's steps in Python, decode some hundred images a second however many they are.
    """

    def __init__(
        self, preprocessing: dict[str, Any], limit: BatchLimit, n_threads: int, processes: bool = False
    ) -> None:
        self.limit = limit
        self._preprocessing = preprocessing
        self._n_threads = n_threads
        self._processes = processes

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        keys: list[bytes] = []
        pixels: list[np.ndarray] = []
        failures: list[tuple[bytes, InputFailure]] = []
        label, n_cut = "", 0
        for label, key, (decoded, is_cut) in self._decoded(windows):
            n_cut += is_cut
            if isinstance(decoded, InputFailure):
                failures.append((key, decoded))
            else:
                keys.append(key)
                pixels.append(decoded)
            if len(pixels) >= self.limit.units:
                yield Batch(label, keys, (np.stack(pixels),), failures=failures, n_truncated=n_cut)
                keys, pixels, failures, n_cut = [], [], [], 0
        if keys or failures:
            arrays = (np.stack(pixels),) if pixels else ()
            yield Batch(label, keys, arrays, failures=failures, n_truncated=n_cut)

    def _decoded(self, windows: Iterator[RowWindow]) -> Iterator[tuple[str, bytes, tuple[Decoded, bool]]]:
        ahead: deque[tuple[str, bytes, Future[tuple[Decoded, bool]]]] = deque()
        first = next(windows, None)
        if first is None:
            return
        n_threads = self._n_threads * (THREADS_THAT_WAIT if first.images and first.images.waits else 1)
        with (
            quiet_pillow(),
            self._decoder(len(first.keys)) as decode,
            ThreadPoolExecutor(n_threads, thread_name_prefix="decode") as pool,
        ):
            try:
                for window in itertools.chain([first], windows):
                    assert window.images is not None
                    for key, content in zip(window.keys, window.contents, strict=True):
                        future = pool.submit(read_image_marked, window.images, content, decode)
                        ahead.append((window.vector_set, key, future))
                        if len(ahead) > self.limit.units + 2 * n_threads:
                            yield _finished(ahead.popleft())
                while ahead:
                    yield _finished(ahead.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _decoder(self, n_rows: int) -> AbstractContextManager[Callable[[bytes], Decoded]]:
        if self._processes and n_rows >= WORTH_PROCESSES:
            return DecoderProcesses(self._preprocessing)
        return nullcontext(partial(decode_image, preprocessing=self._preprocessing))


def read_image(images: ImageReader, content: str, decode: Callable[[bytes], Decoded]) -> Decoded:
    """One image, ready to enter the model, or why it can't be; see `read_image_marked`."""
    return read_image_marked(images, content, decode)[0]


def read_image_marked(
    images: ImageReader, content: str, decode: Callable[[bytes], Decoded]
) -> tuple[Decoded, bool]:
    """One image, ready to enter the model, or why it can't be; and whether its file lacks its end.

    Args:
        decode: bytes -> pixels.

    Raises:
        StoreError: an object store can't be asked; that says nothing about the image.
    """
    try:
        found = images.read(content)
    except StoreError:
        raise
    except (WorkspaceError, OSError) as error:
        return InputFailure("read", " ".join(str(error).split())), False
    decoded = decode(found)
    return decoded, not isinstance(decoded, InputFailure) and lacks_end(found)


def _finished(
    entry: tuple[str, bytes, Future[tuple[Decoded, bool]]],
) -> tuple[str, bytes, tuple[Decoded, bool]]:
    label, key, future = entry
    return label, key, future.result()
