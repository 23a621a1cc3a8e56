import io
import threading
import time
import tracemalloc

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from embed.inputs.images import decode_image
from store.catalog.clean.images import hashes_of
from store.catalog.download.images import image_problem
from store.catalog.images import open as opening
from store.catalog.images.open import (
    MAX_PIXELS_OF,
    UndecodableError,
    flattened,
    open_image,
    quiet_pillow,
    room_for,
)
from store.catalog.show.page import thumbnail_of
from store.workspace import Workspace
from tests.clean_rows import publish
from tests.fake_images import NEEDS_AVIF, RED, encoded, photo
from tests.test_embed_inputs_images import preprocessing

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_pillow():
        yield


def test_no_opener_of_the_project_starts_ghostscript(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *of: started.append(of) or photo(90, 90).im)
    Image.open(io.BytesIO(EPS)).load()
    assert started.pop()  # so would Pillow, left alone
    workspace = Workspace(tmp_path)
    publish(workspace, [{"sample_id": 1, "text": "", "price": 1.0}], images={"1.jpg": EPS})
    digest = workspace.read_table("images/links.parquet")["sha256"][0].as_py()
    assert "not an image of a known format" in decode_image(EPS, preprocessing()).reason
    assert image_problem(io.BytesIO(EPS), 10**6) == "not an image: unknown content"
    assert thumbnail_of(workspace, digest) is None
    assert hashes_of(workspace.root, [digest]) == [(digest, None, "not an image of a known format")]
    assert started == []


def test_a_jpeg_of_several_images_is_opened_as_its_first():
    content = encoded(photo(60, 40), "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40), RED)])
    with open_image(content) as image:
        assert image.format == "MPO"
        np.testing.assert_array_equal(
            np.asarray(image),
            np.asarray(Image.open(io.BytesIO(encoded(photo(60, 40), quality=75, subsampling=2)))),
        )


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", pytest.param("AVIF", marks=NEEDS_AVIF)])
def test_a_format_whose_decoder_takes_more_memory_may_have_fewer_pixels(kind, monkeypatch):
    content = encoded(photo(100, 90), kind)
    with open_image(content) as image:
        image.load()
    monkeypatch.setitem(MAX_PIXELS_OF, kind, 8_999)
    with pytest.raises(UndecodableError, match="100 x 90 is more than 8,999 pixels"), open_image(content):
        pass
    assert image_problem(io.BytesIO(content), 10**6) == "too many pixels: over 8999"


@pytest.mark.parametrize("mode", ["F", "I", "I;16", "RGBA", "P with transparency", "CMYK", "1", "LA"])
def test_a_large_image_is_flattened_by_strips_to_the_same_pixels(mode, monkeypatch):
    large = photo(300, 200)
    grey = np.asarray(large.convert("L"))
    if mode == "F":
        image = Image.fromarray(np.where(grey == 7, np.nan, grey / np.float32(255)))
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = large.convert(mode)
        image.putalpha(large.convert("L"))
    elif mode == "P with transparency":
        image = large.quantize(16)
        image.info["transparency"] = bytes(range(0, 256, 16))
    else:
        image = large.convert(mode)
    whole = np.asarray(flattened(image, (9, 99, 199)))
    monkeypatch.setattr(opening, "STRIP_PIXELS", 7 * 300)
    np.testing.assert_array_equal(np.asarray(flattened(image, (9, 99, 199))), whole)


def test_flattening_takes_no_copies_of_a_large_image():
    image = Image.new("F", (4000, 4000), 0.5)
    tracemalloc.start()
    flat = flattened(image)
    peak = tracemalloc.get_traced_memory()[1]  # NumPy's; each copy of the image would take 64 MB
    tracemalloc.stop()
    assert flat.getextrema() == (128, 128)
    assert peak < 80_000_000 < 4 * 4 * image.width * image.height / 2


def test_large_images_wait_for_each_other_and_small_ones_do_not(monkeypatch):
    monkeypatch.setattr(opening, "_memory", opening._Memory(8 * 100 * 100))
    inside = threading.Event()
    leave = threading.Event()
    order: list[str] = []

    def decode(name, size):
        with open_image(encoded(photo(*size), "PNG")) as image, room_for(image):
            order.append(name)
            if name == "first":
                inside.set()
                leave.wait(10)

    first = threading.Thread(target=decode, args=("first", (90, 90)))
    first.start()
    assert inside.wait(10)
    decode("small", (20, 20))
    second = threading.Thread(target=decode, args=("larger than all", (500, 500)))
    second.start()
    time.sleep(0.05)
    assert order == ["first", "small"]
    leave.set()
    first.join(10)
    second.join(10)
    assert order == ["first", "small", "larger than all"]
