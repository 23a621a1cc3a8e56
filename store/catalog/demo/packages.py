"""One package as a transparent image: its shape, its material, its label."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from store.catalog.demo.assortment import Color

WIDTH, HEIGHT = 240, 360  # of one package, pixels before the image is halved
KRAFT, KRAFT_DARK, INK = (190, 152, 106), (112, 78, 46), (38, 36, 40)
BLACK, GOLD, GOLD_LIGHT, WHITE = (26, 24, 28), (204, 160, 62), (248, 222, 142), (250, 249, 246)
GLASS = (214, 228, 226)
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Look:
    """Material and colours of a package."""

    finish: str  # "kraft", "standard", "gold"
    color: Color  # of the variety
    brand: str
    item: str
    variety: str
    size: str

    @property
    def surface(self) -> Color:
        """Colour of the package itself."""
        return {"kraft": KRAFT, "gold": BLACK}.get(self.finish, self.color)

    @property
    def lid(self) -> Color:
        return {"kraft": KRAFT_DARK, "gold": GOLD}.get(self.finish, mixed(self.color, WHITE, 0.15))


def mixed(first: Color, second: Color, share: float) -> Color:
    """The colour this far (0 to 1) from the first to the second."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(first, second, strict=True))
    return r, g, b


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries."""
    return ImageFont.load_default(size)


@cache
def _light(width: int, is_round: bool) -> np.ndarray:
    """Brightness across a package, shape (1, width, 1): a cylinder's, or a slightly turned box's."""
    x = np.linspace(-1, 1, width)
    if is_round:
        light = (
            0.62
            + 0.42 * np.sqrt(np.clip(1 - (x + 0.15) ** 2 / 1.35, 0, 1))
            + 0.16 * np.exp(-(((x + 0.5) / 0.13) ** 2))
        )
    else:
        light = np.where(x < 0.62, 1.04 - 0.06 * (x + 1), 0.74)
    return light[None, :, None].astype(np.float32)


@cache
def _label_light() -> Image.Image:
    """What a label's colours are multiplied by on a round package, RGBA."""
    light = np.clip(255 * (0.3 + 0.68 * _light(WIDTH, True)), 0, 255)
    pixels = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    pixels[..., :3] = light
    return Image.fromarray(pixels)


def _filled(
    size: tuple[int, int], mask: Image.Image, color: Color, *, is_round: bool, opacity: int = 255
) -> Image.Image:
    """A shape of one colour in that light."""
    pixels = np.clip(np.array(color, np.float32) * _light(size[0], is_round), 0, 255).astype(np.uint8)
    part = Image.fromarray(np.broadcast_to(pixels, (size[1], size[0], 3)).copy())
    part.putalpha(mask if opacity == 255 else mask.point(lambda value: value * opacity // 255))
    return part


def _mask(draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
    mask = Image.new("L", (WIDTH, HEIGHT), 0)
    draw(ImageDraw.Draw(mask))
    return mask


@dataclass(frozen=True)
class Shape:
    """Where the parts of a package are, in its own pixels."""

    body: Callable[[ImageDraw.ImageDraw], None]
    label: Box
    lid: Callable[[ImageDraw.ImageDraw], None] | None = None
    is_round: bool = True
    is_glass: bool = False
    is_metal: bool = False
    is_printed: bool = False  # the whole front is the label


def _rounded(*boxes: tuple[Box, int]) -> Callable[[ImageDraw.ImageDraw], None]:
    def draw(canvas: ImageDraw.ImageDraw) -> None:
        for box, radius in boxes:
            canvas.rounded_rectangle(box, radius, fill=255)

    return draw


def _polygon(*points: tuple[int, int]) -> Callable[[ImageDraw.ImageDraw], None]:
    return lambda canvas: canvas.polygon(points, fill=255)


SHAPES: dict[str, Shape] = {
    "pouch": Shape(
        _polygon((30, 20), (210, 20), (222, 60), (226, 340), (206, 356), (34, 356), (14, 340), (18, 60)),
        (34, 76, 206, 320), is_round=False, is_printed=True,
    ),
    "tin": Shape(
        _rounded(((24, 62, 216, 356), 16)), (24, 110, 216, 318),
        _rounded(((18, 36, 222, 78), 10)), is_metal=True,
    ),
    "box": Shape(_rounded(((16, 40, 224, 356), 4)), (32, 62, 170, 336), is_round=False, is_printed=True),
    "can": Shape(
        _rounded(((44, 34, 196, 356), 22)), (44, 70, 196, 322), _rounded(((56, 26, 184, 44), 8)), is_printed=True
    ),
    "carton": Shape(
        _polygon((34, 110), (66, 44), (66, 16), (174, 16), (174, 44), (206, 110), (206, 356), (34, 356)),
        (42, 122, 160, 340), is_round=False, is_printed=True,
    ),
    "bottle": Shape(
        _rounded(((52, 104, 188, 356), 34), ((92, 52, 148, 140), 16)), (52, 148, 188, 334),
        _rounded(((86, 22, 154, 74), 8)),
    ),
    "squeeze bottle": Shape(
        _rounded(((46, 108, 194, 346), 52), ((70, 300, 170, 356), 14)), (54, 146, 186, 322),
        _polygon((84, 110), (156, 110), (146, 62), (128, 56), (124, 22), (116, 22), (112, 56), (94, 62)),
    ),
    "pill bottle": Shape(
        _rounded(((50, 100, 190, 356), 22)), (50, 136, 190, 336), _rounded(((42, 48, 198, 116), 10))
    ),
    "glass bottle": Shape(
        _rounded(((56, 150, 184, 356), 26), ((98, 40, 142, 200), 14), ((74, 128, 166, 240), 44)),
        (56, 176, 184, 336), _rounded(((94, 18, 146, 66), 6)), is_glass=True,
    ),
    "glass jar": Shape(
        _rounded(((28, 96, 212, 356), 40), ((48, 70, 192, 130), 10)), (32, 150, 208, 332),
        _rounded(((40, 44, 200, 92), 8)), is_glass=True,
    ),
    "pump bottle": Shape(
        _rounded(((50, 128, 190, 356), 14)), (50, 158, 190, 338),
        _rounded(((86, 96, 154, 134), 6), ((112, 46, 128, 104), 4), ((66, 34, 134, 56), 8)), is_glass=True,
    ),
}  # fmt: skip


def package(shape_name: str, look: Look) -> Image.Image:
    """One package, RGBA, WIDTH x HEIGHT."""
    shape = SHAPES[shape_name]
    size = (WIDTH, HEIGHT)
    sprite = Image.new("RGBA", size, (0, 0, 0, 0))
    body = _mask(shape.body)
    if shape.is_glass:
        _paint_glass(sprite, body, look)
    else:
        base = mixed((176, 180, 186), look.surface, 0.35) if shape.is_metal else look.surface
        if not shape.is_printed and not shape.is_metal and look.finish == "standard":
            base = mixed(look.color, WHITE, 0.55)
        sprite.alpha_composite(_filled(size, body, base, is_round=shape.is_round))
    if shape.lid is not None:
        lid = (196, 200, 206) if shape_name == "can" else look.lid
        sprite.alpha_composite(_filled(size, _mask(shape.lid), lid, is_round=True))
    label = Image.new("RGBA", size, (0, 0, 0, 0))
    _paint_label(label, shape, look)
    if shape.is_round:
        label = ImageChops.multiply(label, _label_light())
    label.putalpha(ImageChops.multiply(label.getchannel("A"), body))
    sprite.alpha_composite(label)
    if shape.is_glass:
        shine = Image.new("RGBA", size, (255, 255, 255, 0))
        x = shape.label[0] + 10
        ImageDraw.Draw(shine).rounded_rectangle((x, 110, x + 9, 344), 5, fill=(255, 255, 255, 150))
        shine.putalpha(ImageChops.multiply(shine.getchannel("A"), body))
        sprite.alpha_composite(shine)
    return sprite


def _paint_glass(sprite: Image.Image, body: Image.Image, look: Look) -> None:
    """Clear glass with what it holds, and air above it."""
    size = (WIDTH, HEIGHT)
    sprite.alpha_composite(_filled(size, body, GLASS, is_round=True, opacity=170))
    inside = body.resize((WIDTH - 28, HEIGHT - 24))
    contents = Image.new("L", size, 0)
    contents.paste(inside, (14, 14))
    ImageDraw.Draw(contents).rectangle((0, 0, WIDTH, 138), fill=0)
    sprite.alpha_composite(
        _filled(size, contents, mixed(look.color, WHITE, 0.05), is_round=True, opacity=235)
    )


def _paint_label(label: Image.Image, shape: Shape, look: Look) -> None:
    draw = ImageDraw.Draw(label)
    left, top, right, bottom = shape.label
    if look.finish == "gold":
        draw.rounded_rectangle(shape.label, 6, fill=BLACK)
        for inset, width in ((5, 5), (14, 2)):
            draw.rounded_rectangle(
                (left + inset, top + inset, right - inset, bottom - inset), 6, outline=GOLD, width=width
            )
        ink, accent = GOLD_LIGHT, GOLD
    elif look.finish == "kraft":
        draw.rounded_rectangle(shape.label, 4, fill=mixed(KRAFT, WHITE, 0.18))
        for x in range(left + 8, right - 8, 14):  # stitches
            draw.line((x, top + 9, x + 7, top + 9), fill=KRAFT_DARK, width=2)
            draw.line((x, bottom - 9, x + 7, bottom - 9), fill=KRAFT_DARK, width=2)
        ink, accent = KRAFT_DARK, mixed(look.color, KRAFT_DARK, 0.25)
    else:
        draw.rounded_rectangle(shape.label, 10, fill=WHITE)
        draw.rounded_rectangle((left, bottom - 56, right, bottom), 10, fill=mixed(look.color, INK, 0.12))
        draw.ellipse((right - 44, top + 8, right - 10, top + 42), fill=look.color)
        ink, accent = INK, look.color
    _paint_words(draw, shape.label, look, ink, accent)
    if look.finish == "gold":
        _paint_seal(
            draw, right - 0.18 * (right - left), bottom - 0.18 * (right - left), 0.16 * (right - left)
        )


def _paint_seal(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    """A foil seal with a toothed edge."""
    turns = np.arange(32) * np.pi / 16
    reach = radius * (1 + 0.22 * (np.arange(32) % 2))
    draw.polygon(list(zip(x + reach * np.cos(turns), y + reach * np.sin(turns), strict=True)), fill=GOLD)
    inner = radius * 0.68
    draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=GOLD_LIGHT, outline=BLACK, width=2)


def _paint_words(draw: ImageDraw.ImageDraw, box: Box, look: Look, ink: Color, accent: Color) -> None:
    """Brand, rule, variety, item and size, set as large as the label allows."""
    left, top, right, bottom = box
    is_gold, is_standard = look.finish == "gold", look.finish == "standard"
    middle, width = (left + right) // 2, right - left - 30
    brand = look.brand.upper().split(" ", 1)
    lines = [*((word, 29) for word in brand), ("", 16), (look.variety, 25), (look.item, 20)]
    y = top + (46 if is_standard else 24)
    last = bottom - (62 if is_standard else 24 + 0.36 * (right - left) if is_gold else 48)
    shrink = min(1.0, (last - y) / sum(size + 4 for _, size in lines))
    for words, size in lines:
        if words:
            y += _write(draw, middle, y, words, round(size * shrink), width, ink)
        else:
            draw.line((middle - width // 3, y + 6, middle + width // 3, y + 6), fill=accent, width=3)
            y += round(18 * shrink)
    if is_gold:
        _write(draw, left + 18 + width // 4, bottom - 44, look.size, 18, width // 2, ink)
    else:
        _write(draw, middle, bottom - 40, look.size, 20, width, WHITE if is_standard else ink)


def _write(
    draw: ImageDraw.ImageDraw, middle: int, y: int, words: str, largest: int, width: int, color: Color
) -> int:
    """Write one centred line, as large as fits; returns the height it took."""
    size = max(8, min(largest, int(largest * width / max(_length(words, largest), 1))))
    draw.text((middle, y), words, fill=color, font=font(size), anchor="ma")
    return size + 4


@cache
def _length(words: str, size: int) -> float:
    return font(size).getlength(words)
