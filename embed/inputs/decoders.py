"""Images decoded in processes of their own, for a GPU that takes more of them than threads of one interpreter decode.

A process answers over a socket on its standard input: it gets the length of a file and its bytes, and gives back
`_HEADER` and the pixels, or `_HEADER` and the failure as JSON. It ends when its socket is closed, so also when the run
is killed; a decoder that crashes on a hostile image takes its process with it, not the run.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.images import decode_image
from store.catalog.images.open import quiet_pillow

_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QII")  # bytes that follow; height and width of pixels, 0 and 0 for a failure
CRASHED = InputFailure("decode", "crashes the decoder")


class DecoderProcesses:
    """`decode_image` by processes, one for each thread that calls.

    Use it as a context manager: leaving it ends the processes, once no thread calls any more.

    Args:
        preprocessing: of the encoder's spec.
    """

    def __init__(self, preprocessing: dict[str, Any]) -> None:
        self._preprocessing = preprocessing
        self._own = threading.local()
        self._all: list[_DecoderProcess] = []

    def __call__(self, content: bytes) -> np.ndarray | InputFailure:
        """The pixels of an image, shape (height, width, 3) uint8, or why there are none."""
        process: _DecoderProcess | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = _DecoderProcess(self._preprocessing)
            self._all.append(process)
        try:
            return process.decode(content)
        except ConnectionError:
            self._own.process = None
            if process.end() >= 0:
                raise RuntimeError("a process that decodes images ended by itself, see above") from None
            return CRASHED

    def __enter__(self) -> "DecoderProcesses":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._all:
            process.end()


class _DecoderProcess:
    def __init__(self, preprocessing: dict[str, Any]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, json.dumps(preprocessing)],
                stdin=theirs,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def decode(self, content: bytes) -> np.ndarray | InputFailure:
        self._socket.sendall(_LENGTH.pack(len(content)))
        self._socket.sendall(content)
        header = bytearray(_HEADER.size)
        _receive(self._socket, header)
        n_bytes, height, width = _HEADER.unpack(header)
        if height:
            pixels = np.empty((height, width, 3), np.uint8)
            _receive(self._socket, memoryview(pixels).cast("B"))
            return pixels
        failure = bytearray(n_bytes)
        _receive(self._socket, failure)
        return InputFailure(**json.loads(failure))

    def end(self) -> int:
        """Wait for its end; returns its status, negative where a signal ended it."""
        self._socket.close()
        return self._process.wait()


def _receive(source: socket.socket, into: "bytearray | memoryview") -> None:
    """Fill a buffer.

    Raises:
        ConnectionError: the other side is gone.
    """
    left = memoryview(into)
    while len(left):
        n = source.recv_into(left, len(left), socket.MSG_WAITALL)
        if n == 0:
            raise ConnectionResetError("the other side is gone")
        left = left[n:]


def _serve(source: socket.socket, preprocessing: dict[str, Any]) -> None:
    length = bytearray(_LENGTH.size)
    with quiet_pillow():
        while True:
            _receive(source, length)
            content = bytearray(_LENGTH.unpack(length)[0])
            _receive(source, content)
            found = decode_image(bytes(content), preprocessing)
            if isinstance(found, InputFailure):
                body = json.dumps({"stage": found.stage, "reason": found.reason}).encode()
                source.sendall(_HEADER.pack(len(body), 0, 0) + body)
            else:
                source.sendall(_HEADER.pack(found.nbytes, *found.shape[:2]))
                source.sendall(np.ascontiguousarray(found).data)


def main(preprocessing: str) -> None:
    """Serve the socket that is the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its processes
    with socket.socket(fileno=0) as source:
        try:
            _serve(source, json.loads(preprocessing))
        except ConnectionError:
            os._exit(0)  # nobody asks any more


if __name__ == "__main__":
    main(sys.argv[1])
