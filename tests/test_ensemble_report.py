"""The report of a small catalogue with everything in it: further columns, hold-out prices, hostile texts."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ensemble.blend import run_blend
from ensemble.inputs import TrainingRows
from ensemble.report.curve import MEASURED, SHOWN, curve_of, nested_parts
from ensemble.report.leaderboard import duplicate_noise
from ensemble.report.nearest import NearRows
from ensemble.report.rows import ReportRows
from ensemble.report.worst import worst_rows
from ensemble.submission import submit
from heads.run import train_heads
from store.catalog.ingest.run import ingest
from store.cli import main
from store.config import ColumnConfig, load_config, save_config
from store.metric import smape, smape_rows
from store.workspace import Workspace
from tests.fakes import catalog_table

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


# ---- parts ---------------------------------------------------------------------------------------


def report_rows(rows, log_price, group=None):
    """Rows of a report out of catalogue rows and predictions."""
    table = catalog_table(rows)
    log_actual = np.log(table["price"].to_numpy())
    log_price = np.asarray(log_price, float)
    n = len(rows)
    group = np.arange(n) if group is None else group
    training = TrainingRows(
        table["sample_id"].combine_chunks(),
        ("one",),
        log_price[:, None],
        log_actual,
        np.arange(n) % 5,
        group,
        None,
    )
    record = {"inputs": {"heads": {}}, "folder": "blend/0"}
    image = pa.nulls(n, pa.string())
    further = pa.array([[]] * n, pa.list_(pa.string()))
    loss = smape_rows(log_actual, log_price)
    return ReportRows(record, training, np.arange(n), table, image, further, log_price, loss)


def test_the_worst_rows_come_with_a_guess_at_the_reason():
    rows = [
        {"sample_id": i, "text": f"text {i}", "price": 10.0, "quantity": 500.0, "quantity_unit": "g"}
        for i in range(40)
    ]
    log_price = np.full(40, np.log(10.0))
    rows[0]["price"] = 100.0  # its twin, row 1, costs 10
    group = np.arange(40)
    group[1] = 0
    rows[2]["quantity"], log_price[2] = 16_000.0, np.log(90.0)
    rows[3]["price"] = 1000.0
    rows[4]["price"], rows[4]["pack_count"] = 60.0, 6.0
    log_price[5] = np.log(20.0)
    asked = np.arange(40)
    position = np.stack([[10, 11, 12, 13, 14]] * 40)
    cosine = np.full((40, 5), 0.8)
    cosine[5] = 0.1
    near = NearRows(("fake",), asked, position, cosine)
    found = {row.sample_id: row for row in worst_rows(report_rows(rows, log_price, group), near)}
    reasons = {id: found[id].reason for id in ("0", "2", "3", "4", "5", "20")}
    assert reasons == {
        "0": "contradicting twin",
        "2": "quantity misread",
        "3": "outlier price",
        "4": "quantity misread",
        "5": "nothing alike",
        "20": "no reason seen",
    }
    assert "Row 1 has the same text or image and costs 10.00." in found["0"].words
    assert "16,000" in found["2"].words
    assert "pack of 6" in found["4"].words
    assert [one.sample_id for one in found["3"].near] == ["10", "11", "12", "13"]


def test_the_noise_of_duplicates_is_what_the_best_price_a_text_leaves():
    rows = [
        {"sample_id": i, "text": f"text {i // 2}", "price": 10.0 * (1.5 if i % 2 else 1)} for i in range(40)
    ]
    noise = duplicate_noise(report_rows(rows, np.full(40, np.log(10.0))))
    assert noise["n_rows"] == 40
    assert noise["twin_smape"] == pytest.approx(40.0)
    assert noise["floor"] == pytest.approx(20.0)
    assert noise["smape"] == pytest.approx(20.0)
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
