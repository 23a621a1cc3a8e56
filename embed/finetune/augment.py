"""Augmentation of images and texts of products that does not change what a product is or its quantity."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from store.catalog.parse.fields import may_state_quantity

if TYPE_CHECKING:
    import torch

LEAST_AREA = 0.7  # of the image kept by a crop: the product must stay whole enough to be priced
RATIO = (0.85, 1.18)  # width over height of a crop, relative to the image's
COLOUR = 0.2  # brightness, contrast and saturation change by at most so much
FLIP = 0.5
ERASE = 0.25  # chance that a rectangle is erased
ERASED_AREA = (0.02, 0.10)
DROP = 0.2  # chance of each bullet that states no quantity to be left out
SHUFFLE = 0.5  # chance that bullets change places


def larger(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """Preprocessing that leaves an image whole, as it is before the model's own centre crop: crops come later."""
    return {**preprocessing, "size": preprocessing["resize_to"]}


def augment_image(
    pixels: np.ndarray, size: tuple[int, int], random: np.random.Generator, fill: tuple[int, int, int]
) -> np.ndarray:
    """Crop, flip, colour, erasing.

    Args:
        pixels: shape (height, width, 3) uint8.
        size: height and width that enter the model.
        fill: RGB of what is erased.

    Returns:
        Shape (*size, 3) uint8.
    """
    import torch
    from torchvision.transforms.v2 import functional as change

    image: torch.Tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    height, width = pixels.shape[:2]
    area = random.uniform(LEAST_AREA, 1.0)
    ratio = np.exp(random.uniform(np.log(RATIO[0]), np.log(RATIO[1])))
    crop_height = min(height, max(1, round(height * np.sqrt(area / ratio))))
    crop_width = min(width, max(1, round(width * np.sqrt(area * ratio))))
    top = int(random.integers(0, height - crop_height + 1))
    left = int(random.integers(0, width - crop_width + 1))
    image = change.resized_crop(
        image, top, left, crop_height, crop_width, list(size), antialias=True
    ).contiguous()
    if random.random() < FLIP:
        image = change.horizontal_flip(image)
    for adjust in (change.adjust_brightness, change.adjust_contrast, change.adjust_saturation):
        image = adjust(image, float(random.uniform(1 - COLOUR, 1 + COLOUR)))
    if random.random() < ERASE:
        image = _erase(image, random, fill)
    return image.permute(1, 2, 0).contiguous().numpy()


def _erase(image: "torch.Tensor", random: np.random.Generator, fill: tuple[int, int, int]) -> "torch.Tensor":
    height, width = image.shape[1:]
    area = random.uniform(*ERASED_AREA) * height * width
    ratio = np.exp(random.uniform(np.log(0.5), np.log(2.0)))
    tall, wide = (
        min(height, max(1, round(np.sqrt(area / ratio)))),
        min(width, max(1, round(np.sqrt(area * ratio)))),
    )
    top, left = int(random.integers(0, height - tall + 1)), int(random.integers(0, width - wide + 1))
    image = image.clone()
    image[:, top : top + tall, left : left + wide] = image.new_tensor(fill)[:, None, None]
    return image


def augment_bullets(bullets: list[str], random: np.random.Generator) -> list[str]:
    """Bullets dropped or shuffled; one that may state a quantity is never dropped."""
    kept = [one for one in bullets if may_state_quantity(one) or random.random() >= DROP] or bullets[:1]
    if random.random() < SHUFFLE:
        kept = [kept[i] for i in random.permutation(len(kept))]
    return kept


def augment_text(text: str, bullets: list[str], random: np.random.Generator) -> str:
    """The same on a text as given: each bullet's place takes another bullet, or none. All else stays as it is."""
    places = [text.find(bullet) for bullet in bullets]
    if not bullets or min(places) < 0 or len(set(places)) < len(places):
        return text
    changed = augment_bullets(bullets, random)
    changed += [""] * (len(bullets) - len(changed))
    order = np.argsort(places)
    parts, end = [], 0
    for replacement, at in zip(changed, order.tolist(), strict=True):
        if places[at] < end:  # one bullet lies in another
            return text
        parts += [text[end : places[at]], replacement]
        end = places[at] + len(bullets[at])
    return "".join([*parts, text[end:]])


def augment_rows(rows: pa.Table, randoms: list[np.random.Generator]) -> pa.Table:
    """Catalogue rows with their bullets changed, one generator a row; texts as given change with them."""
    bullets = [list(one or ()) for one in rows["bullets"].to_pylist()]
    if "text" in rows.column_names:
        texts = [
            augment_text(text or "", own, random)
            for text, own, random in zip(rows["text"].to_pylist(), bullets, randoms, strict=True)
        ]
        at = rows.schema.get_field_index("text")
        return rows.set_column(at, rows.schema.field(at), pa.array(texts, pa.string()))
    changed = [augment_bullets(own, random) for own, random in zip(bullets, randoms, strict=True)]
    at = rows.schema.get_field_index("bullets")
    return rows.set_column(at, rows.schema.field(at), pa.array(changed, rows.schema.field(at).type))
