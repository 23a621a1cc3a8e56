"""Images -> batches, read and decoded ahead of the model by threads (decoding lets go of the GIL)."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.batch import Batch, BatchLimit, RowWindow
from embed.inputs.images import decode_image
from store.catalog.images.blobs import read_blob
from store.catalog.images.open import quiet_pillow
from store.errors import StoreError, WorkspaceError
from store.workspace import Workspace

Decoded = np.ndarray | InputFailure


class ImagePreparer:
    """Decodes with a pool of threads, in order; see `Preparer`.

    Args:
        workspace: holds the blobs.
        preprocessing: of the encoder's spec.
        limit: most images per forward pass.
        n_threads: that read and decode.
    """

    def __init__(
        self, workspace: Workspace, preprocessing: dict[str, Any], limit: BatchLimit, n_threads: int
    ) -> None:
        self.limit = limit
        self._workspace = workspace
        self._preprocessing = preprocessing
        self._n_threads = n_threads

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        keys: list[bytes] = []
        pixels: list[np.ndarray] = []
        failures: list[tuple[bytes, InputFailure]] = []
        label = ""
        for label, key, decoded in self._decoded(windows):
            if isinstance(decoded, InputFailure):
                failures.append((key, decoded))
            else:
                keys.append(key)
                pixels.append(decoded)
            if len(pixels) >= self.limit.units:
                yield Batch(label, keys, (np.stack(pixels),), failures=failures)
                keys, pixels, failures = [], [], []
        if keys or failures:
            arrays = (np.stack(pixels),) if pixels else ()
            yield Batch(label, keys, arrays, failures=failures)

    def _decoded(self, windows: Iterator[RowWindow]) -> Iterator[tuple[str, bytes, Decoded]]:
        ahead: deque[tuple[str, bytes, Future[Decoded]]] = deque()
        with quiet_pillow(), ThreadPoolExecutor(self._n_threads, thread_name_prefix="decode") as pool:
            try:
                for window in windows:
                    for key, digest in zip(window.keys, window.contents, strict=True):
                        future = pool.submit(decode_blob, self._workspace, digest, self._preprocessing)
                        ahead.append((window.vector_set, key, future))
                        if len(ahead) > self.limit.units + 2 * self._n_threads:
                            yield _finished(ahead.popleft())
                while ahead:
                    yield _finished(ahead.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def decode_blob(workspace: Workspace, digest: str, preprocessing: dict[str, Any]) -> Decoded:
    """The image with that SHA-256, ready to enter the model, or why it can't be.

    Raises:
        StoreError: an object store can't be asked; that says nothing about the image.
    """
    try:
        content = read_blob(workspace, digest)
    except StoreError:
        raise
    except WorkspaceError as error:
        return InputFailure("read", f"{error}, then 'shelfprice embed run --retry-failed'")
    except OSError as error:
        return InputFailure("read", " ".join(str(error).split()))
    return decode_image(content, preprocessing)


def _finished(entry: tuple[str, bytes, Future[Decoded]]) -> tuple[str, bytes, Decoded]:
    label, key, future = entry
    return label, key, future.result()
