import json
import multiprocessing
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from store.catalog.clean import images as clean_images
from store.catalog.clean.images import alike_pairs, perceptual_hashes
from store.catalog.clean.quantity import disagreement
from store.catalog.clean.rows import Catalogue
from store.catalog.clean.run import clean_catalog
from store.catalog.clean.texts import letter_counts
from store.catalog.clean.twins import exact_twins
from store.catalog.cli import catalog
from store.catalog.parse.units import normalise
from store.config import load_config
from store.errors import CatalogError, ConfigError
from store.workspace import Workspace
from tests.clean_rows import found, image_bytes, publish, reason

BODY = "cold pressed from late harvest fruit and bottled within the day for salads bread and grilled fish of every kind"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def row(sample_id, text="", price=10.0, image=None):
    return {
        "sample_id": sample_id,
        "text": text or f"thing number {sample_id}",
        "price": price,
        "image": image,
    }


def others(first, n=6):
    return [row(first + i) for i in range(n)]


def folds_for(rows):
    return [i % 2 for i in range(len(rows))]


def test_rows_that_are_the_same_twice_are_told_apart_by_text_and_image(workspace):
    images = {name: image_bytes(seed) for seed, name in enumerate("abc")}
    train = [row(1, "olive", image="a"), row(2, "olive", image="a")]
    train += [row(3, "fig", image="b"), row(4, "plum", image="b")]
    train += [row(5, "tea", image="c"), row(6, "tea"), row(7, "rice"), row(8, "rice"), row(9, "bean")]
    publish(workspace, train, images=images, fold=folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "same_text_image")) == {1, 2, 7, 8}
    assert set(found(workspace, "same_image")) == {3, 4}
    assert set(found(workspace, "same_text")) == {5, 6}
    assert reason(workspace, "same_text_image", 2) == "same text and image in 2 rows, first 1"


def test_a_text_with_a_word_changed_is_nearly_the_same(workspace):
    train = [row(1, f"oil {BODY}"), row(2, f"jam {BODY}"), *others(3)]
    publish(workspace, train, fold=folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "near_text")) == {1, 2}


def test_an_image_saved_again_smaller_or_as_png_is_nearly_the_same_and_a_recoloured_one_is_not(workspace):
    kinds = {
        "plain": {},
        "again": {"quality": 60},
        "small": {"side": 160},
        "png": {"form": "PNG"},
        "red": {"turn": 40},
    }
    images = {f"{name}{seed}": image_bytes(seed, **how) for seed in range(5) for name, how in kinds.items()}
    train = [row(i, image=name) for i, name in enumerate(images)]
    publish(workspace, train, images=images, fold=folds_for(train))
    clean_catalog(workspace)
    red = {i for i, name in enumerate(images) if name.startswith("red")}
    assert set(found(workspace, "near_image")) == set(range(len(train))) - red


def test_a_hash_is_remembered_and_never_computed_twice(workspace, monkeypatch):
    images = {name: image_bytes(seed) for seed, name in enumerate("ab")} | {
        "broken": b"no image",
        "grey": _grey(),
    }
    train = [row(i, image=name) for i, name in enumerate(images)]
    publish(workspace, train, images=images, fold=folds_for(train))
    digests = [one["sha256"] for one in workspace.read_table("images/links.parquet").to_pylist()]
    first = perceptual_hashes(workspace, digests)
    assert sorted(value is None for value in first.values()) == [False, False, True, True]

    def never(content):
        raise AssertionError("computed again")

    monkeypatch.setattr("store.catalog.clean.images.shrunk", never)
    assert perceptual_hashes(workspace, digests) == first
    assert len(alike_pairs(workspace, digests)) == 0


def test_processes_hash_as_this_one_does_and_in_order(workspace, monkeypatch):
    contents = {f"p{i}": image_bytes(i) for i in range(7)} | {"broken": b"no image", "grey": _grey()}
    publish(workspace, others(1), None, contents)
    digests = workspace.read_table("images/links.parquet")["sha256"].to_pylist()
    here = clean_images.hashes_in_processes(workspace, digests, 3)
    monkeypatch.setattr(clean_images, "LEAST_EACH", 2)
    monkeypatch.setattr(clean_images, "_BATCH", 2)
    monkeypatch.setattr(clean_images, "shrunk", None)  # not here any more
    there = clean_images.hashes_in_processes(workspace, digests, 3)
    assert there == here
    assert sum(value is None for _, value, _ in here) == 2


def test_a_process_that_dies_while_hashing_is_an_error_with_a_next_step(workspace, monkeypatch):
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(clean_images, "LEAST_EACH", 2)
    context.set_executable("/bin/false")
    try:
        with pytest.raises(CatalogError, match=r"ended after 0 of 4, .*--processes 1"):
            clean_images.hashes_in_processes(workspace, ["a", "b", "c", "d"], 2)
    finally:
        context.set_executable(sys.executable)


KILLED = """
import sys
from store.catalog.clean import images
from store.workspace import Workspace

if __name__ == "__main__":
    images.LEAST_EACH = images._BATCH = 1
    images.tqdm = lambda **settings: __import__("contextlib").nullcontext(Bar())
    class Bar:
        def update(self, n):
            print("begun", *[child.pid for child in images.multiprocessing.active_children()], flush=True)
            sys.stdin.read()
    images.hashes_in_processes(Workspace(sys.argv[1]), sys.argv[2:], 2)
"""


def test_a_run_that_is_killed_leaves_no_process_behind(workspace, tmp_path):
    images = {name: image_bytes(seed) for seed, name in enumerate("ab")}
    publish(workspace, others(1), None, images)
    digests = workspace.read_table("images/links.parquet")["sha256"].to_pylist()
    (tmp_path / "run.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "run.py"), workspace.root, *digests]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        children = [int(pid) for pid in run.stdout.readline().split()[1:]]
        run.kill()
    assert len(children) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_processes_that_hash_import_nothing_from_the_current_folder(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(clean_images, "LEAST_EACH", 1)
    here = tmp_path / "here"
    here.mkdir()
    for module in ("json", "pickle", "socket", "store", "multiprocessing"):
        (here / f"{module}.py").write_text("open('ran', 'w').close()\nraise SystemExit(9)\n")
    monkeypatch.chdir(here)
    publish(workspace, others(1), None, {name: image_bytes(seed) for seed, name in enumerate("ab")})
    digests = workspace.read_table("images/links.parquet")["sha256"].to_pylist()
    assert [value is None for _, value, _ in clean_images.hashes_in_processes(workspace, digests, 2)] == [
        False
    ] * 2
    assert not (here / "ran").exists()


def test_images_none_of_which_can_be_decoded_are_cleaned_like_rows_without_one(workspace):
    train = [row(1, "olive", image="a"), row(2, "olive", image="b"), *others(3)]
    publish(workspace, train, images={"a": b"no image", "b": b"<html>"}, fold=folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "same_text_image")) == {1, 2}
    assert found(workspace, "near_image") == {}


@pytest.mark.parametrize("content", [b"<html>no image</html>", None], ids=["broken", "grey"])
def test_an_image_that_shows_nothing_makes_no_two_rows_the_same(workspace, content):
    train = [row(i, f"article {i}", image=f"p{i % 2}") for i in range(4)] + others(5)
    train[3] = row(3, "article 1", image=None)
    images = {"p0": image_bytes(0), "p1": content or _grey()}
    publish(workspace, train, [{"sample_id": 100, "text": "new", "image": "p1"}], images, folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "same_image")) == {0, 2}
    assert set(found(workspace, "same_text_image")) == {1, 3}
    assert found(workspace, "test_repeats") == {}


def _grey():
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(content, "PNG")
    return content.getvalue()


def test_prices_of_one_text_contradict_from_a_quarter_on(workspace):
    train = [row(1, "oil", 10.0), row(2, "oil", 12.6), row(3, "jam", 10.0), row(4, "jam", 12.0), *others(5)]
    publish(workspace, train, fold=folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "price")) == {1, 2}
    assert "sells for 10.00 to 12.60 in 2 rows" in reason(workspace, "price", 1)


def outlier_rows(n=240):
    draw = np.random.default_rng(0)
    kinds = [("shoe leather black", 50.0), ("tea green leaf", 5.0), ("gold ring fine", 500.0)]
    rows = []
    for i in range(n):
        words, price = kinds[i % 3]
        rows.append(row(i, f"{words} number {draw.integers(20)}", float(price * draw.lognormal(0, 0.1))))
    return rows


def test_a_price_far_from_those_of_like_names_is_an_outlier(workspace):
    train = outlier_rows()
    train[7]["price"] *= 20
    publish(workspace, train, fold=folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "outlier")) == {7}


def test_prices_of_one_fold_say_nothing_about_outliers_of_another(workspace, tmp_path):
    train, fold = outlier_rows(), folds_for(outlier_rows())
    train[7]["price"] *= 20
    publish(workspace, train, fold=fold)
    clean_catalog(workspace)
    before = {i for i in found(workspace, "outlier") if fold[i] == 1}
    for i, one in enumerate(train):
        if fold[i] == 0:
            one["price"] = float(1 + (i * 7919) % 1000)
    other = Workspace(tmp_path / "other")
    publish(other, train, fold=fold)
    clean_catalog(other)
    assert {i for i in found(other, "outlier") if fold[i] == 1} == before == {7}


@pytest.mark.parametrize(
    ("value", "unit", "name"),
    [
        (1.0, "Ounce", "Alfredo Pasta Sauce, 15 Ounce"),
        (10752.0, "Ounce", "Snack Mix, 1.75 Ounce (Pack of 64)"),
        (5.0, "Count", "Soup, Pack of 12"),
    ],
)
def test_lines_that_fit_nothing_in_the_title_disagree(value, unit, name):
    assert f"{value:g}" in disagreement(value, normalise(unit), name)


@pytest.mark.parametrize(
    ("value", "unit", "name"),
    [
        (112.0, "Ounce", "Snack Mix, 1.75 Ounce (Pack of 64)"),
        (1.75, "Ounce", "Snack Mix, 1.75 Ounce (Pack of 64)"),
        (16.0, "Ounce", "Water 16 fl oz"),
        (12.0, "Count", "Soup, Pack of 12"),
        (16.0, "Count", "Water 16 fl oz"),
        (8.0, "Ounce", "Fine tea"),
        (250.0, "gram", "Tea 8.8 oz"),
    ],
)
def test_lines_that_fit_the_title_or_that_it_says_nothing_of_agree(value, unit, name):
    assert disagreement(value, normalise(unit), name) is None


def test_rows_whose_lines_disagree_with_their_title_are_found_in_train_and_test(workspace):
    wrong = "Item Name: Pasta Sauce, 15 Ounce\nValue: 1.0\nUnit: Ounce\n"
    right = "Item Name: Pasta Sauce, 15 Ounce\nValue: 15.0\nUnit: Ounce\n"
    train = [row(1, wrong), row(2, right), *others(3)]
    test = [{"sample_id": 100, "text": wrong, "image": None}]
    publish(workspace, train, test, fold=folds_for(train))
    clean_catalog(workspace, ("quantity=drop",))
    assert found(workspace, "quantity") == {1: "drop", 100: "keep"}
    assert reason(workspace, "quantity", 1) == "1 ounce (28.35 g), the title says 425.2 g"


def test_damaged_characters_and_other_languages_are_found(workspace):
    english = "This is the oil for your salad and it is made with the fruit of our trees."
    texts = {
        1: "caf\u00c3\u00a9 au lait",
        2: "oil \ufffd jar",
        3: "oil \x07 jar",
        4: "salt &amp; pepper",
        5: "El aceite para los platos de la casa y las ensaladas, con más sabor y una botella del campo.",
        6: "これは日本のとても美味しい緑茶です。毎日飲んでください。",
        7: "Crème brûlée – 100 % café, piñata & jalapeño",
    }
    train = [row(i, text) for i, text in texts.items()] + [row(10 + i, f"{english} {i}") for i in range(9)]
    publish(workspace, train, fold=folds_for(train))
    clean_catalog(workspace)
    assert set(found(workspace, "encoding")) == {1, 2, 3, 4}
    assert set(found(workspace, "language")) == {5, 6}
    assert "Spanish" in reason(workspace, "language", 5)


@given(st.lists(st.text(max_size=30), max_size=8))
def test_letters_are_counted_as_a_pattern_counts_them(texts):
    encoded = pa.array(["x", *texts, "Crème ß 日本 a1", "", "Ωmega"], pa.string())[1:]
    letters, latin = letter_counts(encoded)
    assert letters.tolist() == pc.count_substring_regex(encoded, r"\pL").to_pylist()
    assert latin.tolist() == pc.count_substring_regex(encoded, r"\p{Latin}").to_pylist()


def test_a_test_row_that_repeats_a_train_row_is_told_and_never_changed(workspace):
    train = [row(1, "oil", image="a"), *others(2)]
    test = [{"sample_id": 100, "text": "oil", "image": "a"}, {"sample_id": 101, "text": "new", "image": None}]
    publish(workspace, train, test, {"a": image_bytes(0)}, folds_for(train))
    clean_catalog(workspace, ("same_text_image=drop",))
    assert found(workspace, "test_repeats") == {100: "keep"}
    assert reason(workspace, "test_repeats", 100) == "text of train row 1 and image of train row 1"
    assert found(workspace, "same_text_image") == {1: "keep", 100: "keep"}


@pytest.mark.parametrize(
    ("policy", "decisions"),
    [
        ("keep", "keep keep"),
        ("drop", "drop drop"),
        ("median", "median median"),
        ("first", "keep drop"),
        ("weight", "weight weight"),
    ],
)
def test_a_policy_becomes_a_decision_on_each_row(workspace, policy, decisions):
    train = [row(1, "oil", 10.0), row(2, "oil", 30.0), *others(3)]
    publish(workspace, train, fold=folds_for(train))
    clean_catalog(workspace, (f"price={policy}",))
    assert list(found(workspace, "price").values()) == decisions.split()


def test_every_decision_has_a_reason_and_test_rows_are_kept_whatever_the_policies(workspace):
    twin, again = {"text": "oil", "image": "a"}, f"jam {BODY} &amp; more"
    train = [row(1, "oil", 10.0, "a"), row(2, "oil", 30.0, "a"), row(3, "fig", image="a"), row(4, "fig")]
    train += [row(5, again), row(6, f"oil {BODY} &amp; more"), *others(7)]
    test = [{"sample_id": 100, **twin}, {"sample_id": 101, "text": f"tea {BODY} &amp; more", "image": None}]
    publish(workspace, train, test, {"a": image_bytes(0)}, folds_for(train))
    names = ("same_text_image", "same_image", "same_text", "near_text", "near_image", "price", "encoding")
    clean_catalog(workspace, tuple(f"{name}=drop" for name in names))
    decided = workspace.read_table("cleaning.parquet").to_pylist()
    assert {one["finding"] for one in decided} == {*names, "test_repeats"} - {"near_image"}
    assert all(one["reason"] for one in decided)
    assert {one["decision"] for one in decided if one["split"] == "test"} == {"keep"}
    assert {one["decision"] for one in decided if one["split"] == "train"} == {"drop"}


def test_the_catalogue_stays_as_it_is_and_policies_are_saved(workspace):
    train = [row(1, "oil", 10.0), row(2, "oil", 30.0), *others(3)]
    publish(workspace, train, fold=folds_for(train))
    before = workspace.read_bytes("catalog/train.parquet")
    report = clean_catalog(workspace, ("price=drop",))
    assert workspace.read_bytes("catalog/train.parquet") == before
    assert (report.dropped, load_config(workspace).clean.price) == (2, "drop")
    assert clean_catalog(workspace).digest == report.digest
    assert clean_catalog(workspace, ("price=keep",)).digest is None


def test_decisions_do_not_depend_on_the_order_of_the_rows(workspace, tmp_path):
    train = [row(1, "oil", 10.0), row(2, "oil", 30.0), row(3, "fig"), row(4, "fig"), *others(5)]
    fold = folds_for(train)
    publish(workspace, train, fold=fold)
    other = Workspace(tmp_path / "other")
    publish(other, train[::-1], fold=fold[::-1])
    policies = ("price=median", "same_text_image=first")
    assert clean_catalog(workspace, policies).digest == clean_catalog(other, policies).digest
    tables = [w.read_table("cleaning.parquet") for w in (workspace, other)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("price", "a policy is written FINDING=POLICY, such as price=median, got 'price'"),
        ("prize=drop", "unknown key 'clean.prize', expected one of .*price"),
        ("price=burn", "clean.price must be one of keep, drop, median, first, weight, got 'burn'"),
        ("outlier=median", "clean.outlier must be one of keep, drop, got 'median'"),
    ],
)
def test_a_policy_that_is_not_understood_is_named_and_nothing_is_written(workspace, given, message):
    publish(workspace, others(1), fold=[0, 1, 0, 1, 0, 1])
    with pytest.raises(ConfigError, match=message):
        clean_catalog(workspace, (given,))
    assert not workspace.exists("cleaning.parquet")
    assert not workspace.exists("shelfprice.toml")


def test_without_a_catalogue_the_next_step_is_named(workspace):
    with pytest.raises(CatalogError, match=r"no catalogue in .*catalog ingest"):
        clean_catalog(workspace)


def test_an_empty_table_of_links_and_texts_is_cleaned(workspace):
    train = [row(i, " ") | {"text": ""} for i in range(6)]
    publish(workspace, train, [{"sample_id": 9, "text": "", "image": None}], fold=folds_for(train))
    report = clean_catalog(workspace)
    assert sum(one.train_rows + one.test_rows for one in report.findings) == 0
    assert isinstance(workspace.read_table("cleaning.parquet"), pa.Table)


def test_the_command_prints_each_finding_with_its_decisions_and_as_json(workspace):
    train = [row(1, "oil", 10.0), row(2, "oil", 30.0), *others(3)]
    publish(workspace, train, fold=folds_for(train))
    runner = CliRunner()
    kept = runner.invoke(catalog, ["clean", "-w", workspace.root], catch_exceptions=False).output
    assert "every policy is 'keep'" in kept
    told = runner.invoke(
        catalog, ["clean", "-w", workspace.root, "--policy", "price=first"], catch_exceptions=False
    ).output
    assert re.search(r"price +1 +2 +0 +first +drop 1", told)
    assert "1 training rows are left out of a fit on all rows" in told
    shown = json.loads(runner.invoke(catalog, ["clean", "-w", workspace.root, "--json"]).stdout)
    assert {one["name"]: one["decisions"] for one in shown["findings"]}["price"] == {"keep": 1, "drop": 1}


def test_many_texts_and_many_images_take_memory_by_rows_not_by_pairs():
    n = 20_000
    rows = Catalogue(
        sample_id=pa.array(range(n)),
        n_train=n,
        text=pa.array([str(i // 2) for i in range(n)]),
        name=pa.nulls(n, pa.string()),
        image=pa.array([f"{i // 4}" for i in range(n)]),
        value=pa.nulls(n, pa.float64()),
        unit=pa.nulls(n, pa.string()),
        price=np.ones(n),
        fold=np.zeros(n, np.int64),
    )
    tracemalloc.start()
    try:
        same_both, same_image, _ = exact_twins(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert np.bincount(same_both.group).tolist() == [2] * (n // 2)
    assert np.bincount(same_image.group).tolist() == [4] * (n // 4)


def test_a_title_that_someone_filled_up_with_sizes_is_looked_at_in_linear_time():
    name = "".join(f"{2 + i % 900} x {5 + i % 700} ml " for i in range(20_000))
    assert "ml" in disagreement(1e-6, normalise("liter"), name)
