"""The commands of the page that leads from nothing to a price, and of another encoder, run in their order."""

import csv
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from store.catalog.demo.generate import make_demo
from store.config import load_config, save_config
from tests.fake_models import save_tiny_sentence_model
from tests.snippets import blocks, command_lines, copy_vectors, run_lines

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = ["sku", "title", "about", "photo", "usd"]
SOLD, NEW = 40, 8


@pytest.fixture(scope="module")
def shop(readme_python, tmp_path_factory):
    """The folder of the page: `shop.csv`, `new.csv`, `photos`; encoders are converted, nothing is embedded."""
    folder = tmp_path_factory.mktemp("start")
    make_demo(folder / "demo", n_train=2 * SOLD, n_test=5)
    shutil.move(folder / "demo/images", folder / "photos")
    by_id = {}
    for row in csv.DictReader((folder / "demo/train.csv").open()):
        title, _, about = row["catalog_content"].partition("\n")
        if re.fullmatch(r"[\d.]*[1-9][\d.]*", row["price"]) and row["sample_id"]:
            photo = row["image_link"].rpartition("/")[2]
            title = title.removeprefix("Item Name: ")
            by_id[row["sample_id"]] = [row["sample_id"], title, about, photo, row["price"]]
    rows = list(by_id.values())
    for name, part, n_columns in (("shop", rows[:SOLD], 5), ("new", rows[SOLD : SOLD + NEW], 4)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(row[:n_columns] for row in [COLUMNS, *part])
    copy_vectors(readme_python / "run", folder / "own", shards=False)
    return folder


@pytest.fixture(scope="module")
def started(shop):
    """What the commands of the page print, run in their order."""
    lines = [words for words, is_whole in command_lines(DOCS / "index.md") if is_whole]
    assert [line[:2] for line in lines[:5]] == [
        ["catalog", "ingest"], ["embed", "run"], ["heads", "run"], ["ensemble", "blend"], ["ensemble", "submit"],
    ]  # fmt: skip
    assert lines[-1][0] == "serve"  # the tests of the server run it
    return run_lines(lines[:-1], shop)


def test_commands_of_pages_that_need_no_network_run_on_that_workspace(shop, started, tmp_path):
    shutil.copytree(shop / "own", tmp_path / "run")
    lines = []
    for page in ("report", "vectors", "images", "scale", "cleaning"):
        for words in (words for words, is_whole in command_lines(DOCS / f"{page}.md") if is_whole):
            needs_more = {"ingest", "--retry-failed", "--refresh", "ray", "$SLURM_ARRAY_TASK_ID/64"} & {
                *words
            }
            if not needs_more and words[:2] != ["catalog", "images"]:
                at = ["run" if word.startswith("s3://") else word for word in words]
                lines.append(at if "-w" in at else [*at, "-w", "run"])
    groups = {tuple(line[:2]) for line in lines}
    assert groups >= {
        ("heads", "compare"), ("embed", "compare"), ("embed", "export"), ("heads", "run"),
        ("catalog", "images-export"), ("catalog", "images-import"), ("catalog", "clean"), ("catalog", "show"),
    }  # fmt: skip
    said = run_lines(lines, tmp_path)
    assert said.count("$ shelfprice") == len(lines)
    assert (tmp_path / "images.tar").is_file()


def test_the_start_page_leads_from_files_to_prices_and_to_another_encoder(shop, started, tmp_path_factory):
    assert f"train: {SOLD} rows of shop.csv" in started, started
    prices = list(csv.DictReader((shop / "own/submission.csv").open()))
    assert len(prices) == NEW
    assert [len((shop / file).read_text().splitlines()) for file in ("prices.csv", "own/intervals.csv")] == [
        NEW + 1
    ] * 2

    page, model = DOCS / "encoders.md", save_tiny_sentence_model(tmp_path_factory.mktemp("model") / "tiny")
    (toml,) = (block for block in blocks(page, "toml") if "bge-small" in block)
    other = [words for words, is_whole in command_lines(page) if is_whole and words[-2:] == ["-w", "run"]]
    assert [line[:2] for line in other] == [
        ["embed", "run"], ["heads", "run"], ["ensemble", "blend"], ["ensemble", "submit"],
    ]  # fmt: skip

    def tiny(word):
        return word.replace("st:BAAI/bge-small-en-v1.5", str(model))

    named = tuple(map(tiny, tomllib.loads(toml)["heads"]["vectors"]))
    config = load_config(shop / "own")  # one head is enough to see the new vectors used
    save_config(shop / "own", replace(config, heads=replace(config.heads, vectors=named, run=("ridge",))))
    said = run_lines([[*map(tiny, line[:-1]), "own"] for line in other], shop)
    assert (
        f"training on {SOLD} rows, tiny" in said.replace(f"{model.parent}/", "") or "tiny@structured" in said
    )
    assert list(csv.DictReader((shop / "own/submission.csv").open())) != prices
