"""Ten kinds of leaks planted in a sound catalogue, and shuffled prices: the audit names each."""

import hashlib

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.audit.run import CHECKS, run_audit
from store.cli import main
from store.config import Config
from store.errors import ConfigError
from store.folds.assign import ensure_folds
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_folds, publish_vectors

N_TRAIN, N_TEST = 500, 160
N_ROWS = N_TRAIN + N_TEST
WORDS = [f"word{i}" for i in range(300)]
FOLD = np.random.default_rng(5).integers(0, 5, N_TRAIN)


def sound_rows():
    """Rows whose price depends on their vector and on nothing else."""
    draws = np.random.default_rng(0)
    X = draws.normal(size=(N_ROWS, 5))
    log_price = 3 + X[:, 0] + draws.normal(0, 0.3, N_ROWS)
    rows = []
    for i, (x, p) in enumerate(zip(X, log_price, strict=True)):
        text = " ".join(draws.choice(WORDS, 20)) + f" {draws.integers(1, 99)} g"
        rows.append(
            {
                "sample_id": int(draws.integers(10**6) * 1000 + i),
                "text": text,
                "name": text,
                "price": round(float(np.exp(p)), 2),
                "image_link": f"https://img.example/{draws.integers(10**9):09d}.jpg",
                "numeric:weight": float(x[1]),
                "numeric:code": float(draws.integers(1, 500)),
                "categorical:shop": f"shop {draws.integers(12)}",
            }
        )
    return rows, X


def publish(workspace, rows, X, fold=FOLD):
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    if fold is None:
        ensure_folds(workspace, Config())
    else:
        publish_folds(workspace, fold)
    publish_vectors(workspace, VectorSet("fake", "name"), {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})


def price(rows):
    return np.array([row["price"] for row in rows])


def id_order(rows, X):
    order = np.argsort(price(rows[:N_TRAIN]))
    for number, at in enumerate(order):
        rows[at]["sample_id"] = number
    for number in range(N_TRAIN, N_ROWS):
        rows[number]["sample_id"] = number


def price_in_text(rows, X):
    for row in rows[::3]:
        row["text"] += f" now only {row['price']:.2f}!"


def other_currency(rows, X):
    for row, noise in zip(rows, np.random.default_rng(1).normal(0, 0.003, N_ROWS), strict=True):
        row["numeric:usd"] = row["price"] * 0.012 * float(np.exp(noise))


def price_reversed(rows, X):
    for row in rows:
        row["numeric:per_unit_of_money"] = 1000 / row["price"]


def target_mean_before_the_split(rows, X):
    shop = np.array([row["categorical:shop"] for row in rows])
    for row in rows:
        row["numeric:shop_level"] = float(price(rows)[shop == row["categorical:shop"]].mean())


def duplicates_across_the_split(rows, X):
    for i in range(N_TRAIN, N_TRAIN + 80):
        kept = rows[i]["sample_id"]
        rows[i] |= rows[i - N_TRAIN] | {"sample_id": kept}


def later_rows_in_train(rows, X):
    days = np.random.default_rng(2).permutation(N_ROWS)
    for at, (row, day) in enumerate(zip(rows, days, strict=True)):
        row["given:time"] = float(day)
        row["price"] *= float(np.exp(2.0 * day / N_ROWS))
        row["numeric:weight"] = X[at, 1] + 3.0 * day / N_ROWS


def image_file_name(rows, X):
    rank = np.argsort(np.argsort(price(rows)))
    for row, at in zip(rows, rank, strict=True):
        row["image_link"] = f"https://img.example/{at:06d}.jpg"


def price_as_image_name(rows, X):
    for row in rows:
        row["image_link"] = f"https://img.example/item-{row['price']:.2f}.jpg"


def row_hash(rows, X):
    for row in rows:
        row["numeric:hash"] = float(int(hashlib.sha256(row["text"].encode()).hexdigest()[:12], 16))


def row_hash_as_category(rows, X):
    for row in rows:
        row["categorical:hash"] = hashlib.sha256(row["text"].encode()).hexdigest()


def missing_by_fold(rows, X):
    for row, fold in zip(rows, FOLD, strict=False):
        if fold == 2:
            row["numeric:code"] = None


def scaled_by_each_split(rows, X):
    value = X[:, 2].copy()
    for part in (slice(0, N_TRAIN), slice(N_TRAIN, N_ROWS)):
        value[part] = (value[part] - value[part].mean()) / value[part].std()
    for row, x in zip(rows, value, strict=True):
        row["numeric:scaled"] = float(x)


def scaled_by_all_rows(rows, X):
    value = X[:, 2] + np.where(np.arange(N_ROWS) < N_TRAIN, 0.0, 0.3)
    for row, x in zip(rows, (value - value.mean()) / value.std(), strict=True):
        row["numeric:scaled"] = float(x)


def shuffled_prices(rows, X):
    dealt = np.random.default_rng(3).permutation(price(rows))
    for row, p in zip(rows, dealt, strict=True):
        row["price"] = float(p)


LEAKS = [
    (id_order, "ids and order", "Ids and row order alone tell prices"),
    (price_in_text, "written prices", "have their own price in their text"),
    (other_currency, "columns", "Column 'usd' is the price itself: about 0.012 times"),
    (price_reversed, "columns", "Column 'per_unit_of_money' is the price itself: in the reverse order of"),
    (target_mean_before_the_split, "columns", "Column 'shop_level' is the mean price of each 'shop'"),
    (duplicates_across_the_split, "twins", "50.0% the very same product"),
    (later_rows_in_train, "time", "Learning from later rows makes the score look"),
    (image_file_name, "image names", "Names of image files tell prices"),
    (price_as_image_name, "written prices", "have their own price in their image's name"),
    (row_hash, "columns", "Column 'hash' is another in every row"),
    (row_hash_as_category, "columns", "Column 'hash' is another in every row"),
    (missing_by_fold, "folds unknown", "Column 'code' is missing in some folds"),
    (scaled_by_each_split, "columns", "train and test each by their own rows"),
    (scaled_by_all_rows, "columns", "train and test rows together"),
    (shuffled_prices, "signal", "prices may stand in other rows than their own"),
]


@pytest.mark.parametrize(("plant", "check", "words"), LEAKS, ids=[plant.__name__ for plant, _, _ in LEAKS])
def test_a_planted_leak_is_named(tmp_path, plant, check, words):
    workspace, (rows, X) = Workspace(tmp_path), sound_rows()
    plant(rows, X)
    publish(workspace, rows, X)
    result = run_audit(workspace, ["fake@name"], only=[check])
    (found,) = result["checks"]
    assert result["verdict"] == found["verdict"] != "ok"
    assert words in found["words"]


def test_the_same_catalogue_without_a_leak_is_sound_in_every_check(tmp_path):
    workspace, (rows, X) = Workspace(tmp_path), sound_rows()
    for row, day in zip(rows, np.random.default_rng(2).permutation(N_ROWS), strict=True):
        row["given:time"] = float(day)
    publish(workspace, rows, X)
    found = {check["name"]: check for check in run_audit(workspace, ["fake@name"])["checks"]}
    assert tuple(found) == CHECKS
    assert {name: c["words"] for name, c in found.items() if c["verdict"] != "ok"} == {}


def test_times_that_tell_nothing_flatter_no_score_however_much_a_model_gains_from_more_rows(tmp_path):
    workspace, (rows, _) = Workspace(tmp_path), sound_rows()
    draws = np.random.default_rng(4)
    X = draws.normal(size=(N_ROWS, 100))
    log_price = 3 + X @ draws.normal(0, 0.15, 100)
    for row, p, day in zip(rows, log_price, draws.permutation(N_ROWS), strict=True):
        row |= {"price": round(float(np.exp(p)), 2), "given:time": float(day)}
    publish(workspace, rows, X)
    (check,) = run_audit(workspace, ["fake@name"], only=["time"])["checks"]
    assert check["verdict"] == "ok"
    assert "Early and late rows may be mixed" in check["words"]


def test_a_check_is_chosen_by_name(tmp_path):
    workspace, (rows, X) = Workspace(tmp_path), sound_rows()
    publish(workspace, rows, X)
    arguments = ["ensemble", "audit", "--check", "twins", "-w", workspace.root]
    printed = CliRunner().invoke(main, arguments)
    assert printed.exit_code == 0, printed.output
    assert [line.split(":")[0].split()[-1] for line in printed.output.splitlines() if "twins:" in line] == [
        "twins"
    ]
    assert "columns:" not in printed.output
    with pytest.raises(ConfigError, match="no check 'leaks', one of shuffled target, ids and order"):
        run_audit(workspace, [], only=["leaks"])
