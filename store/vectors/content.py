"""Content keys: the row key of a vector is a digest of the bytes that enter the encoder."""

import hashlib
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.schema import KEY_BYTES, KEY_TYPE


def key_of(content: bytes) -> bytes:
    """The first 16 bytes of the SHA-256 of `content`."""
    return hashlib.sha256(content).digest()[:KEY_BYTES]


def text_keys(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Keys of composed texts, shape (n_rows,); an empty or null text has a null key."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    filled = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
    texts = texts.cast(pa.large_binary())
    ends = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset)
    content = memoryview(texts.buffers()[2] or b"")
    sha256 = hashlib.sha256
    digests = b"".join(
        [sha256(content[start:end]).digest()[:KEY_BYTES] for start, end in itertools.pairwise(ends.tolist())]
    )
    keys = pa.Array.from_buffers(KEY_TYPE, len(texts), [None, pa.py_buffer(digests)])
    return pc.if_else(filled, keys, pa.scalar(None, KEY_TYPE)) if not pc.all(filled).as_py() else keys


def joint_keys(sha256_hex: pa.Array, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Keys of an image and a text that enter an encoder together; null where a row has neither.

    Args:
        sha256_hex: of each row's image, shape (n_rows,), null where there is none.
        texts: composed, shape (n_rows,), null or empty where there is none.
    """
    keys = [
        key_of(b"joint\0" + bytes.fromhex(image or "") + b"\0" + (text or "").encode())
        if image or text
        else None
        for image, text in zip(sha256_hex.to_pylist(), texts.to_pylist(), strict=True)
    ]
    return pa.array(keys, KEY_TYPE)


def image_keys(sha256_hex: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Keys of images from the hex SHA-256 of their bytes; a row without an image has a null key."""
    fromhex = bytes.fromhex
    keys = [fromhex(value)[:KEY_BYTES] if value else None for value in sha256_hex.to_pylist()]
    return pa.array(keys, KEY_TYPE)
