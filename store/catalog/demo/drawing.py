"""Products -> images: the package, how many of it, gift boxes, light and ground."""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from store.catalog.demo.assortment import Color
from store.catalog.demo.packages import HEIGHT, KRAFT, KRAFT_DARK, WIDTH, Look, mixed, package
from store.catalog.demo.products import Product

SIDE = 512  # pixels a side while drawing; the image is half of it
QUALITY = 88
MOST_SHOWN = 6
ALONE_SHARE = 0.15  # of multipacks whose image shows one item only

BACKGROUNDS: tuple[Color, ...] = (
    (252, 252, 252), (246, 244, 240), (238, 242, 244), (244, 236, 230), (232, 240, 232), (240, 234, 242),
)  # fmt: skip
RIBBONS: tuple[Color, ...] = ((176, 36, 48), (36, 92, 74), (44, 70, 122), (150, 96, 40))
# Items shown -> places of their feet (x from the middle, y from the ground; in widths of one item) and scale.
PLACES: dict[int, tuple[tuple[tuple[float, float], ...], float]] = {
    1: (((0.0, 0.0),), 1.28),
    2: (((-0.52, 0.0), (0.52, 0.04)), 1.08),
    3: (((0.0, -0.16), (-0.86, 0.06), (0.86, 0.06)), 0.86),
    4: (((-0.5, -0.55), (0.5, -0.55), (-0.54, 0.06), (0.54, 0.06)), 0.82),
    5: (((-0.55, -0.6), (0.55, -0.6), (-1.0, 0.06), (0.0, 0.06), (1.0, 0.06)), 0.72),
    6: (((-1.0, -0.62), (0.0, -0.62), (1.0, -0.62), (-1.02, 0.06), (0.0, 0.06), (1.02, 0.06)), 0.72),
}
# The same in a gift crate, which is as wide as six.
GIFT_PLACES: dict[int, tuple[tuple[tuple[float, float], ...], float]] = {
    2: (((-0.62, 0.0), (0.62, 0.0)), 0.92),
    4: (((-1.53, 0.0), (-0.51, 0.0), (0.51, 0.0), (1.53, 0.0)), 0.56),
    6: (((-1.1, -1.5), (0.0, -1.5), (1.1, -1.5), (-1.12, 0.0), (0.0, 0.0), (1.12, 0.0)), 0.6),
}


@cache
def _background(tone: int) -> Image.Image:
    """A studio sweep: light above, a soft floor below."""
    color = np.array(BACKGROUNDS[tone], np.float32)
    y = np.linspace(0, 1, SIDE, dtype=np.float32)
    light = 1.0 - 0.05 * np.clip((y - 0.55) / 0.3, 0, 1) + 0.02 * np.clip((y - 0.85) / 0.15, 0, 1)
    pixels = np.clip(color * light[:, None, None], 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (SIDE, SIDE, 3)).copy())


@cache
def _shadow(width: int, height: int) -> Image.Image:
    """A soft ellipse, mode L."""
    small = Image.new("L", (64, 24), 0)
    ImageDraw.Draw(small).ellipse((10, 6, 54, 18), fill=120)
    return small.filter(ImageFilter.GaussianBlur(3)).resize((width, height))


def draw(product: Product, size_label: str) -> Image.Image:
    """The image of a product, RGB, SIDE / 2 pixels a side."""
    line, image = product.line, product.image
    random = np.random.default_rng(image.drawing_seed)
    canvas = _background(int(random.integers(len(BACKGROUNDS)))).copy()
    shape = line.category.rich_shape if image.is_rich else line.category.plain_shape
    look = Look(
        image.finish, line.category.varieties[line.variety], line.brand, line.item, line.variety, size_label
    )
    item = package(shape, look)
    if line.is_gift:
        shown = image.gift_count
    else:
        shown = 1 if random.random() < ALONE_SHARE else min(product.pack_count, MOST_SHOWN)
    places, scale = (GIFT_PLACES if line.is_gift else PLACES)[shown]
    largest = line.category.sizes[-1] / line.category.sizes[0]
    fullness = np.log(product.size / line.category.sizes[0]) / np.log(largest)  # 0 smallest, 1 largest
    scale *= (0.84 + 0.16 * float(fullness)) * SIDE / 576
    middle = SIDE / 2 + float(random.uniform(-14, 14))
    ground = SIDE * (0.94 if not line.is_gift else 0.87) + float(random.uniform(-8, 8))
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    item = item.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    ribbon = RIBBONS[int(random.integers(len(RIBBONS)))]
    if line.is_gift:
        _gift_back(canvas, middle, ground)
    for x, y in places:
        left, top = round(middle + x * width - width / 2), round(ground + y * 0.62 * width - height)
        shade = _shadow(round(width * 1.25), round(width * 0.3))
        canvas.paste((40, 36, 34), (round(left - width * 0.12), round(top + height - width * 0.17)), shade)
        canvas.paste(item, (left, top), item)
    if line.is_gift:
        _gift_front(canvas, middle, ground, ribbon)
    return canvas.reduce(2)


def _gift_back(canvas: Image.Image, middle: float, ground: float) -> None:
    """The inside of an open crate, behind what it holds."""
    canvas.paste((40, 36, 34), (round(middle - 268), round(ground)), _shadow(536, 96))
    inside = (middle - 206, ground - 110, middle + 206, ground + 30)
    ImageDraw.Draw(canvas).rounded_rectangle(inside, 6, fill=mixed(KRAFT, KRAFT_DARK, 0.75))


def _gift_front(canvas: Image.Image, middle: float, ground: float, ribbon: Color) -> None:
    """The crate's front, a ribbon round it and a bow."""
    draw_on = ImageDraw.Draw(canvas)
    left, right, top, bottom = middle - 214, middle + 214, ground - 26, ground + 52
    draw_on.rounded_rectangle((left, top, right, bottom), 6, fill=mixed(KRAFT, (255, 244, 220), 0.25))
    draw_on.line((left + 4, top + 39, right - 4, top + 39), fill=mixed(KRAFT, KRAFT_DARK, 0.35), width=3)
    draw_on.rectangle((middle - 18, top, middle + 18, bottom), fill=ribbon)
    dark, y = mixed(ribbon, (0, 0, 0), 0.3), top + 28
    for reach, rise, fall, color in ((78, 34, 28, ribbon), (58, 17, 14, dark)):
        for side in (-1, 1):
            edge = middle + side * reach
            wing = [(middle, y), (edge, y - rise), (edge + side * 9, y), (edge, y + fall)]
            draw_on.polygon(wing, fill=color)
    draw_on.ellipse((middle - 17, y - 17, middle + 17, y + 17), fill=mixed(ribbon, (255, 255, 255), 0.12))


def encode(image: Image.Image) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
