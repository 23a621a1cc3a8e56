import csv
import errno
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, UnidentifiedImageError

from store import local
from store.catalog.demo.assortment import BRANDS, CATEGORIES, NOISE_SIGMA
from store.catalog.demo.floor import smape_floor, smape_floor_blind
from store.catalog.demo.generate import make_demo, rows_of_demo
from store.catalog.demo.packages import HEIGHT, SHAPES, WIDTH, Look, package
from store.cli import main
from store.errors import CatalogError
from store.metric import smape_log

N_TRAIN, N_TEST = 240, 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp("shop") / "demo"
    make_demo(to, 7, N_TRAIN, N_TEST)
    return to


@pytest.fixture(scope="module")
def full():
    return rows_of_demo(42, 2000, 500)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    make_demo(tmp_path / "once", 7, 50, 10)
    make_demo(tmp_path / "again", 7, 50, 10)
    again = files_of(tmp_path / "again")
    assert len(again) > 50
    assert again == files_of(tmp_path / "once")


def test_a_disk_that_fills_up_is_one_line(tmp_path, monkeypatch):
    def full(content):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = local.publish_local

    def publish(target, write, flush=True):
        real(target, write if target.endswith("json") else lambda file: full(write), flush)

    monkeypatch.setattr("store.files.publish_local", publish)
    command = ["catalog", "demo", "--to", str(tmp_path / "demo"), "--train", "12", "--test", "3"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "no space left to write" in result.output
    assert not (tmp_path / "demo/train.csv").exists()


def test_another_seed_gives_another_catalogue(folder, tmp_path):
    make_demo(tmp_path / "other", 8, 20, 5)
    assert not set(files_of(tmp_path / "other")) & {f for f in files_of(folder) if f.startswith("images/")}


def test_only_the_truth_holds_test_prices(folder):
    train, test = read_csv(folder / "train.csv"), read_csv(folder / "test.csv")
    assert (len(train), len(test)) == (N_TRAIN, N_TEST)
    assert list(train[0]) == ["sample_id", "catalog_content", "image_link", "price"]
    assert list(test[0]) == ["sample_id", "catalog_content", "image_link"]
    truth = read_csv(folder / "truth.csv")
    assert [row["sample_id"] for row in truth] == [row["sample_id"] for row in test]
    assert all(float(row["price"]) > 0 for row in truth)


def test_noiseless_prices_score_near_the_stated_floor(full):
    train, test = full
    noise = np.array([row.listing.noise for row in [*train, *test]])
    assert smape_log(noise, np.zeros_like(noise)) == pytest.approx(smape_floor(), abs=0.6)


def test_the_floor_agrees_with_drawing_the_noise():
    noise = NOISE_SIGMA * np.random.default_rng(0).standard_normal(400_000)
    assert smape_floor() == pytest.approx(200 * np.tanh(np.abs(noise) / 2).mean(), abs=0.05)
    assert 12 <= smape_floor() <= 15


@pytest.mark.parametrize("is_gift", [False, True])
def test_who_knows_all_but_the_image_scores_the_blind_floor(full, is_gift):
    products = [row.listing.product for row in [*full[0], *full[1]]]
    rest = np.array(
        [row.listing.noise + row.listing.product.log_price for row in [*full[0], *full[1]]]
    ) - np.array([_log_price_without_image(product) for product in products])
    rest = rest[[product.line.is_gift == is_gift for product in products]]
    best = min(smape_log(rest, np.full_like(rest, guess)) for guess in np.linspace(-0.5, 2, 101))
    assert best == pytest.approx(smape_floor_blind(is_gift), abs=2.0)


def _log_price_without_image(product) -> float:
    line, category = product.line, product.line.category
    claims = {"Organic": 1.2, "Gluten Free": 1.08}
    price = category.base_price * BRANDS[line.brand][0] * category.items[line.item]
    price *= math.prod(claims.get(claim, 1.0) for claim in line.claims)
    price *= (product.size / category.reference_size) ** category.elasticity * product.pack_count**0.88
    return math.log(price)


def test_the_catalogue_is_diverse(full):
    rows = [*full[0], *full[1]]
    products = [row.listing.product for row in rows]
    assert len({(p.line.item, p.line.variety) for p in products}) > 300
    assert len({p.line.brand for p in products}) >= 40
    assert len({p.line.category.name for p in products}) == len(CATEGORIES)
    prices = np.array([row.listing.price for row in rows])
    assert prices.min() > 0.3
    assert prices.max() / np.median(prices) > 10


def test_texts_are_of_mixed_length_and_hold_quotes_and_newlines(folder):
    texts = [row["catalog_content"] for row in read_csv(folder / "train.csv")]
    lengths = np.array([len(text) for text in texts])
    assert 450 < np.median(lengths) < 800
    assert lengths.min() < 150
    assert lengths.max() > 1800
    assert any('"' in text for text in texts)
    assert any("\n" in text.split("Product Description: ")[-1].split("\nValue:")[0] for text in texts)
    assert all(text.startswith("Item Name: ") for text in texts)


def test_units_are_spelled_in_many_ways_and_sometimes_left_out(folder):
    texts = [row["catalog_content"] for row in read_csv(folder / "train.csv")]
    units = Counter(t.rsplit("\nUnit: ", 1)[1].strip() if "\nUnit: " in t else None for t in texts)
    assert {"Ounce", "Fl Oz", "Count"} <= set(units)
    assert len(units) > 6
    assert units[None] >= 1


def test_every_kind_of_twin_is_there(full):
    by_image, by_text = defaultdict(set), defaultdict(set)
    both = Counter()
    for row in [*full[0], *full[1]]:
        product = row.listing.product
        text = (product.line.writing_seed, row.listing.title_seed, product.size)
        by_image[product.image].add(text)
        by_text[text].add(product.image)
        both[text, product.image] += 1
    assert max(both.values()) > 1
    assert any(len(texts) > 1 for texts in by_image.values())
    assert any(len(images) > 1 for images in by_text.values())


def test_twins_have_the_same_bytes(folder):
    train, test = rows_of_demo(7, N_TRAIN, N_TEST)
    contents = defaultdict(set)
    for row in [*train, *test]:
        if row.has_readable_image:
            contents[row.link].add((folder / "images" / row.file).read_bytes())
    assert all(len(same) == 1 for same in contents.values())


def test_some_images_are_missing_and_less_than_one_in_a_hundred_is_broken(folder):
    record = json.loads((folder / "catalogue.json").read_text())["images"]
    unreadable = 0
    for path in (folder / "images").iterdir():
        try:
            with Image.open(path) as image:
                image.load()
                assert image.size == (256, 256)
        except (UnidentifiedImageError, OSError):
            unreadable += 1
    assert unreadable == record["broken"] > 0
    assert unreadable < 0.01 * record["files"]
    assert record["rows_without_link"] > 0
    assert record["rows_without_file"] > 0


def test_bad_prices_and_ids_are_in_train_alone(folder):
    train, test = read_csv(folder / "train.csv"), read_csv(folder / "test.csv")
    assert {"", "0", "-4.99", "N/A"} <= {row["price"] for row in train}
    ids = Counter(row["sample_id"] for row in [*train, *test])
    assert ids[""] == 1
    assert sorted(ids.values())[-2:] == [1, 2]
    assert "" not in {row["sample_id"] for row in test}


@pytest.mark.parametrize("shape", SHAPES)
def test_finishes_of_one_package_look_far_apart(shape):
    looks = [
        package(shape, Look(finish, (200, 52, 44), "Blue Kettle", "Juice", "Apple", "32 Fl Oz"))
        for finish in ("kraft", "standard", "gold")
    ]
    assert all(look.size == (WIDTH, HEIGHT) for look in looks)
    pixels = [np.asarray(look.convert("RGB"), float) for look in looks]
    for i, first in enumerate(pixels):
        for second in pixels[i + 1 :]:
            assert np.abs(first - second).mean() > 12


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CatalogError, match=r"is not empty and holds no demo .*name a new folder with --to"):
        make_demo(tmp_path, 7, 20, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_earlier_demo_is_replaced_whole(tmp_path):
    make_demo(tmp_path / "demo", 1, 30, 5)
    make_demo(tmp_path / "demo", 2, 12, 3)
    make_demo(tmp_path / "fresh", 2, 12, 3)
    assert files_of(tmp_path / "demo") == files_of(tmp_path / "fresh")


def test_images_that_no_demo_drew_and_a_record_of_another_kind_are_left_alone(tmp_path):
    make_demo(tmp_path, 1, 30, 5)
    (tmp_path / "images/holiday.jpg").write_bytes(b"mine")
    with pytest.raises(CatalogError, match=r"its images are not only those of a demo \(first: holiday.jpg\)"):
        make_demo(tmp_path, 2, 12, 3)
    (tmp_path / "images/holiday.jpg").unlink()
    (tmp_path / "catalogue.json").write_text('{"products": 7}')
    with pytest.raises(CatalogError, match="is not empty and holds no demo"):
        make_demo(tmp_path, 2, 12, 3)
    assert len((tmp_path / "train.csv").read_text().splitlines()) > 30


def test_a_demo_too_small_to_be_one_is_an_error(tmp_path):
    with pytest.raises(CatalogError, match=r"at least 10 train .* got 3 and 0"):
        make_demo(tmp_path / "demo", 1, 3, 0)
    assert not (tmp_path / "demo").exists()


def test_the_command_says_the_best_reachable_score_and_what_comes_next(tmp_path):
    to = tmp_path / "demo"
    result = CliRunner().invoke(main, ["catalog", "demo", "--to", str(to), "--train", "20", "--test", "5"])
    assert result.exit_code == 0, result.output
    assert "best reachable SMAPE 13.5" in result.output
    assert f"shelfprice catalog ingest --train {to}/train.csv" in result.output
