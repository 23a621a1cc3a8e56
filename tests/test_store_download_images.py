import io

import pytest
from PIL import Image

from store.catalog.download.images import image_problem, sniff
from store.catalog.images.open import is_cut
from tests.fake_images import NEEDS_AVIF, encoded, photo
from tests.image_server import pixel_bomb


def saved(kind, mode="RGB", size=(40, 30), **options):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def problem(content, max_pixels=1_000_000):
    return image_problem(io.BytesIO(content), max_pixels)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", pytest.param("AVIF", marks=NEEDS_AVIF)]
)
def test_an_image_of_each_format_is_taken(kind):
    content = saved(kind)
    assert sniff(content[:32]) == kind
    assert problem(content) is None


@pytest.mark.parametrize(
    "content",
    [
        saved("JPEG", "CMYK"),
        saved("PNG", "P"),
        saved("PNG", "I;16"),
        saved("PNG", "RGBA", (1, 1)),
        saved("GIF", "P", save_all=True, append_images=[Image.new("P", (40, 30), 1)]),
        saved(
            "JPEG",
            exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00",
        ),
    ],
    ids=["cmyk", "palette", "16-bit", "1x1", "animated", "rotated"],
)
def test_an_unusual_image_is_taken(content):
    assert problem(content) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image: empty"),
        (b"  <!DOCTYPE html><html></html>", "not an image: HTML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "not an image: XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image: SVG"),
        (b'{"error": "no such product"}', "not an image: JSON"),
        (b"%PDF-1.7", "not an image: PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image: unknown content"),
        (b"just some text", "not an image: unknown content"),
        (b"\xff\xd8\xff" + b"nothing more", "broken image: header"),
        (saved("PNG")[:60], "broken image: truncated"),
        (saved("JPEG", size=(400, 300))[:700], "broken image: truncated"),
    ],
)
def test_what_is_no_whole_image_says_why(content, reason):
    assert problem(content) == reason


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_of_which_nearly_all_is_there_is_taken_and_marked(options):
    content = encoded(photo(400, 300), **options)
    assert problem(content[:-3]) is None
    assert is_cut(io.BytesIO(content[:-3]))
    assert not is_cut(io.BytesIO(content))
    assert problem(content[: len(content) // 3]) == "broken image: truncated"


def test_an_image_of_too_many_pixels_is_not_decoded():
    assert problem(pixel_bomb()) == "too many pixels: over 1000000"
    assert problem(saved("PNG", size=(1001, 1000))) == "too many pixels: over 1000000"
