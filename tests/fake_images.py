"""Image files made on the spot: photo-like ones, odd ones that must decode right, broken ones that must not."""

import hashlib
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from store.schema import LINKS
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog

RED, GREEN, BLUE = (220, 30, 40), (30, 180, 60), (40, 60, 200)

HAS_AVIF = Image.registered_extensions().get(".avif") in Image.SAVE
NEEDS_AVIF = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow is built without AVIF")


def photo(width: int, height: int, seed: int = 0, noise: float = 3.0) -> Image.Image:
    """Smooth coloured shapes with a little sensor noise, in RGB."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    pixels += random.normal(0, noise, pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def two_halves(width: int = 80, height: int = 40, left: Any = RED, right: Any = BLUE) -> Image.Image:
    """One colour left, another right: shows which way up an image is."""
    image = Image.new("RGB", (width, height), left)
    image.paste(right, (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_of_three_scans(image: Image.Image) -> bytes:
    """A baseline JPEG that sends its components one after another, as Pillow never writes it."""
    parts = [encoded(band, subsampling=-1) for band in image.convert("YCbCr").split()]
    at = [part.index(b"\xff\xda") for part in parts]
    head = parts[0][: at[0]]
    frame = head.index(b"\xff\xc0")
    size = head[frame + 5 : frame + 9]
    components = b"".join(bytes([i + 1, 0x11, 0]) for i in range(3))
    head = head[:frame] + b"\xff\xc0\x00\x11\x08" + size + b"\x03" + components + head[frame + 13 :]
    scans = (
        b"\xff\xda\x00\x08\x01" + bytes([i + 1, 0, 0, 63, 0]) + part[start + 10 : -2]
        for i, (part, start) in enumerate(zip(parts, at, strict=True))
    )
    return head + b"".join(scans) + b"\xff\xd9"


def rotated_by_exif(upright: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """A file whose pixels lie turned and whose EXIF orientation says how to set them upright."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(upright.transpose(undo) if undo is not None else upright, kind, exif=exif.tobytes())


def animated(first: tuple[int, int, int], second: tuple[int, int, int], kind: str = "GIF") -> bytes:
    """Two frames, each of one colour."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in (first, second)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    """A well-formed one-bit PNG, all black: 50,000 x 50,000 pixels in a third of a megabyte."""
    squeeze = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(squeeze.compress(row * min(1000, height - at)) for at in range(0, height, 1000))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", body + squeeze.flush()), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks)


def broken_images() -> dict[str, bytes]:
    """Files that can't become an image, by what is wrong with them."""
    jpeg, png = encoded(photo(200, 150)), encoded(photo(200, 150), "PNG")
    return {
        "empty": b"",
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated PNG": png[: len(png) // 2],
        "truncated WebP": encoded(photo(200, 150), "WEBP")[:900],
        "header only": jpeg[:20],
        "HTML": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>",
        "text": b"Not Found",
        "noise": np.random.default_rng(0).bytes(5000),
        "bomb": png_of_size(50_000, 50_000),
        "large beyond the limit": png_of_size(12_000, 10_001),
    }


def publish_images(workspace: Workspace, contents: dict[str, bytes]) -> None:
    """A catalogue of a row for each image file by its name, and a last row without one."""
    links = []
    for name, content in contents.items():
        sha256 = hashlib.sha256(content).hexdigest()
        workspace.publish_bytes(f"images/blobs/{sha256[:2]}/{sha256}", content)
        links.append({"link": f"file:{name}", "sha256": sha256, "tries": 1, "n_bytes": len(content)})
    workspace.publish_table("images/links.parquet", pa.Table.from_pylist(links, schema=LINKS))
    rows = [{"sample_id": name, "image": f"file:{name}", "price": 1.0} for name in contents]
    publish_catalog(workspace, catalog_table([*rows, {"sample_id": "without", "price": 1.0}]))
