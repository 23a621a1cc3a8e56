"""Images decoded in processes of their own, for a GPU that takes more of them than threads of one interpreter decode.

A process answers over a socket, its standard input. It gets some images at once: the length of a JSON list and the
list, which holds for each the path and SHA-256 of a file, or the number of bytes that follow. It gives back the length
of a JSON object and the object, and the pixels of those that it could decode. It ends when its socket is closed, so
also when the run is killed; a decoder that crashes on a hostile image takes its process with it, not the run.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from embed.inputs import InputFailure, decoder_process
from embed.inputs.batch import ImageReader
from embed.inputs.decoded import DecodedImages, collected
from embed.inputs.decoder_process import UNREAD, fill, received, send
from store.contracts import IMAGE_BYTES
from store.errors import StoreError, WorkspaceError

CRASHED = InputFailure("decode", "crashes the decoder")
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # NumPy begins a thread a core otherwise


class DecoderProcesses:
    """Reads and decodes by processes, one for each thread that calls.

    Use it as a context manager: leaving it ends the processes, once no thread calls any more.

    Args:
        preprocessing: of the encoder's spec.
    """

    at_once = 8  # images of a call, so that a thread seldom waits for the interpreter

    def __init__(self, preprocessing: dict[str, Any]) -> None:
        self._preprocessing = preprocessing
        self._own = threading.local()
        self._all: list[_DecoderProcess] = []

    def __call__(self, images: ImageReader, contents: Sequence[str]) -> DecodedImages:
        """Images of one reader.

        Raises:
            StoreError: an object store can't be asked; that says nothing about the image.
        """
        found = self._decoded([images.file(content) or _read(images, content) for content in contents])
        if UNREAD not in found.failures:
            return found
        return self._decoded([_read(images, content) for content in contents])

    def _decoded(self, asked: "list[tuple[str, str] | bytes | InputFailure]") -> DecodedImages:
        known = [one for one in asked if not isinstance(one, InputFailure)]
        found = self._asked(known)
        failures = iter(found.failures)
        return DecodedImages(
            found.pixels,
            [one if isinstance(one, InputFailure) else next(failures) for one in asked],
            found.n_cut,
        )

    def _asked(self, images: "list[tuple[str, str] | bytes]") -> DecodedImages:
        process: _DecoderProcess | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = _DecoderProcess(self._preprocessing)
            self._all.append(process)
        try:
            return process.decode(images)
        except ConnectionError:
            self._own.process = None
            if process.end() >= 0:
                raise RuntimeError("a process that decodes images ended by itself, see above") from None
        if len(images) == 1:
            return DecodedImages(collected([]).pixels, [CRASHED], 0)
        parts = [self._asked([one]) for one in images]  # find the image that crashed it
        return DecodedImages(
            np.concatenate([part.pixels for part in parts if len(part.pixels)] or [collected([]).pixels]),
            [failure for part in parts for failure in part.failures],
            sum(part.n_cut for part in parts),
        )

    def __enter__(self) -> "DecoderProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process in self._all:
            process.end()


def _read(images: ImageReader, content: str) -> bytes | InputFailure:
    try:
        return images.read(content)
    except StoreError:
        raise
    except (WorkspaceError, OSError) as error:
        return InputFailure("read", " ".join(str(error).split()))


class _DecoderProcess:
    def __init__(self, preprocessing: dict[str, Any]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    decoder_process.__name__,
                    json.dumps(preprocessing),
                    str(IMAGE_BYTES),
                ],
                stdin=theirs.fileno(),
                env=os.environ | ALONE | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def decode(self, images: "Sequence[tuple[str, str] | bytes]") -> DecodedImages:
        send(self._socket, [len(one) if isinstance(one, bytes) else one for one in images])
        for one in images:
            if isinstance(one, bytes):
                self._socket.sendall(one)
        found = received(self._socket)
        pixels = np.empty(found["shape"], np.uint8)
        fill(self._socket, pixels.reshape(-1).data)
        failures = [None if one is None else InputFailure(*one) for one in found["failures"]]
        return DecodedImages(pixels, failures, found["n_cut"])

    def end(self) -> int:
        """Wait for its end; returns its status, negative where a signal ended it."""
        self._socket.close()
        return self._process.wait()
