"""Train and test with the same ids, from the files to the submission: an id is of its file."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from store.cli import main
from store.config import Config, HeadConfig, save_config
from store.workspace import Workspace

COLOURS = ("red", "blue", "green", "black")
PRICES = {"red": 3.0, "blue": 30.0, "green": 300.0, "black": 3000.0}
N = 120


def colour_of(i, split):
    return COLOURS[(i if split == "train" else i + 1) % 4]


@pytest.fixture
def root(tmp_path):
    noise = np.random.default_rng(0).uniform(0.95, 1.05, N)
    for split in ("train", "test"):
        with open(tmp_path / f"{split}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["sample_id", "catalog_content", "price"])
            for i in range(N):
                colour = colour_of(i, split)
                text = f"{colour} paint, a tin of {colour}, number {i % 59}"
                rows.writerow([i, text, round(PRICES[colour] * noise[i], 4)])
    return tmp_path


def shelfprice(root, *command):
    result = CliRunner().invoke(main, [*command, "-w", str(root / "w")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_test_row_is_priced_as_itself_and_not_as_the_train_row_of_its_id(root):
    files = ("--train", str(root / "train.csv"), "--test", str(root / "test.csv"))
    said = shelfprice(root, "catalog", "ingest", *files)
    assert f"{N} ids stand in both files" in said
    assert f"its {N} prices are kept apart in catalog/holdout.parquet" in said
    clean = json.loads(shelfprice(root, "catalog", "clean", "--json"))
    assert {one["name"]: one["test_rows"] for one in clean["findings"]}["test_repeats"] > 0
    assert "paint" in shelfprice(root, "catalog", "show")
    save_config(Workspace(str(root / "w")), Config(heads=HeadConfig(run=("sparse",))))  # no vectors needed
    shelfprice(root, "heads", "run")
    shelfprice(root, "ensemble", "blend")
    shelfprice(root, "ensemble", "submit")
    with open(root / "w/submission.csv") as file:
        submitted = list(csv.DictReader(file))
    assert [int(row["sample_id"]) for row in submitted] == list(range(N))
    for colour, price in PRICES.items():
        said = [float(row["price"]) for i, row in enumerate(submitted) if colour_of(i, "test") == colour]
        assert price / 3 < np.median(said) < price * 3  # the next colour costs ten times as much
