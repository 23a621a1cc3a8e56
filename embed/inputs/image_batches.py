"""Images -> batches, read and decoded ahead of the model: by threads, since decoding releases the GIL, or by processes."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.batch import Batch, BatchLimit, ImageReader, RowWindow
from embed.inputs.decoded import DecodedImages, collected, read_image_marked
from embed.inputs.decoders import DecoderProcesses
from embed.inputs.images import decode_image
from store.catalog.images.open import quiet_pillow

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
        parts: list[np.ndarray] = []
        failures: list[tuple[bytes, InputFailure]] = []
        label, n_cut = "", 0
        for label, part, found in self._decoded(windows):
            pairs = list(zip(part, found.failures, strict=True))
            keys += [key for key, failure in pairs if failure is None]
            failures += [(key, failure) for key, failure in pairs if failure is not None]
            parts += [found.pixels] if len(found.pixels) else []
            n_cut += found.n_cut
            while len(keys) >= self.limit.units:
                n, pixels = self.limit.units, _joined(parts)
                yield Batch(label, keys[:n], (pixels[:n],), failures=failures, n_truncated=n_cut)
                keys, parts = keys[n:], [pixels[n:].copy()] if len(pixels) > n else []
                failures, n_cut = [], 0
        if keys or failures:
            arrays = (_joined(parts),) if parts else ()
            yield Batch(label, keys, arrays, failures=failures, n_truncated=n_cut)

    def _decoded(self, windows: Iterator[RowWindow]) -> Iterator[tuple[str, list[bytes], DecodedImages]]:
        """Some images after the other, with their keys."""
        ahead: deque[tuple[str, list[bytes], Future[DecodedImages]]] = deque()
        first = next(windows, None)
        if first is None:
            return
        n_threads = self._n_threads * (THREADS_THAT_WAIT if first.images and first.images.waits else 1)
        with (
            quiet_pillow(),
            self._decoder(len(first.keys)) as decoder,
            ThreadPoolExecutor(n_threads, thread_name_prefix="decode") as pool,
        ):
            n = decoder.at_once
            try:
                for window in itertools.chain([first], windows):
                    assert window.images is not None
                    for start in range(0, len(window.keys), n):
                        contents = window.contents[start : start + n]
                        future = pool.submit(decoder, window.images, contents)
                        ahead.append((window.vector_set, window.keys[start : start + n], future))
                        if len(ahead) > self.limit.units // n + 2 * n_threads:
                            yield _finished(ahead.popleft())
                while ahead:
                    yield _finished(ahead.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _decoder(self, n_rows: int) -> "AbstractContextManager[OneByOne | DecoderProcesses]":
        if self._processes and n_rows >= WORTH_PROCESSES:
            return DecoderProcesses(self._preprocessing)
        return nullcontext(OneByOne(self._preprocessing))


class OneByOne:
    """Decodes in the thread that calls."""

    at_once = 1  # images of a call

    def __init__(self, preprocessing: dict[str, Any]) -> None:
        self._decode = partial(decode_image, preprocessing=preprocessing)

    def __call__(self, images: ImageReader, contents: Sequence[str]) -> DecodedImages:
        """Images of one reader."""
        return collected([read_image_marked(images, content, self._decode) for content in contents])

    def close(self) -> None:
        """There is nothing to release."""


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _finished(
    entry: tuple[str, list[bytes], Future[DecodedImages]],
) -> tuple[str, list[bytes], DecodedImages]:
    label, keys, future = entry
    return label, keys, future.result()
