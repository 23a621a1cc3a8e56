"""Where a model's own preprocessing resizes an image to, and which window of that it keeps."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from store.errors import EncoderError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
RESIZE = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class Turn:
    """What an EXIF orientation asks for: the operation, and what it does to the axes as stored."""

    method: Image.Transpose
    swaps_axes: bool
    reverses_x: bool
    reverses_y: bool


TURNS = {
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: Turn(Image.Transpose.ROTATE_180, False, True, True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: Turn(Image.Transpose.TRANSPOSE, True, False, False),
    6: Turn(Image.Transpose.ROTATE_270, True, False, True),
    7: Turn(Image.Transpose.TRANSVERSE, True, True, True),
    8: Turn(Image.Transpose.ROTATE_90, True, True, False),
}


@dataclass(frozen=True)
class CropWindow:
    """An image scaled to `scaled`, of which the pixels from `corner` on, `kept` of them, are kept.

    All are (x, y) in pixels; a negative corner means padding on that side.
    """

    scaled: tuple[int, int]
    corner: tuple[int, int]
    kept: tuple[int, int]

    def before(self, turn: Turn) -> "CropWindow":
        """The same window on the image as stored, before `turn` sets it upright."""
        (scaled_x, scaled_y), (x, y), (kept_x, kept_y) = self.scaled, self.corner, self.kept
        if turn.swaps_axes:
            scaled_x, scaled_y, x, y, kept_x, kept_y = scaled_y, scaled_x, y, x, kept_y, kept_x
        if turn.reverses_x:
            x = scaled_x - kept_x - x
        if turn.reverses_y:
            y = scaled_y - kept_y - y
        return CropWindow((scaled_x, scaled_y), (x, y), (kept_x, kept_y))


@dataclass(frozen=True)
class Geometry:
    """How a model's preprocessing brings any image to its input size: resize, then crop or pad.

    Source: the evaluation transforms of timm and open_clip, built on torchvision's Resize and CenterCrop.
    """

    size: tuple[int, int]  # (height, width) of the model's input, pixels
    resize: str  # what is brought to `resize_to`: the "shortest" edge, the "longest", or both ("squash")
    resize_to: tuple[int, int]  # (height, width) before the crop
    resample: Image.Resampling
    background: tuple[int, int, int]  # RGB behind transparent pixels
    fill: tuple[int, int, int]  # RGB beside the image, where it is padded
    corner: str = "round"  # of a window that lies between two pixels: "round" to the even one, or "floor"

    @classmethod
    def of(cls, preprocessing: dict[str, Any]) -> "Geometry":
        """From `EncoderSpec.preprocessing`, as `image_preprocessing` spells it.

        Raises:
            EncoderError: a way of resizing or interpolating that is not known here.
        """
        resize, interpolation = preprocessing["resize"], preprocessing["interpolation"]
        if resize not in RESIZE:
            raise EncoderError(f"preprocessing: resize must be one of {', '.join(RESIZE)}, got {resize!r}")
        if interpolation not in RESAMPLING:
            known = ", ".join(RESAMPLING)
            raise EncoderError(f"preprocessing: interpolation must be one of {known}, got {interpolation!r}")
        return cls(
            size=tuple(preprocessing["size"]),
            resize=resize,
            resize_to=tuple(preprocessing["resize_to"]),
            resample=RESAMPLING[interpolation],
            background=tuple(preprocessing["background"]),
            fill=tuple(preprocessing["fill"]),
            corner=preprocessing.get("corner", "round"),
        )

    def window(self, width: int, height: int) -> CropWindow:
        """Where an image of `width` x `height` pixels is scaled to, and which part of that is kept."""
        scaled_height, scaled_width = self._scaled(width, height)
        kept_height, kept_width = self.size
        left = _corner(scaled_width, kept_width, self.corner)
        corner = left, _corner(scaled_height, kept_height, self.corner)
        return CropWindow((scaled_width, scaled_height), corner, (kept_width, kept_height))

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        goal_height, goal_width = self.resize_to
        if self.resize == "squash":
            return goal_height, goal_width
        if self.resize == "shortest" and goal_height == goal_width:
            long = int(goal_height * max(width, height) / min(width, height))
            return (long, goal_height) if width <= height else (goal_height, long)
        ratios = height / goal_height, width / goal_width
        ratio = max(ratios) if self.resize == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


def _corner(scaled: int, kept: int, corner: str) -> int:
    """First pixel of a centred window; rounded as torchvision does when cropping, and when padding."""
    if scaled < kept:
        return -((kept - scaled) // 2)
    return (scaled - kept) // 2 if corner == "floor" else round((scaled - kept) / 2.0)
