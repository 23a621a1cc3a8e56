"""Images decoded in processes of their own, for a GPU that takes more of them than threads of one interpreter decode.

A process answers over a socket, its standard input. It gets some images at once: the length of a JSON list and the
list, which holds for each the path and SHA-256 of a file, or the number of bytes that follow. It gives back the length
of a JSON object and the object, and the pixels of those that it could decode. It ends when its socket is closed, so
also when the run is killed; a decoder that crashes on a hostile image takes its process with it, not the run.
"""

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.batch import ImageReader
from embed.inputs.decoded import DecodedImages, collected
from embed.inputs.images import decode_image
from store.catalog.images.blobs import MOST_BYTES
from store.catalog.images.jpeg_end import lacks_end
from store.catalog.images.open import quiet_pillow
from store.errors import StoreError, WorkspaceError
from store.local import open_regular

CRASHED = InputFailure("decode", "crashes the decoder")
UNREAD = InputFailure("read", "")  # by a process: the run reads it, and tells why it can't
_LENGTH = struct.Struct("<Q")


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
                [sys.executable, "-P", "-m", __name__, json.dumps(preprocessing)],
                stdin=theirs.fileno(),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def decode(self, images: "Sequence[tuple[str, str] | bytes]") -> DecodedImages:
        _send(self._socket, [len(one) if isinstance(one, bytes) else one for one in images])
        for one in images:
            if isinstance(one, bytes):
                self._socket.sendall(one)
        found = _received(self._socket)
        pixels = np.empty(found["shape"], np.uint8)
        _fill(self._socket, pixels.reshape(-1).data)
        failures = [None if one is None else InputFailure(*one) for one in found["failures"]]
        return DecodedImages(pixels, failures, found["n_cut"])

    def end(self) -> int:
        """Wait for its end; returns its status, negative where a signal ended it."""
        self._socket.close()
        return self._process.wait()


def _send(to: socket.socket, message: Any) -> None:
    body = json.dumps(message).encode()
    to.sendall(_LENGTH.pack(len(body)) + body)


def _received(source: socket.socket) -> Any:
    length = bytearray(_LENGTH.size)
    _fill(source, length)
    body = bytearray(_LENGTH.unpack(length)[0])
    _fill(source, body)
    return json.loads(body)


def _fill(source: socket.socket, buffer: "bytearray | memoryview") -> None:
    """Receive until a buffer is full.

    Raises:
        ConnectionError: the other side is gone.
    """
    left = memoryview(buffer)
    while len(left):
        n = source.recv_into(left, len(left), socket.MSG_WAITALL)
        if n == 0:
            raise ConnectionResetError("the other side is gone")
        left = left[n:]


# ---- in the process ------------------------------------------------------------------------------


def _serve(source: socket.socket, preprocessing: dict[str, Any]) -> None:
    with quiet_pillow():
        while True:
            asked = [_content(source, one) for one in _received(source)]
            found = collected([_one(content, preprocessing) for content in asked])
            failures = [one and (one.stage, one.reason) for one in found.failures]
            _send(source, {"shape": found.pixels.shape, "failures": failures, "n_cut": found.n_cut})
            source.sendall(np.ascontiguousarray(found.pixels).reshape(-1).data)


def _content(source: socket.socket, asked: Any) -> bytes | None:
    """The bytes of one image; None where a file does not hold those that it should."""
    if isinstance(asked, int):
        content = bytearray(asked)
        _fill(source, content)
        return bytes(content)
    path, sha256 = asked
    try:
        with open_regular(path) as file:
            found = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    return found if hashlib.sha256(found).hexdigest() == sha256 else None


def _one(content: bytes | None, preprocessing: dict[str, Any]) -> tuple[np.ndarray | InputFailure, bool]:
    if content is None:
        return UNREAD, False
    decoded = decode_image(content, preprocessing)
    return decoded, not isinstance(decoded, InputFailure) and lacks_end(content)


def main(preprocessing: str) -> None:
    """Serve the socket that is the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its processes
    with socket.socket(fileno=0) as source:
        try:
            _serve(source, json.loads(preprocessing))
        except ConnectionError:
            os._exit(0)  # the run has ended


if __name__ == "__main__":
    main(sys.argv[1])
