"""Content keys: the row key of a vector is a digest of the bytes that enter the encoder."""

import hashlib

import pyarrow as pa

from store.schema import KEY_BYTES, KEY_TYPE


def key_of(content: bytes) -> bytes:
    """The first 16 bytes of the SHA-256 of `content`."""
    return hashlib.sha256(content).digest()[:KEY_BYTES]


def text_keys(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Keys of composed texts, shape (n_rows,); an empty or null text has a null key."""
    sha256 = hashlib.sha256
    keys = [sha256(text.encode()).digest()[:KEY_BYTES] if text else None for text in texts.to_pylist()]
    return pa.array(keys, KEY_TYPE)


def image_keys(sha256_hex: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Keys of images from the hex SHA-256 of their bytes; a row without an image has a null key."""
    fromhex = bytes.fromhex
    keys = [fromhex(value)[:KEY_BYTES] if value else None for value in sha256_hex.to_pylist()]
    return pa.array(keys, KEY_TYPE)
