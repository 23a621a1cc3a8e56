"""Products -> text in the challenge's format: item name, bullet points, description, value, unit."""

import re

import numpy as np

from store.catalog.demo.phrases import (
    BY_DEPARTMENT,
    GENERAL,
    GIFT_SENTENCES,
    GIFT_WORDS,
    HEADLINES,
    SLOTS,
)
from store.catalog.demo.products import Line, Product

MEDIAN_CHARACTERS = 600
SPREAD = 0.75  # standard deviation of log characters
LONGEST_CHARACTERS = 2_600  # about 400 words

MILLILITRES, GRAMS = 29.5735, 28.3495  # of one fluid ounce, one ounce
UNIT_SPELLINGS = {
    "Ounce": (("Ounce", 0.8), ("ounce", 0.08), ("oz", 0.06), ("Ounces", 0.03), ("Fl Oz", 0.03)),
    "Fl Oz": (("Fl Oz", 0.76), ("fl oz", 0.08), ("Fluid Ounce", 0.07), ("FL Oz", 0.05), ("Ounce", 0.04)),
    "Count": (("Count", 0.85), ("count", 0.06), ("CT", 0.04), ("Each", 0.05)),
}
PIECES = {"tea": "Bags", "bars": "Bars", "vitamins": "Pieces"}


def _pick(random: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(random.integers(len(values)))]


def _pick_weighted(random: np.random.Generator, values: tuple[tuple[str, float], ...]) -> str:
    return values[int(random.choice(len(values), p=[share for _, share in values]))][0]


def written_size(random: np.random.Generator, product: Product) -> str:
    """One item's size in one of the spellings that sellers use."""
    size, category = product.size, product.line.category
    forms: tuple[str, ...]
    if category.unit == "Count":
        forms = (f"{size:g} Count", f"{size:g} ct", f"{size:g}-Count", f"{size:g} {PIECES[category.name]}")
    elif category.unit == "Fl Oz":
        forms = (
            f"{size:g} Fl Oz",
            f"{size:g} fl. oz.",
            f"{size:g} Fluid Ounce",
            f"{size * MILLILITRES:.0f} ml",
        )
    else:
        forms = (f"{size:g} Ounce", f"{size:g} oz", f"{size:g}-OZ", f"{size:g}oz", f"{size * GRAMS:.0f} g")
        if size >= 16 and size % 16 == 0:
            forms += (f"{size / 16:g} lb", f"{size / 16:g} Pound")
    return _pick(random, forms)


def title(random: np.random.Generator, product: Product) -> str:
    """The item name; size and pack count stand in it in one of several styles."""
    line, n = product.line, product.pack_count
    size = written_size(random, product)
    claims = " ".join(line.claims)
    goods = f"{line.variety} {line.item}" if random.random() < 0.7 else f"{line.item}, {line.variety}"
    if claims:
        goods = f"{claims} {goods}" if random.random() < 0.6 else f"{goods} - {claims}"
    if line.is_gift:
        gift = _pick(random, GIFT_WORDS)
        return _pick(
            random,
            (
                f"{line.brand} {goods} {gift}, {size} Each",
                f"{line.brand} {gift}: {goods} ({size})",
                f"{gift} by {line.brand} - {goods} - {size}",
            ),
        )
    if n == 1:
        forms: tuple[str, ...] = (
            f"{line.brand} {goods}, {size}",
            f"{line.brand} {goods} ({size})",
            f"{line.brand} - {goods} - {size}",
            f"{line.brand}, {goods}, {size}, 1 Pack",
        )
    else:
        forms = (
            f"{line.brand} {goods}, {size} (Pack of {n})",
            f"{line.brand} {goods} - {size} - {n} Pack",
            f"{line.brand} {goods} | {n} x {size}",
            f"{n}-Pack {line.brand} {goods}, {size} Each",
            f"{line.brand} {goods}, {size}, Case of {n}",
        )
    return _pick(random, forms)


def _filled(random: np.random.Generator, template: str, known: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: known.get(slot[1]) or _pick(random, SLOTS[slot[1]]), template)


def sentences(random: np.random.Generator, line: Line, known: dict[str, str]) -> list[str]:
    """Every sentence that fits a line, filled in, in random order."""
    templates = [*GENERAL, *BY_DEPARTMENT[line.category.department]]
    if line.is_gift:
        templates.extend(GIFT_SENTENCES)
    return [_filled(random, templates[int(i)], known) for i in random.permutation(len(templates))]


def _bullets(
    random: np.random.Generator, pool: list[str], known: dict[str, str], characters: float
) -> list[str]:
    """Up to six bullet points of one or two sentences, about so many characters together."""
    written: list[str] = []
    while pool and len(written) < 6 and sum(map(len, written)) < characters:
        bullet = pool.pop()
        if pool and random.random() < 0.4:
            bullet = f"{bullet} {pool.pop()}"
        if random.random() < 0.45:
            headline = _filled(random, _pick(random, HEADLINES), known)
            bullet = f"{headline.upper() if random.random() < 0.6 else headline}: {bullet}"
        written.append(bullet)
    return written


def quantity_lines(random: np.random.Generator, product: Product) -> list[str]:
    """`Value:` and `Unit:`, inconsistently spelled; now and then one or both are not there."""
    unit = product.line.category.unit
    value = 1.0 if product.line.is_gift else product.size * product.pack_count
    spelling = "Count" if product.line.is_gift else _pick_weighted(random, UNIT_SPELLINGS[unit])
    chance = random.random()
    if chance < 0.02:
        return []
    if chance < 0.03:
        return [f"Unit: {spelling}"]
    if chance < 0.04:
        return [f"Value: {round(value, 2)}", "Unit: None"]
    return [f"Value: {round(value, 2)}", f"Unit: {spelling}"]


def write(product: Product, title_seed: int) -> str:
    """The catalogue text of a product.

    Siblings share bullets and description (the line's writing seed); the title and the quantity are
    written anew (`title_seed`).
    """
    naming = np.random.default_rng(title_seed)
    random = np.random.default_rng(product.line.writing_seed)
    wanted = min(MEDIAN_CHARACTERS * float(np.exp(SPREAD * random.standard_normal())), LONGEST_CHARACTERS)
    name = title(naming, product)
    line = product.line
    known = {"brand": line.brand, "item": line.item.lower(), "variety": line.variety.lower()}
    pool = sentences(random, line, known)
    left = wanted - len(name) - 60
    lines = [f"Item Name: {name}"]
    bullets = _bullets(random, pool, known, left * random.uniform(0.2, 0.9)) if left > 80 else []
    lines.extend(f"Bullet Point {number}: {bullet}" for number, bullet in enumerate(bullets, 1))
    left -= sum(map(len, bullets))
    described: list[str] = []
    while pool and left > 60:
        described.append(pool.pop())
        left -= len(described[-1]) + 1
    if described:
        separator = _pick_weighted(random, ((" ", 0.8), ("<br>", 0.08), ("\n", 0.12)))
        lines.append(f"Product Description: {separator.join(described)}")
    return "\n".join([*lines, *quantity_lines(naming, product)]) + "\n"
