"""The process that decodes images for a run, and the messages between the two; see `embed.inputs.decoders`.

It imports no more than it needs: as many of them begin at once as the machine has cores, and the model waits.
"""

import hashlib
import json
import os
import signal
import socket
import struct
import sys
from typing import Any

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.decoded import collected
from embed.inputs.images import decode_image
from store.catalog.images.jpeg_end import lacks_end
from store.catalog.images.open import quiet_pillow
from store.local import open_regular

UNREAD = InputFailure("read", "")  # by the process: the run reads it, and tells why it can't
LENGTH = struct.Struct("<Q")


def send(to: socket.socket, message: Any) -> None:
    """One message as JSON, after its length."""
    body = json.dumps(message).encode()
    to.sendall(LENGTH.pack(len(body)) + body)


def received(source: socket.socket) -> Any:
    """What `send` sent.

    Raises:
        ConnectionError: the other side is gone.
    """
    length = bytearray(LENGTH.size)
    fill(source, length)
    body = bytearray(LENGTH.unpack(length)[0])
    fill(source, body)
    return json.loads(body)


def fill(source: socket.socket, buffer: "bytearray | memoryview") -> None:
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


def _serve(source: socket.socket, preprocessing: dict[str, Any], most_bytes: int) -> None:
    with quiet_pillow():
        while True:
            asked = [_content(source, one, most_bytes) for one in received(source)]
            found = collected([_one(content, preprocessing) for content in asked])
            failures = [one and (one.stage, one.reason) for one in found.failures]
            send(source, {"shape": found.pixels.shape, "failures": failures, "n_cut": found.n_cut})
            source.sendall(np.ascontiguousarray(found.pixels).reshape(-1).data)


def _content(source: socket.socket, asked: Any, most_bytes: int) -> bytes | None:
    """The bytes of one image; None where a file does not hold those that it should."""
    if isinstance(asked, int):
        content = bytearray(asked)
        fill(source, content)
        return bytes(content)
    path, sha256 = asked
    try:
        with open_regular(path) as file:
            found = file.read(most_bytes + 1)
    except OSError:
        return None
    return found if hashlib.sha256(found).hexdigest() == sha256 else None


def _one(content: bytes | None, preprocessing: dict[str, Any]) -> tuple[np.ndarray | InputFailure, bool]:
    if content is None:
        return UNREAD, False
    decoded = decode_image(content, preprocessing)
    return decoded, not isinstance(decoded, InputFailure) and lacks_end(content)


def main(preprocessing: str, most_bytes: str) -> None:
    """Serve the socket that is the standard input.

    Args:
        preprocessing: of the encoder's spec, as JSON.
        most_bytes: of a file that may be an image.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its processes
    with socket.socket(fileno=0) as source:
        try:
            _serve(source, json.loads(preprocessing), int(most_bytes))
        except ConnectionError:
            os._exit(0)  # the run has ended


if __name__ == "__main__":
    main(*sys.argv[1:])
