"""The report of a small catalogue with everything in it: further columns, hold-out prices, hostile texts."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ensemble.blend import read_blend, run_blend
from ensemble.expected import expect
from ensemble.inputs import TrainingRows
from ensemble.report.curve import MEASURED, SHOWN, curve_of, nested_parts
from ensemble.report.holdout import expected_of
from ensemble.report.importance import importance, inputs_read
from ensemble.report.leaderboard import duplicate_noise
from ensemble.report.nearest import NearRows
from ensemble.report.page import Album
from ensemble.report.refit import inputs_of, quick_heads
from ensemble.report.rows import ReportRows, read_rows
from ensemble.report.worst import worst_rows
from ensemble.submission import submit
from heads.run import train_heads
from store.catalog.images.links import merge_links
from store.catalog.ingest.run import ingest
from store.catalog.read import read_split
from store.cli import main
from store.config import ColumnConfig, load_config, save_config
from store.metric import smape, smape_rows
from store.schema import LINKS
from store.vectors.content import image_keys
from store.vectors.sets import VectorSet, publish_current
from store.vectors.shard import publish_shard
from store.workspace import Workspace
from tests.fake_images import encoded, photo
from tests.fakes import catalog_table, fake_spec, image_digests, publish_vectors

N_TRAIN, N_TEST = 260, 60
HOSTILE = {
    4: "\u202eمصباح \u2067abc\u2069 طاولة",
    5: "very long " * 1000,
}


def frames(seed_of_holdout=1):
    """Train and test with prices in both; those of the test rows are drawn by a seed of their own."""
    generator = np.random.default_rng(0)
    n = N_TRAIN + N_TEST
    carat, colour = (
        generator.lognormal(0, 0.6, n),
        generator.choice(["<script>alert(1)</script>", "blue", "green"], n),
    )
    words = generator.choice(["lamp", "table", "chair", "vase"], (n, 3))
    names = [" ".join(one) for one in words]
    price = np.exp(
        1.2 * np.log(carat) + 0.4 * (words == "lamp").sum(axis=1) + 3 + generator.normal(0, 0.2, n)
    )
    price[N_TRAIN:] *= np.exp(np.random.default_rng(seed_of_holdout).normal(0, 0.3, N_TEST))
    for at, text in HOSTILE.items():
        names[at], price[at] = text, 5000.0  # so that they are among the worst rows
    table = pd.DataFrame(
        {
            "sample_id": np.arange(n),
            "catalog_content": [f"{name} number {i}" for i, name in enumerate(names)],
            "carat": carat,
            "colour": colour,
            "price": np.round(price, 2),
        }
    )
    return table[:N_TRAIN], table[N_TRAIN:]


def run_all(root, seed_of_holdout):
    workspace = Workspace(root)
    config = load_config(workspace)
    run = replace(config.heads, run=("ridge", "sparse"), vectors=())
    save_config(workspace, replace(config, heads=run))
    ingest(
        workspace, *frames(seed_of_holdout), columns=ColumnConfig(numeric=("carat",), categorical=("colour",))
    )
    train_heads(workspace)
    run_blend(workspace, (), ("ridge", "sparse"))
    submit(workspace, config.columns)
    return workspace


def invoke(workspace, *options):
    command = ["ensemble", "report", "-w", workspace.root, *options]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return run_all(tmp_path_factory.mktemp("report"), 1)


@pytest.fixture(scope="module")
def facts(workspace):
    return json.loads(invoke(workspace, "--json").stdout)


@pytest.fixture(scope="module")
def page(workspace, facts):
    return workspace.read_bytes("report.html").decode()


def test_the_score_and_the_leaderboard_are_those_of_the_blend(workspace, facts):
    (folder,) = {name for name in workspace.names("blend") if not name.endswith(".json")}
    record = workspace.read_json(f"blend/{folder}/blend.json")
    assert facts["score"]["nested"] == record["scores"]["nested"]
    by_name = {entry["name"]: entry for entry in facts["leaderboard"]}
    assert {"blend", "ridge", "sparse", "plain average"} < set(by_name)
    assert by_name["blend"]["difference_interval"] is None
    for head in ("ridge", "sparse"):
        entry = by_name[head]
        assert entry["smape"] == pytest.approx(record["scores"]["heads"][head])
        assert entry["difference"] == pytest.approx(entry["smape"] - by_name["blend"]["smape"])
        assert entry["difference_interval"][0] <= entry["difference"] <= entry["difference_interval"][1]
        assert entry["seconds"] > 0
    assert f"{facts['score']['smape']:.2f}" in facts["score"]["sentence"]
    assert facts["costs"]["disk"]["catalogue"] > 0


def test_every_column_price_text_and_fold_is_cut_into_slices(facts):
    names = {one["dimension"] for one in facts["slices"]}
    assert {
        "column carat",
        "column colour",
        "predicted price",
        "true price",
        "characters of text",
        "fold",
    } <= names
    for one in facts["slices"]:
        assert sum(found["n_rows"] for found in one["slices"]) == N_TRAIN


def test_the_input_that_prices_hang_on_is_worth_most(facts):
    worth = {one["name"]: one["points"] for one in facts["importance"]["inputs"]}
    assert worth["column carat"] > 10 > worth["column colour"]
    assert facts["importance"]["heads"]


def test_the_learning_curve_is_measured_once_and_kept(workspace, facts):
    points = {point["share"]: point for point in facts["curve"]["points"]}
    assert points[1.0]["measured"] == pytest.approx(facts["score"]["nested"])
    assert points[0.25]["measured"] != points[1.0]["measured"]
    assert points[2.0]["measured"] is None
    assert points[2.0]["smape"] <= points[1.0]["smape"]
    again = invoke(workspace, "--seconds", "0", "--json")
    assert "learning curve," not in again.stderr
    assert json.loads(again.stdout)["curve"] == facts["curve"]


def test_hold_out_prices_are_scored_by_what_was_submitted(workspace, facts):
    submission = pd.read_csv(workspace.path("submission.csv"))
    actual = frames()[1]["price"].to_numpy()
    assert facts["holdout"]["n_rows"] == N_TEST
    assert facts["holdout"]["smape"] == pytest.approx(smape(actual, submission["price"].to_numpy()), abs=0.01)
    low, high = facts["holdout"]["expected_interval"]
    assert facts["holdout"]["is_as_expected"] == (low <= facts["holdout"]["smape"] <= high)


def test_other_hold_out_prices_change_no_prediction(workspace, tmp_path):
    other = run_all(tmp_path, 2)
    assert other.read_bytes("catalog/holdout.parquet") != workspace.read_bytes("catalog/holdout.parquet")
    kept = [f"predictions/{name}" for name in workspace.names("predictions") if not name.endswith(".json")]
    assert kept == [f"predictions/{n}" for n in other.names("predictions") if not n.endswith(".json")]
    files = ["submission.csv", "intervals.csv", "folds.parquet"]
    files += [f"{folder}/{part}.parquet" for folder in kept for part in ("oof", "test")]
    assert len(files) == 7
    for file in files:
        assert other.read_bytes(file) == workspace.read_bytes(file), file
    row = dict.fromkeys(LINKS.names) | {"link": "file:a.jpg", "sha256": "0" * 64, "tries": 1}
    merge_links(other, pa.Table.from_pylist([row], schema=LINKS))
    assert (
        "note: 1 images are gone, and the page shows rows without them: run"
        in invoke(other, "--seconds", "0").stdout
    )


def test_a_hold_out_that_is_gone_is_told_by_status_and_report(workspace, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(workspace.root, root)
    other, held = Workspace(root), workspace.read_bytes("catalog/holdout.parquet")
    other.remove("catalog/holdout.parquet")
    done = CliRunner().invoke(main, ["ensemble", "report", "-w", str(root)])
    assert done.exit_code == 1
    assert "has no catalog/holdout.parquet: run 'shelfprice catalog ingest' again" in done.output
    found = json.loads(CliRunner().invoke(main, ["status", "--json", "-w", str(root)]).stdout)
    assert found["catalog"]["lost_holdout"] == N_TEST
    assert found["next"]["why"] == "catalog/holdout.parquet is gone"
    ingest(other, *frames(), columns=load_config(other).columns)
    assert other.read_bytes("catalog/holdout.parquet") == held


def test_the_page_needs_nothing_but_itself_and_is_small(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.search(r"<link|@import|url\(", page)
    assert "default-src 'none'" in html.unescape(page)
    assert len(page) < 400_000


def test_texts_of_the_catalogue_can_not_write_html(page, facts):
    shown = {row["name"] for row in facts["worst"]}
    assert sum("مصباح" in name or "very long" in name for name in shown) == len(HOSTILE)
    assert page.count("<script") == 1
    assert "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>" in page
    assert "very long " * 50 not in page
    assert all(len(name) <= 120 for name in shown)


def opened(browser, workspace, **options):
    """The page in a context of its own, and what the browser complains of."""
    page, complaints = browser.new_context(**options).new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(Path(workspace.path("report.html")).as_uri())
    return page, complaints


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_every_screen_sorts_and_filters(browser, workspace, page, width):
    shown, complaints = opened(browser, workspace, viewport={"width": width, "height": 900})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    scores = (
        "() => [...document.querySelectorAll('#heads tbody tr')].map(row => Number(row.cells[1].textContent))"
    )
    before = shown.evaluate(scores)
    button = shown.locator("#heads thead").get_by_role("button", name="SMAPE")
    button.click()
    assert shown.evaluate(scores) == sorted(before)
    button.click()
    assert shown.evaluate(scores) == sorted(before, reverse=True)
    worst = shown.locator("#worst")
    worst.get_by_label("Find").fill("VERY LONG")
    assert [one.is_visible() for one in worst.locator("article").all()].count(True) == 1
    assert worst.get_by_text("1 shown").is_visible()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_page(browser, workspace, page, scheme):
    from axe_playwright_python import sync_playwright as axe

    shown, _ = opened(browser, workspace, color_scheme=scheme, bypass_csp=True)
    found = axe.Axe().run(shown).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_the_command_says_the_score_and_where_the_page_is(workspace):
    said = invoke(workspace, "--seconds", "0").stdout
    assert "expect a SMAPE of" in said
    assert f"On {N_TEST} hold-out rows:" in said
    assert "Double the rows would bring" in said
    command = f"next: shelfprice ensemble pack --to model -w {workspace.root}"
    assert said.splitlines()[-2:] == [f"wrote {workspace.path('report.html')}", command]


# ---- a catalogue with images, vectors and weights -------------------------------------------

N_RICH, N_RICH_TEST, N_PRICED = 200, 60, 24
TITLE = "lamp <img src=x onerror=alert(1) "  # not closed: ingest takes it for words
LONG = "wide " * 2000  # a level of a column


def rich_table(folder):
    """Rows of several images, one of them broken, and prices that hang on text and image; weights, twins."""
    generator = np.random.default_rng(3)
    n = N_RICH + N_RICH_TEST
    shade, kind = generator.integers(0, 30, n), generator.choice(["lamp", "table", "chair", "vase"], n)
    for at in range(30):
        (folder / f"p{at}.jpg").write_bytes(encoded(photo(40, 30, seed=at)))
    (folder / "broken.jpg").write_bytes(b"no image")
    images = np.array([f"p{at}.jpg" for at in shade], object)
    images[::3] = ""
    images[1], images[2], images[4] = "broken.jpg", "broken.jpg;p7.jpg", "p4.jpg;p5.jpg"
    texts = [
        f"{one} number {i} of {word}" for i, (one, word) in enumerate(zip(kind, generator.integers(0, 9, n)))
    ]
    log_price = 3 + 0.7 * (kind == "lamp") + 0.04 * shade * (images != "")
    log_price += generator.normal(0, np.where(images == "", 0.5, 0.15))
    texts[7], log_price[7] = TITLE, 9.0
    texts[10] = texts[11] = "one of two lamps"
    log_price[10], log_price[11] = 3.0, 7.0
    colour = generator.choice(["blue", "green", LONG], n)
    colour[10] = colour[11]
    log_price += 0.8 * (colour == "blue")
    price = np.round(np.exp(log_price), 2)
    table = pd.DataFrame(
        {
            "sample_id": np.arange(n),
            "catalog_content": texts,
            "image_link": images,
            "colour": colour,
            "weight": np.where(np.arange(n) % 2, 3.0, 0.5),
            "price": price,
        }
    )
    table.loc[N_RICH + N_PRICED :, "price"] = np.nan
    return table[:N_RICH], table[N_RICH:], kind


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    root, folder = (tmp_path_factory.mktemp(name) for name in ("rich", "images"))
    workspace = Workspace(root)
    config = load_config(workspace)
    vectors = ("fake@name", "photos")
    save_config(
        workspace, replace(config, heads=replace(config.heads, run=("ridge", "neighbours"), vectors=vectors))
    )
    train, test, kind = rich_table(folder)
    columns = ColumnConfig(categorical=("colour",), weight="weight")
    ingest(workspace, train, test, images=folder, columns=columns)
    broken = {"link": "file:broken.jpg", "reason": "broken image: no image", "tries": 1}
    merge_links(workspace, pa.Table.from_pylist([broken], schema=LINKS))
    X = np.stack([kind == one for one in ("lamp", "table", "chair", "vase")], axis=1).astype(np.float32)
    X += np.random.default_rng(0).normal(0, 0.05, X.shape)
    publish_vectors(workspace, VectorSet("fake", "name"), {"train": X[:N_RICH], "test": X[N_RICH:]})
    of_image = {
        digest: [at / 30, 1.0, np.sin(at)]
        for link, digest in image_digests(workspace).items()
        for at in [int(re.search(r"p(\d+)", link)[1])]
    }
    spec = fake_spec("photos", 3, "image")
    publish_current(workspace, spec)
    publish_shard(
        workspace, spec.folder, image_keys(pa.array(of_image)), np.array(list(of_image.values())), {}
    )
    train_heads(workspace)
    run_blend(workspace, (), ("ridge", "neighbours"))
    submit(workspace, load_config(workspace).columns)
    return workspace


@pytest.fixture(scope="module")
def rich_facts(rich):
    with pytest.MonkeyPatch.context() as patch:
        for part in ("curve", "importance"):  # the other head would take longer and tell no more
            patch.setattr(
                f"ensemble.report.{part}.within",
                lambda heads, *_: [one for one in heads if one.name == "ridge"],
            )
        return json.loads(invoke(rich, "--json").stdout)


def test_every_score_of_a_catalogue_with_weights_counts_rows_by_them(rich, rich_facts):
    scores = read_blend(rich)["scores"]
    found = {one["name"]: one["smape"] for one in rich_facts["leaderboard"]}
    assert found["blend"] == pytest.approx(scores["nested"])
    assert found["plain average"] == pytest.approx(scores["average"])
    assert {name: found[name] for name in scores["heads"]} == pytest.approx(scores["heads"])
    at_all = next(point for point in rich_facts["curve"]["points"] if point["share"] == 1.0)
    assert at_all["measured"] == pytest.approx(scores["nested"])
    assert at_all["smape"] == pytest.approx(scores["nested"])


def test_slices_cover_what_the_blend_measured_and_know_all_images_of_a_row(rich, rich_facts):
    by_name = {one["dimension"]: one["slices"] for one in rich_facts["slices"]}
    for name in ("image", "column colour", "fold", "cosine with the nearest row of another fold"):
        share = sum(one["n_rows"] * one["covered"] for one in by_name[name]) / N_RICH
        assert share == pytest.approx(rich_facts["intervals"]["measured"]), name
    of_image = {one["label"]: one["n_rows"] for one in by_name["image"]}
    n_without = sum(at % 3 == 0 for at in range(N_RICH))
    assert of_image == {
        "with an image": N_RICH - n_without - 1,
        "image unavailable": 1,
        "no image": n_without,
    }
    assert rich_facts["near_by"] == ["fake@name", "photos"]


def test_each_input_of_the_heads_has_its_worth(rich, rich_facts):
    worth = {one["name"]: one["points"] for one in rich_facts["importance"]["inputs"]}
    text = "the text (words, vectors, what is parsed from it)"
    assert {"vectors fake@name", "vectors photos", "column colour", text} <= set(worth)
    assert worth["vectors photos"] > 1
    assert worth["column colour"] > 1
    rows = read_rows(rich)
    heads = quick_heads(rich, rows)
    listed = inputs_read(rich, inputs_of(rich, heads))
    (neighbours,) = [one for one in heads if one.name == "neighbours"]
    read = {what.name for what in listed if what.reads(neighbours)}
    assert read == {"vectors fake@name", "vectors photos", "column colour", text}


def test_the_worst_rows_name_twins_alone_as_the_same(rich, rich_facts):
    worst = {row["sample_id"]: row for row in rich_facts["worst"]}
    assert (
        worst["11"]["words"]
        == f"Row 10 has the same text or image and costs {worst['11']['near'][0]['price']:,.2f}."
    )
    table = read_split(rich, "train").to_pylist()
    for row in worst.values():
        for near in row["near"]:
            one, other = (table[int(found["sample_id"])] for found in (row, near))
            same = one["text"] == other["text"] or (
                one["image"] is not None and one["image"] == other["image"]
            )
            assert (near["cosine"] is None) == (
                same and one["categorical:colour"] == other["categorical:colour"]
            )


def test_a_hold_out_of_some_test_rows_is_held_against_a_wider_interval(rich_facts):
    held, score = rich_facts["holdout"], rich_facts["score"]
    assert held["n_rows"] == N_PRICED
    wide, narrow = held["expected_interval"], score["interval"]
    assert wide[0] < narrow[0] < held["expected"] < narrow[1] < wide[1]


def test_facts_hold_density_splits_audit_and_time(rich, rich_facts):
    cells = np.array(rich_facts["density"]["cells"])
    assert cells[:, 2].sum() == N_RICH
    edges = rich_facts["density"]["edges"]
    assert edges == sorted(edges)
    assert cells[:, :2].max() < len(edges) - 1
    against = {one["what"]: one for one in rich_facts["against"]}
    lengths = [len(row["text"]) for row in read_split(rich, "train").to_pylist()]
    assert against["mean characters of text"]["train"] == pytest.approx(np.mean(lengths))
    assert against["mean characters of text"]["test"] > 0
    assert {"drift", "twins"} <= {check["name"] for check in rich_facts["audit"]["checks"]}
    assert {"head ridge", "head neighbours", "blend"} <= set(rich_facts["costs"]["seconds"])


def test_the_page_shows_images_and_cuts_what_is_long(rich, rich_facts):
    page = rich.read_bytes("report.html").decode()
    n_images = sum(row["image"] is not None for row in rich_facts["worst"])
    assert n_images > 5
    assert page.count('src="data:image/jpeg') >= n_images
    assert 'class="near"' in page
    assert "lamp &lt;img src=x onerror=alert(1)" in page
    assert "<img src=x" not in page
    assert "wide " * 20 not in page
    assert "wide " * 20 not in json.dumps([one["words"] for one in rich_facts["findings"]])


def test_axe_finds_nothing_serious_among_images_in_the_dark_on_a_phone(browser, rich, rich_facts):
    from axe_playwright_python import sync_playwright as axe

    size = {"width": 390, "height": 844}
    shown, complaints = opened(browser, rich, color_scheme="dark", viewport=size, bypass_csp=True)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    found = axe.Axe().run(shown).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert complaints == []
    colour = "() => getComputedStyle(document.body).backgroundColor"
    dark = shown.evaluate(colour)
    shown.emulate_media(media="print")
    assert shown.evaluate(colour) == "rgb(255, 255, 255)" != dark
    assert not shown.locator("nav").is_visible()
    assert shown.locator("article").first.is_visible()


def test_without_its_vectors_a_report_says_what_could_not_be_measured(rich, tmp_path, monkeypatch):
    workspace = Workspace(shutil.copytree(rich.root, tmp_path / "copy"))
    trial = run_blend(workspace, ("neighbours",))["folder"]
    rows = read_rows(workspace, trial)
    with monkeypatch.context() as patch:
        patch.setattr(
            "ensemble.report.importance.inputs_of", None
        )  # nothing is read where nothing may be trained
        assert "more than 4 times the 0 s" in importance(workspace, rows, 0.0)["skipped"]
    shutil.rmtree(next(Path(workspace.root, "vectors").glob("photos-*")))
    found = json.loads(invoke(workspace, "--blend", trial, "--json").stdout)
    assert "photos" in found["curve"]["skipped"]
    assert "photos" in found["importance"]["skipped"]
    assert found["near_by"] == ["fake@name"]


# ---- parts ---------------------------------------------------------------------------------------


def report_rows(rows, log_price, group=None, *, heads=None, image=None, further=None, record=None):
    """Rows of a report out of catalogue rows and predictions.

    Args:
        heads: predictions of each, shape (n_rows, n_heads); None: one that predicts as the blend does.
        image, further: digests of each row's first image, and lists of those of its others.
    """
    table = catalog_table(rows)
    log_actual = np.log(table["price"].to_numpy())
    log_price = np.asarray(log_price, float)
    n = len(rows)
    group = np.arange(n) if group is None else group
    training = TrainingRows(
        table["sample_id"].combine_chunks(),
        tuple(f"head {at}" for at in range(1 if heads is None else heads.shape[1])),
        log_price[:, None] if heads is None else heads,
        log_actual,
        np.arange(n) % 5,
        group,
        None,
    )
    record = {"inputs": {"heads": {}}, "folder": "blend/0"} | (record or {})
    image = pa.array(image or [None] * n, pa.string())
    further = pa.array(further or [[]] * n, pa.list_(pa.string()))
    loss = smape_rows(log_actual, log_price)
    return ReportRows(record, training, np.arange(n), table, image, further, log_price, loss)


def test_the_worst_rows_come_with_a_guess_at_the_reason():
    rows = [
        {"sample_id": i, "text": f"text {i}", "price": 10.0, "quantity": 500.0, "quantity_unit": "g"}
        for i in range(40)
    ]
    log_price = np.full(40, np.log(10.0))
    rows[0]["price"], rows[0]["text"] = 100.0, "text 1"  # its twin, row 1, costs 10
    group = np.arange(40)
    group[[6, 7]] = 6  # the same seller
    rows[6]["price"] = 1000.0
    for at in (8, 9, 19):
        rows[at] |= {"image": "https://a.example/broken.jpg", "price": 20.0}
    image, further = [None] * 40, [[] for _ in range(40)]
    further[9] = [None, "f" * 64]
    image[18], image[19] = "e" * 64, "e" * 64
    rows[0]["numeric:carat"], rows[18]["numeric:carat"] = None, 2.0
    heads = np.full((40, 2), np.log(10.0))
    heads[15] = np.log([5.0, 20.0])
    rows[2]["quantity"], log_price[2] = 16_000.0, np.log(90.0)
    rows[3]["price"] = 1000.0
    rows[4]["price"], rows[4]["pack_count"] = 60.0, 6.0
    log_price[5] = np.log(20.0)
    asked = np.arange(40)
    position = np.stack([[10, 11, 12, 13, 14]] * 40)
    cosine = np.full((40, 5), 0.8)
    cosine[5] = 0.1
    near = NearRows(("fake",), asked, position, cosine)
    known = report_rows(rows, log_price, group, heads=heads, image=image, further=further)
    found = {row.sample_id: row for row in worst_rows(known, near)}
    reasons = {id: found[id].reason for id in ("0", "2", "3", "4", "5", "6", "8", "9", "15", "19", "20")}
    assert reasons == {
        "0": "contradicting twin",
        "2": "quantity misread",
        "3": "outlier price",
        "4": "quantity misread",
        "5": "nothing alike",
        "6": "outlier price",
        "8": "broken image",
        "9": "no reason seen",
        "15": "heads disagree",
        "19": "no reason seen",
        "20": "no reason seen",
    }
    assert "Row 1 has the same text or image and costs 10.00." in found["0"].words
    assert "16,000" in found["2"].words
    assert "pack of 6" in found["4"].words
    assert found["15"].words == "Heads predict from 5.00 to 20.00."
    assert [one.sample_id for one in found["3"].near] == ["10", "11", "12", "13"]
    same = {id: [one.sample_id for one in row.near if one.cosine is None] for id, row in found.items()}
    assert {id: ids for id, ids in same.items() if ids} == {
        "0": ["1"],
        "1": ["0"],
    }  # row 18 has other columns


def test_the_noise_of_duplicates_is_what_the_best_price_a_text_leaves():
    rows = [
        {"sample_id": i, "text": f"text {i // 2}", "price": 10.0 * (1.5 if i % 2 else 1)} for i in range(40)
    ]
    noise = duplicate_noise(report_rows(rows, np.full(40, np.log(10.0))))
    assert noise["n_rows"] == 40
    assert noise["twin_smape"] == pytest.approx(40.0)
    assert noise["floor"] == pytest.approx(20.0)
    assert noise["smape"] == pytest.approx(20.0)
    alike = [{"sample_id": i, "text": f"text {i // 2}", "price": 10.0} for i in range(40, 80)]
    assert duplicate_noise(report_rows(rows + alike, np.full(80, np.log(10.0)))) == noise
    assert duplicate_noise(report_rows(rows[:10], np.full(10, 2.0))) is None


def test_parts_of_the_rows_are_nested_and_keep_groups_whole():
    group = np.random.default_rng(0).integers(0, 300, 1000)
    part = nested_parts(group, seed=1)
    for g in np.unique(group):
        assert len(np.unique(part[group == g])) == 1
    for share in MEASURED:
        assert np.mean(part < share) == pytest.approx(share, abs=0.02)


def test_a_power_law_is_found_and_taken_to_double_the_rows():
    generator = np.random.default_rng(0)
    noise = generator.gamma(2, 0.5, 2000)
    losses = [noise * 20 * share**-0.15 for share in (*MEASURED, 1.0)]
    found = curve_of(losses, 0.8 * losses[-1], np.arange(2000), seed=0)
    by_share = {point["share"]: point for point in found["points"]}
    assert found["law"]["exponent"] == pytest.approx(-0.15)
    assert tuple(by_share) == SHOWN
    mean = float(noise.mean())
    assert by_share[2.0]["smape"] == pytest.approx(0.8 * 20 * mean * 2**-0.15)
    assert by_share[0.5]["measured"] == pytest.approx(0.8 * 20 * mean * 0.5**-0.15)
    low, high = by_share[2.0]["interval"]
    assert low < by_share[2.0]["smape"] < high < 1.1 * low


def test_a_law_that_misses_the_last_point_begins_at_the_score_of_the_blend():
    noise = np.random.default_rng(0).gamma(2, 0.5, 2000)
    losses = [noise * level for level in (30.0, 26.0, 24.0, 25.0)]
    found = curve_of(losses, 0.8 * losses[-1], np.arange(2000), seed=0)
    by_share = {point["share"]: point for point in found["points"]}
    score = 20.0 * float(noise.mean())
    assert by_share[1.0]["smape"] == pytest.approx(score)
    assert by_share[1.0]["measured"] == pytest.approx(score)
    assert by_share[2.0]["smape"] == pytest.approx(score * 2 ** found["law"]["exponent"])


def test_of_fewer_hold_out_rows_than_test_rows_a_wider_interval_is_expected():
    generator = np.random.default_rng(0)
    n, weight = 400, generator.uniform(0.5, 2.0, 400)
    rows = [{"sample_id": i, "price": 10.0} for i in range(n)]
    log_price = np.log(10.0) + generator.normal(0, 0.4, n)
    loss, level = smape_rows(np.log(np.full(n, 10.0)), log_price), np.zeros(n, np.int64)

    def expected(n_new):
        return expect(loss, level, [1.0, 0, 0], np.arange(n), None, n_new, 0.95, weight)

    scores = {"expected": {"test": expected(10_000).to_json()}, "interval_level": 0.95}
    known = report_rows(rows, log_price, record={"scores": scores, "n_test": 10_000})
    known = replace(known, training=replace(known.training, weight=weight))
    assert expected_of(known, 200) == pytest.approx(expected(200).interval)
    assert expected_of(known, 10_000) == pytest.approx(expected(10_000).interval)


def test_thumbnails_end_where_the_page_has_no_room_for_more():
    album, n_made = Album(lambda digest: "x" * 1_000_000), 0
    while album("digest"):
        n_made += 1
    assert n_made == 3
    assert album(None) is None
