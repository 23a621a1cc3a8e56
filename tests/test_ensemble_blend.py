import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ensemble.blend import run_blend
from ensemble.submission import check_submission, submit
from store.catalog.read import read_split
from store.cli import main
from store.config import ColumnConfig, Config, FoldConfig, HeadConfig, SubmissionConfig, save_config
from store.errors import (
    CatalogError,
    ConfigError,
    FoldMismatchError,
    HeadError,
    RowMismatchError,
    WorkspaceError,
)
from store.folds.assign import ensure_folds, read_folds
from store.metric import smape
from store.schema import REJECTED
from store.standing import let_stand, read_standing
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_fake_predictions, publish_folds

N_TRAIN, N_TEST = 300, 40


@pytest.fixture
def truth():
    return np.random.default_rng(0).normal(3, 1, N_TRAIN + N_TEST)


@pytest.fixture
def workspace(tmp_path, truth):
    """A catalogue with folds; heads `good` and `poor` have predicted it."""
    workspace = Workspace(tmp_path)
    rows = [{"sample_id": 7000 - i, "price": float(np.exp(p))} for i, p in enumerate(truth)]
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_folds(workspace, np.arange(N_TRAIN) % 5)
    save_config(workspace, Config(heads=HeadConfig(run=("good", "poor"))))
    predict(workspace, truth, "good", 0.2, seed=1)
    predict(workspace, truth, "poor", 0.5, seed=2)
    return workspace


def predict(workspace, truth, head, spread, seed, **inputs):
    said = truth + np.random.default_rng(seed).laplace(0, spread, len(truth))
    return publish_fake_predictions(workspace, head, said[:N_TRAIN], said[N_TRAIN:], **inputs)


def lines(workspace, file):
    return workspace.read_bytes(file).decode().splitlines()


def shelfprice(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_blend_and_submit_price_the_test_rows_as_well_as_the_honest_score_says(workspace, truth):
    blended = shelfprice("ensemble", "blend", "-w", workspace.root, "--json")
    assert blended.exit_code == 0, blended.output
    record = json.loads(blended.stdout)
    assert record["scores"]["nested"] < min(record["scores"]["heads"].values())
    assert sum(record["weights"].values()) == pytest.approx(1)
    assert record["weights"]["good"] > record["weights"]["poor"]
    submitted = shelfprice("ensemble", "submit", "-w", workspace.root)
    assert submitted.exit_code == 0, submitted.output
    rows = list(csv.reader(lines(workspace, "submission.csv")))
    assert rows[0] == ["sample_id", "price"]
    ids = read_split(workspace, "test", ["sample_id"])["sample_id"].to_pylist()
    assert [int(r[0]) for r in rows[1:]] == ids
    score = smape(np.exp(truth[N_TRAIN:]), np.array([float(r[1]) for r in rows[1:]]))
    low, high = record["scores"]["test_interval"]
    assert low < score < high
    assert workspace.read_bytes(f"{record['folder']}/submission.csv") == workspace.read_bytes(
        "submission.csv"
    )
    ranges = list(csv.reader(lines(workspace, "intervals.csv")))
    assert ranges[0] == ["sample_id", "price", "low", "high"]
    inside = [
        float(low) <= np.exp(p) <= float(high)
        for (_, _, low, high), p in zip(ranges[1:], truth[N_TRAIN:], strict=True)
    ]
    assert 0.75 <= np.mean(inside) <= 1


def test_the_summary_names_heads_scores_and_interval(workspace):
    output = shelfprice("ensemble", "blend", "-w", workspace.root).stdout
    for expected in (
        "good",
        "poor",
        "plain average",
        "naive",
        "honest",
        "95% interval",
        "Optimism",
        "blend.json",
    ):
        assert expected in output
    *lines, last = output.splitlines()
    assert last == f"next: shelfprice ensemble submit -w {workspace.root}"
    assert max(map(len, lines)) <= 80


def test_a_second_blend_does_nothing_and_new_predictions_make_a_new_one(workspace, truth):
    first = run_blend(workspace)
    content = Path(workspace.path(f"{first['folder']}/blend.json")).stat().st_mtime_ns
    again = run_blend(workspace)
    assert again["up_to_date"]
    assert again["folder"] == first["folder"]
    assert Path(workspace.path(f"{first['folder']}/blend.json")).stat().st_mtime_ns == content
    predict(workspace, truth, "third", 0.2, seed=3)
    third = run_blend(workspace)
    assert not third["up_to_date"]
    assert set(third["weights"]) == {"good", "poor", "third"}


def blend(workspace, *arguments):
    result = shelfprice("ensemble", "blend", "-w", workspace.root, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_file_for_a_spreadsheet_holds_no_formula_and_the_submission_holds_the_ids_as_they_are(
    tmp_path, truth
):
    workspace, out = Workspace(tmp_path / "w"), tmp_path / "people.csv"
    rows = [{"sample_id": f"p{i}", "price": float(np.exp(p))} for i, p in enumerate(truth)]
    odd = ("=1+1", "+2", "-3", "@SUM(A1)", "\t=1", "plain", "a=b")
    for row, id in zip(rows[N_TRAIN:], odd, strict=False):
        row["sample_id"] = id
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_folds(workspace, np.arange(N_TRAIN) % 5)
    predict(workspace, truth, "good", 0.2, seed=1)
    run_blend(workspace)
    result = shelfprice("ensemble", "submit", "--spreadsheet", out, "-w", workspace.root)
    assert result.exit_code == 0, result.output
    with open(out, newline="") as file:
        header, *written = csv.reader(file)
    assert header == ["sample_id", "price", "low", "high"]
    assert [row[0] for row in written[: len(odd)]] == [f"'{id}" for id in odd[:5]] + list(odd[5:])
    with open(workspace.path("intervals.csv"), newline="") as file:
        own = list(csv.reader(file))[1:]
    assert [row[0] for row in own[: len(odd)]] == list(odd)
    assert [row[1:] for row in own] == [row[1:] for row in written]


def test_a_blend_of_chosen_heads_leaves_the_standing_blend_and_the_submission_as_they_are(workspace):
    both = blend(workspace)
    submit(workspace, ColumnConfig())
    before = workspace.read_bytes("blend/current.json"), workspace.read_bytes("submission.csv")
    alone = blend(workspace, "--head", "poor")
    assert alone["folder"] != both["folder"]
    assert (both["standing"], alone["standing"]) == (True, False)
    output = shelfprice("ensemble", "blend", "--head", "poor", "-w", workspace.root).stdout
    assert "A trial of chosen heads" in output
    assert submit(workspace, ColumnConfig())["folder"] == both["folder"]
    assert (workspace.read_bytes("blend/current.json"), workspace.read_bytes("submission.csv")) == before


def test_a_blend_of_chosen_heads_stands_when_that_is_asked_for_until_the_next_of_all(workspace):
    both = blend(workspace)
    alone = blend(workspace, "--head", "poor", "--standing")
    assert alone["standing"]
    scores = [f"{one['scores']['nested']:.2f}" for one in (both, alone)]
    assert both["notes"] == []
    assert alone["notes"] == [
        f"the standing blend scored {scores[0]} on {N_TRAIN} rows before, and scores {scores[1]} on {N_TRAIN} now"
    ]
    assert submit(workspace, ColumnConfig())["folder"] == alone["folder"]
    again = blend(workspace)
    assert (again["up_to_date"], again["standing"]) == (True, True)
    assert submit(workspace, ColumnConfig())["folder"] == both["folder"]


def test_a_trial_can_be_priced_without_touching_the_submission(workspace, tmp_path):
    blend(workspace)
    submit(workspace, ColumnConfig())
    before = workspace.read_bytes("submission.csv"), workspace.read_bytes("intervals.csv")
    trial, out = blend(workspace, "--head", "poor")["folder"], tmp_path / "trial.csv"
    result = shelfprice("ensemble", "submit", "--blend", trial, "--out", out, "-w", workspace.root)
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == workspace.read_bytes(f"{trial}/submission.csv") != before[0]
    assert (workspace.read_bytes("submission.csv"), workspace.read_bytes("intervals.csv")) == before
    unknown = shelfprice("ensemble", "submit", "--blend", "blend/none", "-w", workspace.root)
    assert "no blend blend/none" in unknown.output


def test_heads_that_the_configuration_does_not_name_are_left_out_and_named(workspace, truth):
    predict(workspace, truth, "good:probe", 0.01, seed=8)
    record = blend(workspace)
    assert set(record["weights"]) == {"good", "poor"}
    assert any(note.startswith("good:probe: not in heads.run") for note in record["notes"])
    assert set(blend(workspace, "--head", "good:probe")["weights"]) == {"good:probe"}


def test_fine_tuned_heads_are_part_of_the_blend_though_the_configuration_does_not_name_them(workspace, truth):
    predict(workspace, truth, "finetuned:clip", 0.1, seed=8)
    assert set(blend(workspace)["weights"]) == {"good", "poor", "finetuned:clip"}


def test_submit_says_when_a_head_was_run_again_since_the_blend(workspace, truth):
    run_blend(workspace)
    predict(workspace, truth, "good", 0.1, seed=5, params={"alpha": 2})
    output = shelfprice("ensemble", "submit", "-w", workspace.root).stdout
    assert "good has newer predictions than the blend" in output


def test_one_head_alone_is_taken_as_it_is(workspace):
    record = run_blend(workspace, asked=["good"])
    assert record["weights"] == {"good": 1.0}
    output = shelfprice("ensemble", "blend", "--head", "good", "-w", workspace.root).stdout
    assert "One head: nothing to blend" in output


def test_what_stands_is_blended_whatever_the_files_times_say(workspace, truth):
    first = read_standing(workspace).folders["good"]
    second = predict(workspace, truth, "good", 0.1, seed=5, params={"alpha": 2})
    for at, folder in enumerate((second, first)):
        os.utime(workspace.path(f"{folder}/head.json"), (2_000_000_000 + at, 2_000_000_000 + at))
    assert run_blend(workspace)["inputs"]["heads"]["good"] == second
    assert let_stand(workspace, "good", first)
    assert run_blend(workspace)["inputs"]["heads"]["good"] == first


def test_a_copy_without_the_files_times_blends_to_the_same_bytes(workspace, truth, tmp_path):
    first = read_standing(workspace).folders["good"]
    predict(workspace, truth, "good", 0.1, seed=5, params={"alpha": 2})
    let_stand(workspace, "good", first)
    copy = Workspace(tmp_path / "copy")
    for path in sorted(Path(workspace.root).rglob("*"), reverse=True):  # written in another order
        if path.is_file() and not path.is_relative_to(copy.root):
            target = Path(copy.root) / path.relative_to(workspace.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    records = [run_blend(one) for one in (workspace, copy)]
    for one in (workspace, copy):
        submit(one, ColumnConfig())
    assert records[0]["folder"] == records[1]["folder"]
    assert workspace.read_bytes("submission.csv") == copy.read_bytes("submission.csv")


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"", b"[" * 20_000], ids=["list", "empty", "nothing", "deep"]
)
def test_a_damaged_record_of_the_standing_blend_is_written_anew_by_blend(workspace, content):
    before = blend(workspace)["folder"]
    workspace.publish_bytes("blend/current.json", content)
    for command in (["ensemble", "submit"], ["status"], ["prune", "--yes"]):
        result = shelfprice(*command, "-w", workspace.root)
        assert result.exit_code == 1
        assert "blend/current.json is damaged" in result.output
        assert "run 'shelfprice ensemble blend'" in result.output
    again = blend(workspace)
    assert (again["folder"], again["up_to_date"], again["standing"]) == (before, True, True)


# ---- workspaces of version 0.1.0, which kept no record of what stands ----------------------------


def forget(workspace, head):
    workspace.remove(f"predictions/{head.replace(':', '.')}.json")


def test_without_a_record_the_only_run_of_a_head_stands(workspace):
    before = run_blend(workspace)["folder"]
    forget(workspace, "good")
    assert run_blend(workspace)["folder"] == before


def test_without_a_record_the_run_with_the_configurations_parameters_stands(workspace, truth):
    workspace.remove(read_standing(workspace).folders["good"])
    said = truth + 0.1
    folders = [
        publish_fake_predictions(
            workspace, "good", said[:N_TRAIN], said[N_TRAIN:], seed=42, params={"alpha": alpha}
        )
        for alpha in (1, 2)
    ]
    forget(workspace, "good")
    for alpha, folder in zip((1, 2), folders, strict=True):
        heads = HeadConfig(run=("good", "poor"), params={"good": {"alpha": alpha}})
        save_config(workspace, Config(heads=heads))
        assert run_blend(workspace)["inputs"]["heads"]["good"] == folder


def test_without_a_record_and_nothing_but_time_to_tell_two_runs_apart_neither_is_taken(workspace, truth):
    predict(workspace, truth, "good", 0.1, seed=5, params={"alpha": 2})
    forget(workspace, "good")
    with pytest.raises(
        HeadError, match=r"good has 2 finished runs .* run 'shelfprice heads run --head good'"
    ):
        run_blend(workspace)


def test_a_damaged_record_is_named_and_an_only_run_stands_all_the_same(workspace):
    workspace.publish_bytes("predictions/good.json", b"{")
    notes = run_blend(workspace)["notes"]
    assert any("predictions/good.json is damaged" in note and "delete it" in note for note in notes)
    lines = []
    assert let_stand(workspace, "good", read_standing(workspace).folders["good"], lines.append)
    assert "predictions/good.json was damaged and is written anew" in lines[0]
    assert run_blend(workspace)["notes"] == []


def test_predictions_of_other_folds_are_refused_naming_both(workspace):
    old = read_folds(workspace).hash
    publish_folds(workspace, np.arange(N_TRAIN) % 4)
    new = read_folds(workspace).hash
    with pytest.raises(FoldMismatchError, match=f"folds {old} and the workspace's folds are {new}"):
        run_blend(workspace, configured=["good"])
    with pytest.raises(FoldMismatchError, match="heads run --head poor"):
        run_blend(workspace, asked=["poor"])
    assert not workspace.exists("blend")


def test_a_blend_older_than_the_folds_is_not_submitted(workspace):
    run_blend(workspace)
    publish_folds(workspace, np.arange(N_TRAIN) % 4)
    with pytest.raises(FoldMismatchError, match="the blend belongs to folds"):
        submit(workspace, ColumnConfig())
    assert not workspace.exists("submission.csv")


def test_predictions_of_another_catalogue_are_refused(workspace, truth):
    predict(workspace, truth, "stray", 0.2, 4, catalog_digest="elsewhere")
    with pytest.raises(RowMismatchError, match="stray belong to another catalogue"):
        run_blend(workspace, asked=["stray"])
    assert any("stray is left out" in note for note in run_blend(workspace)["notes"])


def test_predictions_of_other_rows_are_refused_naming_one(workspace, truth):
    folder = predict(workspace, truth, "good", 0.2, 1)
    oof = workspace.read_table(f"{folder}/oof.parquet")
    workspace.publish_table(f"{folder}/oof.parquet", oof.slice(0, N_TRAIN - 1))
    missing = oof["sample_id"][N_TRAIN - 1].as_py()
    with pytest.raises(
        RowMismatchError, match=rf"good: .* 299 rows and cover 299 of .* 300 .*without one: {missing}"
    ):
        run_blend(workspace)


def test_a_prediction_that_is_not_a_number_is_refused_naming_its_row(workspace, truth):
    folder = predict(workspace, truth, "good", 0.2, 1)
    oof = workspace.read_table(f"{folder}/oof.parquet")
    broken = oof["log_price"].to_numpy().copy()
    broken[5] = np.nan
    workspace.publish_table(
        f"{folder}/oof.parquet", oof.set_column(2, oof.schema.field("log_price"), pa.array(broken))
    )
    with pytest.raises(RowMismatchError, match="must be finite, row 6995 has nan"):
        run_blend(workspace)


def test_folds_written_in_the_predictions_must_be_the_workspaces(workspace, truth):
    folder = predict(workspace, truth, "good", 0.2, 1)
    oof = workspace.read_table(f"{folder}/oof.parquet")
    shifted = pa.array((oof["fold"].to_numpy() + 1) % 5, oof["fold"].type)
    workspace.publish_table(f"{folder}/oof.parquet", oof.set_column(1, oof.schema.field("fold"), shifted))
    with pytest.raises(FoldMismatchError, match=r"good predicted row 7000 as fold 1 .* says 0"):
        run_blend(workspace)


def test_a_head_without_test_predictions_is_refused(workspace, truth):
    publish_fake_predictions(workspace, "half", truth[:N_TRAIN])
    with pytest.raises(RowMismatchError, match="half has no predictions of the 40 test rows"):
        run_blend(workspace)


def test_a_head_that_was_never_run_is_named_with_the_command(workspace):
    with pytest.raises(HeadError, match=r"finished: good, poor.*heads run --head mlp"):
        run_blend(workspace, asked=["mlp"])
    notes = run_blend(workspace, configured=["good", "mlp"])["notes"]
    assert any("mlp is left out" in note for note in notes)


def test_a_workspace_without_predictions_says_what_to_run(tmp_path):
    workspace = Workspace(tmp_path)
    publish_catalog(workspace, catalog_table([{"sample_id": i, "price": 1.0 + i} for i in range(6)]))
    publish_folds(workspace, np.arange(6) % 2)
    with pytest.raises(HeadError, match=r"no finished predictions .* run 'shelfprice heads run"):
        run_blend(workspace)


@pytest.mark.parametrize(
    ("n_rows", "n_folds", "price", "error", "match"),
    [
        (5, 5, None, RowMismatchError, r"at least 2 groups .* fold 0 has 1 \(1 rows\)"),
        (6, 1, None, RowMismatchError, "at least 2 folds"),
        (20, 2, 9.99, CatalogError, r"all 20 training prices are 9\.99"),
    ],
)
def test_rows_that_can_carry_no_score_are_refused(tmp_path, n_rows, n_folds, price, error, match):
    workspace = Workspace(tmp_path)
    rows = [{"sample_id": f"id{i}", "price": price or 1.0 + i} for i in range(n_rows)]
    publish_catalog(workspace, catalog_table(rows))
    publish_folds(workspace, np.arange(n_rows) % n_folds)
    publish_fake_predictions(workspace, "good", np.zeros(n_rows))
    with pytest.raises(error, match=match):
        run_blend(workspace)
    assert not workspace.exists("blend")


def test_without_a_test_catalogue_submit_says_so(tmp_path, truth):
    workspace = Workspace(tmp_path)
    rows = [{"sample_id": i, "price": float(np.exp(p))} for i, p in enumerate(truth[:20])]
    publish_catalog(workspace, catalog_table(rows))
    publish_folds(workspace, np.arange(20) % 2)
    publish_fake_predictions(workspace, "good", truth[:20] + 0.1)
    run_blend(workspace)
    with pytest.raises(CatalogError, match="has no test catalogue"):
        submit(workspace, ColumnConfig())


def test_submit_before_blend_says_what_to_run(workspace):
    with pytest.raises(WorkspaceError, match="run 'shelfprice ensemble blend"):
        submit(workspace, ColumnConfig())


def test_a_blend_of_another_version_is_not_submitted(workspace):
    record = run_blend(workspace)
    old = {**record, "inputs": {**record["inputs"], "code_version": 0}}
    workspace.publish_json(f"{record['folder']}/blend.json", old)
    with pytest.raises(WorkspaceError, match="another version of shelfprice"):
        submit(workspace, ColumnConfig())


def test_submit_uses_the_configured_columns_counts_rejected_rows_and_writes_out(workspace, tmp_path):
    save_config(workspace, Config(columns=ColumnConfig(sample_id="sku", price="inr")))
    rejected = [{"file": "test.csv", "line": 3, "sample_id": "x", "reason": "no id"}] * 2
    workspace.publish_table("catalog/rejected.parquet", pa.Table.from_pylist(rejected, schema=REJECTED))
    run_blend(workspace)
    out = tmp_path / "deep" / "mine.csv"
    result = shelfprice("ensemble", "submit", "-w", workspace.root, "--out", out)
    assert result.exit_code == 0, result.output
    assert "2 rows of test.csv rejected at ingest" in result.stdout
    assert out.read_text().startswith("sku,inr\n")
    assert out.read_bytes() == workspace.read_bytes("submission.csv")


def test_prices_below_the_floor_are_raised_to_it(workspace, truth):
    said = truth.copy()
    said[N_TRAIN:] = -20.0
    publish_fake_predictions(workspace, "tiny", said[:N_TRAIN], said[N_TRAIN:])
    run_blend(workspace, asked=["tiny"], standing=True)
    assert submit(workspace, ColumnConfig())["n_at_floor"] == N_TEST
    rows = list(csv.DictReader(lines(workspace, "submission.csv")))
    assert {row["price"] for row in rows} == {"0.01"}


def test_a_submission_in_another_order_or_with_an_infinite_price_is_refused():
    ids = pa.array(["a", "b"])
    with pytest.raises(RowMismatchError, match="instead of the 2 test rows in their order"):
        check_submission(pa.array(["b", "a"]), np.ones(2), ids)
    with pytest.raises(RowMismatchError, match="first: b at inf"):
        check_submission(ids, np.array([1.0, np.inf]), ids)


def test_help_and_an_up_to_date_blend_import_nothing_heavy(workspace):
    run_blend(workspace)
    code = (
        "import sys\nfrom store.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'torch','sklearn','scipy','xgboost','lightgbm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for arguments in (["ensemble", "--help"], ["ensemble", "blend", "-w", workspace.root]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_the_price_floor_is_a_setting_that_the_score_knows_as_well(workspace, truth):
    cheap = truth - 12.0  # prices around 0.0001
    rows = [{"sample_id": 7000 - i, "price": float(np.exp(p))} for i, p in enumerate(cheap)]
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_folds(workspace, np.arange(N_TRAIN) % 5)
    publish_fake_predictions(workspace, "exact", cheap[:N_TRAIN], cheap[N_TRAIN:])
    assert (
        run_blend(workspace, asked=["exact"], standing=True)["scores"]["nested"] > 150
    )  # 0.01 in place of 0.0001
    assert submit(workspace, ColumnConfig())["n_at_floor"] == N_TEST
    save_config(workspace, Config(submission=SubmissionConfig(price_floor=1e-9)))
    with pytest.raises(ConfigError, match=r"at least 0.01 and submission.price_floor is 1e-09"):
        submit(workspace, ColumnConfig(), price_floor=1e-9)
    assert blend(workspace, "--head", "exact", "--standing")["standing"]
    result = shelfprice("ensemble", "submit", "-w", workspace.root, "--json")
    assert json.loads(result.stdout)["nested_smape"] < 0.01
    median = float(np.median(np.exp(cheap[N_TRAIN:])))
    assert f"median {median:.3g}" in shelfprice("ensemble", "submit", "-w", workspace.root).stdout
    submitted = [float(row["price"]) for row in csv.DictReader(lines(workspace, "submission.csv"))]
    np.testing.assert_allclose(submitted, np.exp(cheap[N_TRAIN:]), rtol=0.01)


def test_a_submission_has_the_name_of_the_test_files_ids(workspace):
    run_blend(workspace)
    submit(workspace, ColumnConfig(sample_id="train_id", test_id="test_id"))
    assert lines(workspace, "submission.csv")[0] == "test_id,price"


@pytest.mark.parametrize("group", ["auto", "near"])
def test_test_rows_that_no_fold_scores_are_told_with_a_next_step_that_changes_something(tmp_path, group):
    workspace = Workspace(tmp_path)
    rows = [
        {"sample_id": i, "text": f"article {i} of kind {i * i}", "price": 5.0 + i % 40} for i in range(120)
    ]
    copies = [{**row, "sample_id": 1000 + row["sample_id"]} for row in rows[:20]]
    publish_catalog(workspace, catalog_table(rows), catalog_table(copies, priced=False))
    config = Config(folds=FoldConfig(group=group), heads=HeadConfig(run=("good",)))
    save_config(workspace, config)
    ensure_folds(workspace, config)
    log_price = np.log([row["price"] for row in rows])
    publish_fake_predictions(workspace, "good", log_price + 0.1, log_price[:20] + 0.1)
    said = " ".join(shelfprice("ensemble", "blend", "-w", workspace.root).stdout.split())
    assert "100% of the test rows have a relative in train of a kind that fewer than 20 training rows" in said
    assert "the true score may be lower than expected" in said
    assert ("'shelfprice catalog folds --group auto'" in said) == (group != "auto")
