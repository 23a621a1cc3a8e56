"""Checks whether bytes are an image that can be decoded, whatever type the server states."""

from typing import IO

from store.catalog.images.open import UndecodableError, open_image, room_for

SNIFF_BYTES = 32

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
_NO_IMAGE = (
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<", "HTML"),
    (b"%PDF", "PDF"),
    (b"{", "JSON"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
)


def sniff(head: bytes) -> str | None:
    """The image format that the first `SNIFF_BYTES` bytes show, or None."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1"):
        return "AVIF"
    return None


def describe_other(head: bytes) -> str:
    """Why these first bytes are no image."""
    if not head:
        return "not an image: empty"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, name in _NO_IMAGE:
        if start.startswith(magic.lower()):
            return f"not an image: {name}"
    return "not an image: unknown content"


def image_problem(file: IO[bytes], max_pixels: int) -> str | None:
    """Decode the first frame to its end; why that fails, or None where it does not.

    A JPEG is decoded at an eighth of its size: its whole data stream is read, for a fraction of the
    time and memory.
    """
    file.seek(0)
    head = file.read(SNIFF_BYTES)
    if sniff(head) is None:
        return describe_other(head)
    file.seek(0)
    try:
        with open_image(file, max_pixels) as image:
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            with room_for(image):
                image.load()
    except UndecodableError as error:
        what = {
            "pixels": f"too many pixels: over {error.most_pixels}",
            "unknown": "broken image: header",
            "memory": "broken image: too much memory",
            "damaged": "broken image: can't be decoded",
        }
        is_cut = error.kind == "damaged" and "truncated" in error.reason.lower()
        return "broken image: truncated" if is_cut else what[error.kind]
    return None
