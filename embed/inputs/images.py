"""Image bytes -> pixels at the model's input size, or a failure that says why."""

import math
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

from embed.inputs import InputFailure
from embed.inputs.geometry import TURNS, CropWindow, Geometry
from store.catalog.images.open import WHITE, UndecodableError, flattened, open_image, room_for

SCALED_DECODING_MARGIN = (
    6.0  # noisy photos of 24 megapixels: vectors within 0.9995 of cosine; at 4 within 0.9988
)
WHOLE_PIXELS = 16_000_000  # of an image that is kept whole
MAX_SCALED = 16  # times the pixels kept: beyond, an image is not resized as a whole before the crop


def decode_image(content: bytes, preprocessing: dict[str, Any]) -> np.ndarray | InputFailure:
    """One image as the model's own preprocessing brings it to its input size, before normalisation.

    The first frame, turned upright by its EXIF orientation, transparent pixels on the background colour. A JPEG is
    decoded at an eighth, a quarter or half of its size where that leaves at least `SCALED_DECODING_MARGIN` times the
    size that it is resized to. A truncated file is a failure, since the missing part would be grey, but for a JPEG of
    which nearly all is there. Releases the GIL while decoding and resizing.

    Args:
        content: the bytes of an image file.
        preprocessing: `EncoderSpec.preprocessing` of an image encoder.

    Returns:
        Shape (height, width, 3), uint8, RGB; or the failure with its reason, whatever the bytes hold.

    Raises:
        EncoderError: the preprocessing names what is not known here.
    """
    geometry = Geometry.of(preprocessing)
    try:
        with open_image(content) as image:
            return _pixels(image, geometry)
    except UndecodableError as error:
        return InputFailure("decode", _what_else(content) if error.kind == "unknown" else error.reason)


def decode_whole(content: bytes) -> np.ndarray | InputFailure:
    """One image at its own size, for a model that takes any: upright, RGB, transparent pixels on white.

    Of a JPEG beyond `WHOLE_PIXELS` every other, fourth or eighth pixel, as libjpeg averages them.

    Returns:
        Shape (height, width, 3), uint8; or the failure with its reason, whatever the bytes hold.
    """
    try:
        with open_image(content) as image:
            turn = TURNS.get(_orientation(image))
            shrink = math.sqrt(WHOLE_PIXELS / (image.width * image.height))
            if shrink < 1:
                image.draft(None, (math.ceil(image.width * shrink), math.ceil(image.height * shrink)))
            with room_for(image):
                image.load()
                flat = flattened(image, WHITE).convert("RGB")
                return np.asarray(flat if turn is None else flat.transpose(turn.method))
    except UndecodableError as error:
        return InputFailure("decode", _what_else(content) if error.kind == "unknown" else error.reason)


def _what_else(content: bytes) -> str:
    if not content:
        return "empty file"
    if content[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    return f"not an image of a known format, starts with {content[:12]!r}"


def _pixels(image: ImageFile.ImageFile, geometry: Geometry) -> np.ndarray:
    turn = TURNS.get(_orientation(image))
    if turn is None:
        window = geometry.window(*image.size)
    else:
        width, height = image.size[::-1] if turn.swaps_axes else image.size
        window = geometry.window(width, height).before(turn)
    full_size = _draft(image, window, geometry)
    with room_for(image):
        image.load()
        small = _resize(flattened(image, geometry.background), full_size, window, geometry)
    return np.asarray(small if turn is None else small.transpose(turn.method))


def _orientation(image: ImageFile.ImageFile) -> int:
    if image.format == "TIFF":  # Pillow turns these itself while loading
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block leaves the image as it is stored
        return 1


def _draft(image: ImageFile.ImageFile, window: CropWindow, geometry: Geometry) -> tuple[float, float]:
    """Choose libjpeg's scale; returns the image's size in the pixels that will be decoded."""
    if image.format not in ("JPEG", "MPO") or geometry.resample == Image.Resampling.NEAREST:
        return image.size
    width, height = (math.ceil(SCALED_DECODING_MARGIN * edge) for edge in window.scaled)
    drafted = image.draft(None, (width, height))
    return drafted[1][2:] if drafted else image.size


def _resize(
    image: Image.Image, full_size: tuple[float, float], window: CropWindow, geometry: Geometry
) -> Image.Image:
    """Resize all, then crop: resizing just the window rounds otherwise, and models see the difference."""
    (width, height), (kept_width, kept_height) = window.scaled, window.kept
    if width * height > MAX_SCALED * kept_width * kept_height:
        return _resize_window(image, full_size, window, geometry)
    scaled = image.resize(window.scaled, geometry.resample, box=(0, 0, *full_size)).convert("RGB")
    if window.scaled == window.kept:
        return scaled
    if width >= kept_width and height >= kept_height:
        x, y = window.corner
        return scaled.crop((x, y, x + kept_width, y + kept_height))
    padded = Image.new("RGB", window.kept, geometry.fill)
    padded.paste(scaled, (-window.corner[0], -window.corner[1]))
    return padded


def _resize_window(
    image: Image.Image, full_size: tuple[float, float], window: CropWindow, geometry: Geometry
) -> Image.Image:
    """A strip of 1 x 60,000 pixels scaled to 224 across would fill the memory: resample what is kept."""
    axes = zip(full_size, window.scaled, window.corner, window.kept, strict=True)
    (x0, x1, width, left), (y0, y1, height, top) = (_span(*axis) for axis in axes)
    small = image.resize((width, height), geometry.resample, box=(x0, y0, x1, y1))
    padded = Image.new("RGB", window.kept, geometry.fill)
    padded.paste(small.convert("RGB"), (left, top))
    return padded


def _span(full: float, scaled: int, corner: int, kept: int) -> tuple[float, float, int, int]:
    """Along one axis: from and to in source pixels, target pixels, padding before them."""
    first, last = max(corner, 0), min(corner + kept, scaled)
    return first * full / scaled, min(last * full / scaled, full), last - first, max(-corner, 0)
