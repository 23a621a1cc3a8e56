"""What makes real catalogues hard, in known numbers: twins, missing and broken images, bad rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from store.catalog.demo.assortment import NOISE_SIGMA
from store.catalog.demo.products import Product, new_image, new_line, new_product, sibling

SIBLING_SHARE = 0.25  # the same line in another size
TWIN_SHARES = {"same text and image": 0.015, "same image": 0.015, "same text": 0.015}
NO_LINK_SHARE = 0.01
NO_FILE_SHARE = 0.015
BROKEN_SHARE = 0.004  # of images; runs stop at 0.01 by default
BROKEN_KINDS = ("truncated", "empty", "html")
BAD_PRICES = ("", "0", "-4.99", "N/A", "0.00", "nan", "inf", "ask")
PRICES_SPOILED_OVER = 40  # rows; the smallest demos are left whole


@dataclass(frozen=True)
class Listing:
    """One row before it is written."""

    product: Product
    title_seed: int
    noise: float  # of log price

    @property
    def price(self) -> float:
        return round(float(np.exp(self.product.log_price + self.noise)), 2)


def listings(random: np.random.Generator, n_rows: int) -> list[Listing]:
    """Products with their siblings and twins, in random order."""
    found: list[Listing] = []
    kinds = list(TWIN_SHARES)
    limits = np.cumsum([SIBLING_SHARE, *TWIN_SHARES.values()])
    for _ in range(n_rows):
        chance = float(random.random())
        seed, noise = int(random.integers(2**31)), float(NOISE_SIGMA * random.standard_normal())
        if not found or chance >= limits[-1]:
            product = new_product(random, new_line(random))
        else:
            original = found[int(random.integers(len(found)))]
            product = original.product
            if chance < limits[0]:
                product = sibling(random, product)
            else:
                kind = kinds[int(np.searchsorted(limits, chance, side="right")) - 1]
                product, seed = _twin(random, original, kind, seed)
        found.append(Listing(product, seed, noise))
    return [found[int(i)] for i in random.permutation(n_rows)]


def _twin(random: np.random.Generator, original: Listing, kind: str, fresh_seed: int) -> tuple[Product, int]:
    """The product and title seed of a twin of that kind."""
    product = original.product
    if kind == "same image":  # the same goods, described by somebody else
        return replace(product, line=replace(product.line, writing_seed=fresh_seed)), fresh_seed
    if kind == "same text":  # other goods behind the same words
        return replace(product, image=new_image(random, product.line)), original.title_seed
    return product, original.title_seed


def broken(kind: str, content: bytes) -> bytes:
    """What a failed download leaves under an image's name."""
    makers: dict[str, Callable[[bytes], bytes]] = {
        "truncated": lambda whole: whole[: len(whole) // 3],
        "empty": lambda whole: b"",
        "html": lambda whole: (
            b"<!DOCTYPE html>\n<html><body><h1>503 Service Unavailable</h1></body></html>\n"
        ),
    }
    return makers[kind](content)
