"""What is sold, and what it truly costs.

log price = category base + brand level + item + claims + elasticity * log(size) + elasticity * log(pack)
          + what only the image shows (finish, package, items in a gift set) + normal noise.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from store.catalog.demo.assortment import (
    BRANDS,
    CATEGORIES,
    CLAIMS,
    FINISHES,
    GIFT_COUNTS,
    GIFT_ELASTICITY,
    GIFT_SHARE,
    PACK_COUNTS,
    PACK_ELASTICITY,
    RICH_PACKAGE,
    Category,
)


@dataclass(frozen=True)
class Line:
    """One product line: what its siblings in other sizes share."""

    category: Category
    brand: str
    item: str
    variety: str
    claims: tuple[str, ...]
    is_gift: bool
    writing_seed: int  # decides how the text is written


@dataclass(frozen=True)
class Image:
    """What one image shows; the first three are seen nowhere else and move the price."""

    finish: str  # key of FINISHES
    is_rich: bool  # the category's dearer package
    gift_count: int  # items in the gift box, 1 for what is no gift set
    drawing_seed: int  # light, place, background: no price in it


@dataclass(frozen=True)
class Product:
    """One product as it is offered."""

    line: Line
    size: float  # of one item, in the category's unit
    pack_count: int
    image: Image

    @property
    def log_price(self) -> float:
        """Natural logarithm of the true price, noise aside."""
        line, category = self.line, self.line.category
        return (
            math.log(category.base_price)
            + math.log(BRANDS[line.brand][0])
            + math.log(category.items[line.item])
            + sum(math.log(CLAIMS[claim][0]) for claim in line.claims)
            + category.elasticity * math.log(self.size / category.reference_size)
            + PACK_ELASTICITY * math.log(self.pack_count)
            + image_log_factor(self.image.finish, self.image.is_rich, self.image.gift_count)
        )


def image_log_factor(finish: str, is_rich: bool, gift_count: int) -> float:
    """What the image alone adds to the log price."""
    package = math.log(RICH_PACKAGE[0]) if is_rich else 0.0
    return math.log(FINISHES[finish][0]) + package + GIFT_ELASTICITY * math.log(gift_count)


def _choose(random: np.random.Generator, shares: dict[int, float]) -> int:
    values = list(shares)
    return values[int(random.choice(len(values), p=list(shares.values())))]


def new_line(random: np.random.Generator) -> Line:
    """Any line that the shop could carry."""
    category = CATEGORIES[int(random.integers(len(CATEGORIES)))]
    brands = [name for name, (_, departments) in BRANDS.items() if category.department in departments]
    possible = [c for c in CLAIMS if category.department != "care" or c in ("Organic", "Sugar Free")]
    return Line(
        category=category,
        brand=brands[int(random.integers(len(brands)))],
        item=list(category.items)[int(random.integers(len(category.items)))],
        variety=list(category.varieties)[int(random.integers(len(category.varieties)))],
        claims=tuple(claim for claim in possible if random.random() < CLAIMS[claim][1]),
        is_gift=bool(random.random() < GIFT_SHARE),
        writing_seed=int(random.integers(2**31)),
    )


def new_image(random: np.random.Generator, line: Line) -> Image:
    """Any image of a line; nothing that moves the price depends on the line, save that gifts hold several."""
    finishes = list(FINISHES)
    shares = [share for _, share in FINISHES.values()]
    return Image(
        finish=finishes[int(random.choice(len(finishes), p=shares))],
        is_rich=bool(random.random() < RICH_PACKAGE[1]),
        gift_count=_choose(random, GIFT_COUNTS) if line.is_gift else 1,
        drawing_seed=int(random.integers(2**31)),
    )


def new_product(random: np.random.Generator, line: Line) -> Product:
    """A line in some size, pack and image. A gift set is no multipack."""
    size = line.category.sizes[int(random.integers(len(line.category.sizes)))]
    pack_count = 1 if line.is_gift else _choose(random, PACK_COUNTS)
    return Product(line, float(size), pack_count, new_image(random, line))


def sibling(random: np.random.Generator, product: Product) -> Product:
    """The same line in another size."""
    others = [size for size in product.line.category.sizes if size != product.size]
    size = float(others[int(random.integers(len(others)))])
    return replace(new_product(random, product.line), size=size)
