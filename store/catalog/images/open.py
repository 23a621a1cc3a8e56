"""The one place that opens images: declared formats alone, bounded in pixels and memory, flattened to 8 bits."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from typing import IO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from store.catalog.images.jpeg_end import (
    END,
    MOST_MISSING,
    START,
    TAIL_BYTES,
    can_be_completed,
    lacks_end,
    share_filled,
)

# No other decoder is started: some run programs (EPS calls Ghostscript), and the others are rare in catalogues. A JPEG
# of several images (MPO) is opened as a JPEG.
_AVIF = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()  # since Pillow 11.3
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "PPM", *_AVIF)
MAX_PIXELS = 120_000_000  # a 108-megapixel phone's photo passes, a decompression bomb does not
# Decoders that hold several copies of an image: 16 bytes and more for each of its pixels.
MAX_PIXELS_OF = {"WEBP": 60_000_000, "AVIF": 60_000_000, "TIFF": 60_000_000}
MAX_BYTES_AT_A_TIME = 1_000_000_000  # of images that threads decode at the same time
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 0 to 65,535
STRIP_PIXELS = 1 << 22  # flattened at a time
Color = tuple[int, int, int]
WHITE = (255, 255, 255)


class UndecodableError(Exception):
    """Why bytes give no image; caught where images are decoded, never seen by a user as such.

    Args:
        kind: "unknown" (not one of `FORMATS`), "pixels" (more than `most_pixels`), "memory" or "damaged".
        reason: one line, for people.
    """

    def __init__(self, kind: str, reason: str, most_pixels: int = 0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.most_pixels = most_pixels


@contextmanager
def open_image(content: bytes | IO[bytes], max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile.ImageFile]:
    """One image, its header read; decode it inside the block, in `room_for` it.

    A JPEG whose end was lost is decoded as far as it goes, where nearly all of it is there: see `jpeg_end`.

    Raises:
        UndecodableError: it can't be opened or, inside the block, decoded, whatever its bytes hold; also at the end
            of the block.
    """
    try:
        file, was_cut = _source(content)
        with Image.open(file, formats=FORMATS) as image:
            most = min(max_pixels, MAX_PIXELS_OF.get(image.format or "", max_pixels))
            if image.width * image.height > most:
                size = f"{image.width} x {image.height}"
                raise UndecodableError("pixels", f"{size} is more than {most:,} pixels", most)
            yield image
            if was_cut and share_filled(image) > MOST_MISSING:
                raise UndecodableError(
                    "damaged", f"damaged: truncated, over {MOST_MISSING:.0%} of it is missing"
                )
    except UndecodableError:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableError("unknown", "not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise UndecodableError("pixels", f"more than {max_pixels:,} pixels", max_pixels) from error
    except MemoryError as error:
        raise UndecodableError("memory", "damaged: takes too much memory") from error
    except Exception as error:  # Pillow raises whatever broken bytes make it stumble over
        what = " ".join(str(error).split()) or type(error).__name__
        raise UndecodableError("damaged", f"damaged: {what}") from error


def is_cut(content: bytes | IO[bytes]) -> bool:
    """Whether this is a JPEG that lacks its end and is decoded all the same."""
    return _source(content)[1]


def _source(content: bytes | IO[bytes]) -> tuple[IO[bytes], bool]:
    """What Pillow is to read, and whether the end of a JPEG was put back to it."""
    if not isinstance(content, bytes):
        content.seek(-min(TAIL_BYTES, content.seek(0, os.SEEK_END)), os.SEEK_END)
        has_end = END in content.read()
        content.seek(0)
        if has_end or content.read(2) != START:
            return content, False
        content.seek(0)
        content = content.read()
    if lacks_end(content) and can_be_completed(content):
        return BytesIO(content + END), True
    return BytesIO(content), False


class _Memory:
    """Bytes that images take while they are decoded, all threads together."""

    def __init__(self, n_bytes: int) -> None:
        self._all = self._left = n_bytes
        self._changed = threading.Condition()

    @contextmanager
    def take(self, n_bytes: int) -> Iterator[None]:
        n_bytes = min(n_bytes, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= n_bytes)
            self._left -= n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._left += n_bytes
                self._changed.notify_all()


_memory = _Memory(MAX_BYTES_AT_A_TIME)


@contextmanager
def room_for(image: ImageFile.ImageFile) -> Iterator[None]:
    """Decode and flatten inside this block, after `draft`: large images wait for each other."""
    factor = 16 if image.format in MAX_PIXELS_OF else 8
    with _memory.take(factor * image.width * image.height):
        yield


def flattened(image: Image.Image, background: Color = WHITE) -> Image.Image:
    """In mode L or RGB, 8 bits, transparent pixels on the background; memory holds one strip beside both images."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode in DEEP_GREY:
        return _by_strips(image, "L", lambda strip: _grey(np.asarray(strip).astype(np.float32) / 257.0))
    if image.mode == "F":
        brightest = max(float(np.nan_to_num(np.asarray(strip)).max()) for strip in _strips(image))
        scale = 255.0 if brightest <= 1.0 else 1.0
        return _by_strips(image, "L", lambda strip: _grey(np.nan_to_num(np.asarray(strip)) * scale))
    if image.has_transparency_data:
        return _by_strips(image, "RGB", lambda strip: _on(strip.convert("RGBA"), background))
    mode = "L" if image.mode == "1" else "RGB"
    return _by_strips(image, mode, lambda strip: strip.convert(mode))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd files: enter once around all decoding, before threads start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_strips(image: Image.Image, mode: str, flatten: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if image.height * image.width <= STRIP_PIXELS:
        return flatten(image)
    flat, top = Image.new(mode, image.size), 0
    for strip in _strips(image):
        flat.paste(flatten(strip), (0, top))
        top += strip.height
    return flat


def _grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8))


def _on(layered: Image.Image, background: Color) -> Image.Image:
    flat = Image.new("RGB", layered.size, background)
    flat.paste(layered, mask=layered.getchannel("A"))
    return flat
