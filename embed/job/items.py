"""A list of items as a source: texts, or images as paths, bytes or Pillow images. Keys are those of a catalogue's rows."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from embed.forward.devices import cores
from embed.inputs.batch import ImageReader, RowWindow
from embed.job.source import WINDOW_ROWS, SplitKeys, WantedKeys
from store.catalog.images.blobs import MOST_BYTES
from store.catalog.ingest.cells import is_none
from store.local import open_regular
from store.vectors.content import image_keys, text_keys
from store.vectors.keys import KeyBuffer, key_array, key_bytes, locate

ITEMS = "items"  # stands for the vector set, and for the split
BYTES = (bytes, bytearray, memoryview)
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class ItemSource:
    """Items in the order of their list. Implements `embed.job.source.Source`."""

    keys: pa.Array  # (n_items,) content keys, null where an item has no content
    contents: Callable[[np.ndarray], list[str]]  # of the items at some positions
    images: ImageReader | None = None  # None: texts
    unread: dict[int, str] = field(default_factory=dict)  # position -> why its file has no content

    def wanted(self) -> WantedKeys:
        """See `Source`."""
        found = KeyBuffer()
        found.add(self.keys)
        n_filled = len(found)
        keys, rows = found.counted()
        return WantedKeys({ITEMS: {ITEMS: SplitKeys(len(self.keys), n_filled, keys, rows)}})

    def windows(self, missing: np.ndarray) -> Iterator[RowWindow]:
        """See `Source`."""
        filled = np.flatnonzero(self.keys.is_valid().to_numpy(zero_copy_only=False))
        held = key_array(self.keys)
        at = locate(missing, held)
        found, first = np.unique(at, return_index=True)
        rows = np.sort(first[found >= 0])
        for start in range(0, len(rows), WINDOW_ROWS):
            part = rows[start : start + WINDOW_ROWS]
            yield RowWindow(ITEMS, key_bytes(held[part]), self.contents(filled[part]), self.images)


def text_items(texts: Sequence[Any]) -> ItemSource:
    """Texts; None, NaN and the empty text have no content.

    Raises:
        TypeError: an item is something else; names its position.
        ValueError: a text can't be written in UTF-8 (half of a surrogate pair).
    """
    for at, text in enumerate(texts):
        if not isinstance(text, str) and not is_none(text):
            raise TypeError(
                f"item {at} is {_described(text)}, not a text: pass str, or None where there is none"
            )
    try:
        column = pa.array([text if isinstance(text, str) else None for text in texts], pa.large_string())
    except UnicodeEncodeError as error:
        at = next(at for at, text in enumerate(texts) if isinstance(text, str) and _is_broken(text))
        raise ValueError(f"item {at} can't be written in UTF-8: {error}") from error
    return ItemSource(text_keys(column), lambda positions: column.take(pa.array(positions)).to_pylist())


def image_items(images: Sequence[Any]) -> ItemSource:
    """Images by the SHA-256 of their bytes: of the file, as given, or of a Pillow image as `png_bytes` writes it.

    A file that can't be read has no content, and so have None, NaN and the empty path.

    Raises:
        TypeError: an item is none of these; names its position.
    """
    for at, image in enumerate(images):
        if not (is_none(image) or is_image(image)):
            raise TypeError(
                f"item {at} is {_described(image)}, not an image: pass a path, bytes, a Pillow image, or None where "
                "there is none"
            )

    def digest(image: Any) -> str | OSError | None:
        if is_none(image) or (isinstance(image, str) and not image):
            return None
        try:
            return hashlib.sha256(image_bytes(image)).hexdigest()
        except OSError as error:
            return error

    with ThreadPoolExecutor(cores(), thread_name_prefix="digest") as pool:
        found = list(pool.map(digest, images))
    unread = {
        at: f"can't be read: {one.strerror or one}"
        for at, one in enumerate(found)
        if isinstance(one, OSError)
    }
    digests = [one if isinstance(one, str) else None for one in found]
    position = {sha256: at for at, sha256 in reversed(list(enumerate(digests))) if sha256 is not None}

    def read(sha256: str) -> bytes:
        content = image_bytes(images[position[sha256]])
        if hashlib.sha256(content).hexdigest() != sha256:
            raise OSError("it changed while it was being embedded")
        return content

    def file(sha256: str) -> tuple[str, str] | None:
        image = images[position[sha256]]
        return (os.fspath(image), sha256) if isinstance(image, str | os.PathLike) else None

    keys = image_keys(pa.array(digests, pa.string()))
    return ItemSource(
        keys, lambda positions: [str(digests[at]) for at in positions], ImageReader(read, file=file), unread
    )


def image_bytes(image: Any) -> bytes:
    """The bytes of an image that is a path, bytes, or a Pillow image.

    Raises:
        OSError: the file can't be read, or is too large for an image.
    """
    if isinstance(image, BYTES):
        return bytes(image)
    if _is_pillow(image):
        return png_bytes(image)
    with open_regular(image) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"larger than {MOST_BYTES} bytes")
    return content


def png_bytes(image: Any) -> bytes:
    """A Pillow image without loss, the same bytes for the same pixels: turned upright, PNG, not compressed.

    Modes that PNG does not know become grey or RGB first, as they would before they enter a model.
    """
    from PIL import ImageOps

    from store.catalog.images.open import flattened

    upright: Any = ImageOps.exif_transpose(image)
    if upright.mode not in PNG_MODES:
        upright = flattened(upright)
    out = io.BytesIO()
    upright.save(out, "PNG", compress_level=0, icc_profile=None, exif=None)
    return out.getvalue()


def is_image(item: Any) -> bool:
    """Whether an item is a path, bytes or a Pillow image, whatever is in it."""
    return isinstance(item, (str, os.PathLike, *BYTES)) or _is_pillow(item)


def listed(items: Iterable[Any]) -> list[Any]:
    """Items of a list, a NumPy array, or a column of pandas, Polars or Arrow.

    Raises:
        TypeError: it is one item, not several.
        ValueError: it has more than one column.
    """
    if is_image(items) or not isinstance(items, Iterable):
        raise TypeError(f"items is {_described(items)}: pass a list of items, [item] for a single one")
    if isinstance(shape := getattr(items, "shape", None), tuple) and len(shape) > 1:
        raise ValueError(f"items have the shape {shape}: pass one column")
    if isinstance(items, (pa.Array, pa.ChunkedArray)):
        return list(items.to_pylist())
    return list(items.tolist() if isinstance(items, np.ndarray) else items)


def _is_pillow(item: Any) -> bool:
    """Without importing Pillow: who holds an image of its has imported it."""
    return any(f"{kind.__module__}.{kind.__name__}" == "PIL.Image.Image" for kind in type(item).__mro__)


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _described(item: Any) -> str:
    """`int 7`, cut short."""
    shown = repr(item)
    return f"{type(item).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"
