"""Ten kinds of leaks planted in a sound catalogue, and shuffled prices: the audit names each."""

import hashlib

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.audit.run import CHECKS, run_audit
from ensemble.audit.target_means import follows_noise, is_mean_of_others
from ensemble.audit.written import _shares, written_numbers
from store.catalog.ingest.readings import read_new_rows, read_readings, source_of_mappings
from store.catalog.ingest.run import ingest
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
    publish_vectors(
        workspace, VectorSet("fake", "name"), {"train": X[:N_TRAIN], "test": X[N_TRAIN : len(rows)]}
    )


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


def price_in_a_column_of_words(rows, X):
    for row in rows:
        row["categorical:offer"] = f"only {row['price']:.2f} rupees"


def foreign_price_in_words(rows, X):
    for row in rows:
        row["categorical:offer"] = f"{row['price'] * 0.012:.4f} dollars"


def written(row, how):
    """The row's price made larger, as its text would write it."""
    row["price"] = float(round(100 * row["price"]))
    plain = f"{row['price']:,.2f}"
    marks = {"point and comma": str.maketrans(",.", ".,"), "blank and comma": str.maketrans(",.", " ,")}
    return f"₹{row['price']:,.0f}" if how == "rupees" else f"preis {plain.translate(marks[how])} EUR"


def in_the_text(how):
    def price_in_the_text_as(rows, X):
        for row in rows:
            row["text"] += f" {written(row, how)}"

    price_in_the_text_as.__name__ += f" {how}"
    return price_in_the_text_as


STATISTICS = {
    "mean": lambda own, rest, overall: own.mean(),
    "smoothed": lambda own, rest, overall: (own.sum() + 20 * overall) / (len(own) + 20),
    "median": lambda own, rest, overall: np.median(own),
    "scaled": lambda own, rest, overall: (own.mean() - overall) / 7,
    "log": lambda own, rest, overall: np.log(own).mean(),
    "leave one out": lambda own, rest, overall: rest.mean() if len(rest) else overall,
    "leave one out, log": lambda own, rest, overall: 3 * np.log(rest.mean() if len(rest) else overall) + 1,
}


def of_shop(statistic, label):
    """A column made of the prices of each shop by a statistic, shops being strings or whole numbers."""

    def made(rows, X):
        shop = np.round(2 * X[:, 0]).clip(-3, 3).astype(int)
        known, overall = price(rows[:N_TRAIN]), price(rows[:N_TRAIN]).mean()
        for i, row in enumerate(rows):
            same = shop[:N_TRAIN] == shop[i]
            rest = known[same & (np.arange(N_TRAIN) != i)]
            row["numeric:made"] = float(STATISTICS[statistic](known[same], rest, overall))
            row[f"{label}:shop"] = float(shop[i]) if label == "numeric" else f"shop {shop[i]}"

    made.__name__ = f"{statistic} by {label} shop"
    return made


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


def scaled_by_pandas(rows, X):
    value = X[:, 2].copy()
    for part in (slice(0, N_TRAIN), slice(N_TRAIN, N_ROWS)):
        value[part] = (value[part] - value[part].mean()) / value[part].std(ddof=1)
    for row, x in zip(rows, value, strict=True):
        row["numeric:scaled"] = float(x)


def scaled_in_a_small_test_set(rows, X):
    del rows[N_TRAIN + 12 :]
    for part in (slice(0, N_TRAIN), slice(N_TRAIN, N_TRAIN + 12)):
        value = (X[part, 2] - X[part, 2].mean()) / X[part, 2].std(ddof=1)
        for row, x in zip(rows[part], value, strict=True):
            row["numeric:scaled"] = float(x)


def brought_to_a_range_by_all_rows(rows, X):
    value = np.append(X[:-1, 2], 5.0)
    for row, x in zip(rows, (value - value.min()) / np.ptp(value), strict=True):
        row["numeric:scaled"] = float(x)


def row_hash_from_0_to_1(rows, X):
    for row in rows:
        row["numeric:hash"] = int(hashlib.md5(row["text"].encode()).hexdigest()[:12], 16) / 16**12


def scaled_by_all_rows(rows, X):
    value = X[:, 2] + np.where(np.arange(N_ROWS) < N_TRAIN, 0.0, 0.3)
    for row, x in zip(rows, (value - value.mean()) / value.std(), strict=True):
        row["numeric:scaled"] = float(x)


def shuffled_prices(rows, X):
    dealt = np.random.default_rng(3).permutation(price(rows))
    for row, p in zip(rows, dealt, strict=True):
        row["price"] = float(p)


LABELS = ("numeric", "categorical")
LEAKS = [
    (id_order, "ids and order", "Ids and row order alone tell prices"),
    (price_in_text, "written prices", "have their own price in their text"),
    *(
        (in_the_text(how), "written prices", "100% of the rows have their own price in their text")
        for how in ("point and comma", "blank and comma", "rupees")
    ),
    (price_in_a_column_of_words, "written prices", "have their own price in their column 'offer'"),
    (price_in_a_column_of_words, "columns", "Column 'offer (rupees)' is the price itself: about 1 times"),
    (foreign_price_in_words, "columns", "Column 'offer (dollars)' is the price itself: about 0.012"),
    (other_currency, "columns", "Column 'usd' is the price itself: about 0.012 times"),
    (price_reversed, "columns", "Column 'per_unit_of_money' is the price itself: in the reverse order of"),
    (target_mean_before_the_split, "columns", "Column 'shop_level' is the mean price of each 'shop'"),
    *(
        (
            of_shop(how, label),
            "columns",
            "Column 'made' is the mean price of each 'shop', or another statistic",
        )
        for how in ("mean", "smoothed", "median", "scaled", "log")
        for label in LABELS
    ),
    *(
        (of_shop(how, label), "columns", "Column 'made' is the mean price of the other rows of each 'shop'")
        for how in ("leave one out", "leave one out, log")
        for label in LABELS
    ),
    (duplicates_across_the_split, "twins", "50.0% the very same product"),
    (later_rows_in_train, "time", "Learning from later rows makes the score look"),
    (image_file_name, "image names", "Names of image files tell prices"),
    (price_as_image_name, "written prices", "have their own price in their image's name"),
    (row_hash, "columns", "Column 'hash' is another in every row"),
    (row_hash_from_0_to_1, "columns", "Column 'hash' is another in every row"),
    (row_hash_as_category, "columns", "Column 'hash' is another in every row"),
    (missing_by_fold, "folds unknown", "Column 'code' is missing in some folds"),
    (scaled_by_each_split, "columns", "train and test each by their own rows"),
    (scaled_by_pandas, "columns", "train and test each by their own rows"),
    (scaled_in_a_small_test_set, "columns", "train and test each by their own rows"),
    (scaled_by_all_rows, "columns", "train and test rows together"),
    (brought_to_a_range_by_all_rows, "columns", "train and test rows together"),
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


def test_means_of_prices_of_unknown_rows_are_a_question(tmp_path):
    workspace, (rows, X) = Workspace(tmp_path), sound_rows()
    draws, level = np.random.default_rng(0), np.linspace(1.5, 4.5, 8)
    for row, x in zip(rows, X, strict=True):
        shop = int(np.clip(2 * x[0] + 4, 0, 7))
        row |= {
            "numeric:shop": float(shop),
            "price": round(float(np.exp(level[shop] + draws.normal(0, 0.5))), 2),
        }
    means = [np.exp(one + draws.normal(0, 0.5, 80)).mean() for one in level]
    for row in rows:
        row["numeric:last_year"] = float(means[int(row["numeric:shop"])])
    publish(workspace, rows, X)
    (check,) = run_audit(workspace, [], only=["columns"])["checks"]
    assert check["verdict"] == "caution"
    assert (
        "Column 'last_year' is a mean price of each 'shop', which is sound only if it was taken"
        in check["words"]
    )


@pytest.mark.parametrize("n_shops", [12, 40])
def test_means_of_other_rows_and_numbers_that_go_with_the_price_are_no_leak(n_shops):
    alarms = 0
    for seed in range(20):
        draws = np.random.default_rng(seed)
        shop, other = (draws.integers(0, n_shops, 600) for _ in range(2))
        level, fold = draws.normal(3, 0.5, n_shops), draws.integers(0, 5, 600)
        own, others = (np.exp(level[at] + draws.normal(0, 0.3, 600)) for at in (shop, other))

        def mean(prices, of, level=level):
            total = np.bincount(of, prices, minlength=n_shops)
            return total / np.maximum(np.bincount(of, minlength=n_shops), 1)

        out_of_fold = np.empty(600)
        for k in range(5):
            out_of_fold[fold == k] = mean(own[fold != k], shop[fold != k])[shop[fold == k]]
        rating = np.where(draws.random(600) < 0.05, 99999, draws.integers(1, 6, 600)).astype(float)
        columns = (
            out_of_fold,
            mean(others, other)[shop] / 7,
            level[shop] * 9 + 2,
            shop.astype(float),
            rating,
        )
        alarms += sum(follows_noise(one, own) or is_mean_of_others(one, own, shop) for one in columns)
    assert alarms == 0
    sizes = draws.integers(
        1, 20, 600
    )  # a price a piece: the number is near the price, and no more often the price
    written = [written_numbers(f"pack of {size}") for size in sizes]
    own, chance = _shares(written, np.round(sizes + draws.integers(-1, 2, 600), 2), draws)
    assert own > 0.2
    assert own - chance < 0.1


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


def test_times_that_one_row_alone_has_end_no_audit(tmp_path):
    workspace, (rows, X) = Workspace(tmp_path), sound_rows()
    for at, row in enumerate(rows):
        row["numeric:sold (age in days)"] = float(min(at, 6))
    publish(workspace, rows, X)
    (check,) = run_audit(workspace, ["fake@name"], only=["time"])["checks"]
    assert check["verdict"] == "ok"


@pytest.mark.parametrize(("is_later", "verdict"), [(True, "caution"), (False, "ok")])
def test_dates_that_random_folds_flatter_are_named_with_the_option_that_looks_back(
    tmp_path, is_later, verdict
):
    rows, X = sound_rows()
    later_rows_in_train(rows, X)
    for row, x in zip(rows, X, strict=True):
        row["size"] = x[0]
    rows = sorted(rows, key=lambda row: row["given:time"]) if is_later else rows
    path = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    for split, part in (("train", rows[:N_TRAIN]), ("test", rows[N_TRAIN:])):
        lines = ["sample_id,catalog_content,weight,size,sold,price"]
        for row in part:
            sold = np.datetime64("2023-01-01") + int(row["given:time"])
            lines.append(
                f"{row['sample_id']},{row['text']},{row['numeric:weight']},{row['size']},{sold},{row['price']}"
            )
        path[split].write_text("\n".join(lines) + "\n")
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, str(path["train"]), str(path["test"]))
    ensure_folds(workspace, Config())
    (check,) = run_audit(workspace, [], only=["time"])["checks"]
    assert check["verdict"] == verdict
    assert "Learning from later rows by 'sold' makes the score look" in check["words"]
    assert check["words"].endswith("ingest with --time-column 'sold', which makes folds look back only.")
    assert check["figures"]["flattery"] > 3
    assert ("no later than training rows" in check["words"]) != is_later


def test_a_price_in_a_column_that_joins_the_text_is_found_and_new_rows_are_joined_alike(tmp_path):
    lines = ["sample_id,catalog_content,about,price"]
    for i in range(300):
        colour, wood, price = ("red", "grey", "blue")[i % 3], ("oak", "ash")[i % 2], 10 + 0.37 * i
        lines.append(f"{i},item,a {colour} box of {wood} for {price:.2f},{price:.2f}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, str(tmp_path / "train.csv"))
    ensure_folds(workspace, Config())
    (check,) = run_audit(workspace, [], only=["written prices"])["checks"]
    assert check["verdict"] == "fail"
    assert "100% of the rows have their own price in their text" in check["words"]
    readings = read_readings(workspace)
    source, _ = source_of_mappings([{"catalog_content": "item", "about": "a red box"}], readings)
    assert read_new_rows(source, readings).table["text"].to_pylist() == ["item\nabout: a red box"]


def test_without_vectors_columns_and_words_show_whether_prices_stand_in_their_rows(tmp_path):
    for name, is_shuffled in (("own", False), ("shuffled", True)):
        workspace, (rows, X) = Workspace(tmp_path / name), sound_rows()
        for row, x in zip(rows, X, strict=True):
            row["categorical:size"] = f"size {int(2 * x[0] + 6)}"
        if is_shuffled:
            shuffled_prices(rows, X)
        publish(workspace, rows, X)
        (check,) = run_audit(workspace, [], only=["signal"])["checks"]
        assert check["verdict"] == ("caution" if is_shuffled else "ok")
        assert ("prices may stand in other rows than their own" in check["words"]) == is_shuffled
    (check,) = run_audit(workspace, ["absent@name"], only=["signal"])["checks"]
    assert (check["verdict"], "can't be seen" in check["words"]) == ("skipped", True)


def test_a_category_that_tells_the_price_is_signal_where_vectors_tell_nothing(tmp_path):
    workspace, (rows, X) = Workspace(tmp_path), sound_rows()
    shelves = np.where(np.arange(40) % 2, np.arange(40), 79 - np.arange(40))  # cheap and dear ones in turn
    for row, x in zip(rows, X, strict=True):
        row["categorical:shelf"] = f"shelf {shelves[int(np.clip(5 * x[0] + 20, 0, 39))]:02}"
    publish(workspace, rows, np.random.default_rng(1).normal(size=X.shape))
    (check,) = run_audit(workspace, ["fake@name"], only=["signal"])["checks"]
    assert check["verdict"] == "ok"
    assert check["words"].startswith("Columns and words tell the price")


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
