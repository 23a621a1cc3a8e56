"""The demo's files: train.csv, test.csv, images/, truth.csv and catalogue.json, the same for the same seed."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from store.catalog.demo import traps
from store.catalog.demo.assortment import NOISE_SIGMA
from store.catalog.demo.drawing import draw, encode
from store.catalog.demo.floor import smape_floor, smape_floor_blind, smape_floor_without_images
from store.catalog.demo.products import Image
from store.catalog.demo.traps import Listing, listings
from store.catalog.demo.writing import write
from store.errors import CatalogError
from store.metric import smape
from store.workspace import Workspace

RECORD = "catalogue.json"
HEADER = ("sample_id", "catalog_content", "image_link", "price")
LINK = "https://images.example.com/I/{}.jpg"
NAMED_BY_LINK_SHARE = 0.2  # of images; the others are named by sample_id
LEAST_DRAWN = 64  # images that repay the start of a process
DRAWN = re.compile(r"(\d{6}|71\d{9}\w+L)\.jpg")  # names of its images: an id, or that of a link


@dataclass(frozen=True)
class DemoRow:
    """One line of train.csv or test.csv."""

    sample_id: str
    listing: Listing
    link: str  # "" where the row has none
    file: str | None  # name in images/, None where there is no such file
    damage: str | None  # one of BROKEN_KINDS
    price: str  # as written, which may be nonsense

    @property
    def has_readable_image(self) -> bool:
        return self.file is not None and self.damage is None


def rows_of_demo(seed: int, n_train: int, n_test: int) -> tuple[list[DemoRow], list[DemoRow]]:
    """Every row of train and test, with the deliberate faults.

    Raises:
        CatalogError: too few rows to make a catalogue of.
    """
    if n_train < 10 or n_test < 0:
        raise CatalogError(
            f"a demo needs at least 10 train and 0 test rows, got {n_train} and {n_test}: raise --train or --test"
        )
    random = np.random.default_rng(seed)
    sold = listings(random, n_train + n_test)
    shown = Counter(listing.product.image for listing in sold)
    alone = [i for i, listing in enumerate(sold) if shown[listing.product.image] == 1]
    spoiled = iter(random.permutation(alone).tolist())  # each row has one deliberate fault at most
    n_rows = len(sold)
    no_link = _take(spoiled, round(n_rows * traps.NO_LINK_SHARE))
    no_file = _take(spoiled, round(n_rows * traps.NO_FILE_SHARE))
    damaged = _take(spoiled, int(n_rows * traps.BROKEN_SHARE))
    damage = {row: traps.BROKEN_KINDS[i % len(traps.BROKEN_KINDS)] for i, row in enumerate(damaged)}
    ids = [str(value) for value in 100_000 + random.permutation(900_000)[:n_rows]]
    prices = [f"{listing.price:.2f}" for listing in sold]
    if n_train >= traps.PRICES_SPOILED_OVER:
        in_train = (row for row in spoiled if row < n_train)
        n_bad = min(len(traps.BAD_PRICES), max(2, n_train // 50))
        for row, bad in zip(_take(in_train, n_bad), traps.BAD_PRICES, strict=False):
            prices[row] = bad
        for row, bad in zip(_take(in_train, 2), ("", ids[0]), strict=False):
            ids[row] = bad
    rows = []
    for i, listing in enumerate(sold):
        name = image_name(listing.product.image)
        by_link = listing.product.image.drawing_seed % 100 < 100 * NAMED_BY_LINK_SHARE
        rows.append(
            DemoRow(
                sample_id=ids[i],
                listing=listing,
                link="" if i in no_link else LINK.format(name),
                file=None if i in no_link or i in no_file else f"{name if by_link else ids[i] or name}.jpg",
                damage=damage.get(i),
                price=prices[i],
            )
        )
    return rows[:n_train], rows[n_train:]


def _take(rows: Iterator[int], count: int) -> list[int]:
    return list(islice(rows, count))


def image_name(image: Image) -> str:
    """The name in an image's link; the same image has the same link."""
    return f"71{image.drawing_seed:09d}{image.finish[0]}{int(image.is_rich)}{image.gift_count}L"


def record(seed: int, train: Sequence[DemoRow], test: Sequence[DemoRow]) -> dict[str, Any]:
    """What is known of a demo, the best reachable score before all."""
    rows = [*train, *test]
    files = {row.file: row.damage for row in rows if row.file is not None}
    gift_share = float(np.mean([row.listing.product.line.is_gift for row in rows]))
    expected = [
        smape_floor() if row.has_readable_image else smape_floor_blind(row.listing.product.line.is_gift)
        for row in test
    ]
    actual = np.array([row.listing.price for row in test])
    noiseless = np.array([np.exp(row.listing.product.log_price) for row in test])
    return {
        "about": (
            "A catalogue that was drawn and written by shelfprice. log price = category + brand + item + claims + "
            "size + pack count + what only the image shows (finish, package, items in a gift set) + normal noise. "
            "truth.csv holds the test prices and the same without noise; no command reads it."
        ),
        "seed": seed,
        "rows": {"train": len(train), "test": len(test)},
        "images": {
            "files": len(files),
            "broken": sum(damage is not None for damage in files.values()),
            "rows_without_link": sum(not row.link for row in rows),
            "rows_without_file": sum(bool(row.link) and row.file is None for row in rows),
        },
        "noise_sigma": NOISE_SIGMA,
        "smape_floor": {
            "all_known": round(smape_floor(), 3),
            "all_known_but_unreadable_images": round(float(np.mean(expected)), 3) if expected else None,
            "without_images": round(smape_floor_without_images(gift_share), 3),
            "noiseless_prices_on_test": round(smape(actual, noiseless), 3) if test else None,
        },
    }


def make_demo(
    to: str | os.PathLike[str], seed: int = 42, n_train: int = 2000, n_test: int = 500
) -> dict[str, Any]:
    """Write an invented catalogue with images, whose true prices and best reachable score are known.

    >>> from store import make_demo
    >>> made = make_demo("demo", n_train=300, n_test=60)  # doctest: +SKIP

    Args:
        to: a folder that is empty, does not exist, or holds an earlier demo, which is replaced.
        seed: decides every product, text and image: same seed, same bytes.
        n_train: rows of train.csv, at least 10.
        n_test: rows of test.csv.

    Returns:
        What catalogue.json holds: number of rows and images, and the best SMAPE that is reachable.

    Raises:
        CatalogError: the folder holds something else, or too few rows are asked for.
        WorkspaceError: the disk is full or the folder can't be written.
    """
    train, test = rows_of_demo(seed, n_train, n_test)
    to = Path(to)
    folder = Workspace(to)
    _check_replaceable(to, folder)
    described = record(seed, train, test)
    for stale in ("train.csv", "test.csv", "truth.csv", "images"):
        folder.remove(stale)
    folder.publish_json(RECORD, described)
    _draw_files(folder, [*train, *test])
    truth = [(r.sample_id, r.price, f"{np.exp(r.listing.product.log_price):.4f}") for r in test]
    folder.publish_bytes("truth.csv", _csv([("sample_id", "price", "noiseless_price"), *truth]))
    lines = [(r.sample_id, write(r.listing.product, r.listing.title_seed), r.link, r.price) for r in train]
    tests = [(r.sample_id, write(r.listing.product, r.listing.title_seed), r.link) for r in test]
    folder.publish_bytes("test.csv", _csv([HEADER[:3], *tests]))
    folder.publish_bytes("train.csv", _csv([HEADER, *lines]))  # last: its presence says that all is there
    return described


def _check_replaceable(to: Path, folder: Workspace) -> None:
    """Raises CatalogError where a folder holds what is no demo, or images that no demo draws."""
    if not to.exists() or not any(to.iterdir()):
        return
    problem = f"holds no demo ({RECORD})"
    if folder.is_sound(RECORD) and "smape_floor" in folder.read_json(RECORD):
        foreign = [name for name in folder.names("images") if not DRAWN.fullmatch(name)]
        if not foreign:
            return
        problem = f"its images are not only those of a demo (first: {foreign[0]})"
    raise CatalogError(f"{to} is not empty and {problem}: name a new folder with --to")


def _draw_files(folder: Workspace, rows: Sequence[DemoRow]) -> None:
    wanted = list({row.file: row for row in rows if row.file is not None}.values())
    processes = Parallel(n_jobs=max(1, min(cpu_count(), len(wanted) // LEAST_DRAWN)), return_as="generator")
    drawn = processes(delayed(_draw_file)(folder, row) for row in wanted)  # drawing holds Python's lock
    for _ in tqdm(drawn, total=len(wanted), desc="images", unit="", disable=None):
        pass


def _draw_file(folder: Workspace, row: DemoRow) -> None:
    product = row.listing.product
    content = encode(draw(product, f"{product.size:g} {product.line.category.unit}"))
    content = content if row.damage is None else traps.broken(row.damage, content)
    folder.publish(f"images/{row.file}", lambda target: target.write(content), flush=False)


def _csv(lines: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def summary(to: Path, described: dict[str, Any]) -> str:
    """What was made, in a few lines."""
    rows, images, floor = described["rows"], described["images"], described["smape_floor"]
    return (
        f"{to}: {rows['train']} train and {rows['test']} test rows, {images['files']} images "
        f"({images['broken']} of them broken)\n"
        f"best reachable SMAPE {floor['all_known']:.1f}, without looking at the images "
        f"{floor['without_images']:.1f} (noise of log price: {described['noise_sigma']})\n"
        f"next: shelfprice catalog ingest --train {to}/train.csv --test {to}/test.csv --images {to}/images"
    )
