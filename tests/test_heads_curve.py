"""The second pass over a sample of the rows, and what blend, submission and status make of it."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.score import make_blend, write_submission
from heads.compare import compare_heads
from heads.folds.curve import LEAST_ROWS, curve_pass, sampled_rows
from heads.linear.ridge import Ridge
from heads.run import train_heads
from heads.testing import folds_of, make_rows
from store.cli import main
from store.config import ColumnConfig, Config, HeadConfig, save_config
from store.folds.assign import read_folds, read_record
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

N_TRAIN, N_TEST = 480, 120
WORDS = [f"word{i}" for i in range(150)]


@pytest.fixture(scope="module")
def truth():
    draws = np.random.default_rng(0)
    effects = draws.normal(0, 0.5, len(WORDS))
    chosen = [draws.choice(len(WORDS), 5, replace=False) for _ in range(N_TRAIN + N_TEST)]
    for i in range(0, N_TRAIN + N_TEST, 3):  # a third of all rows is a copy of the row before
        chosen[i] = chosen[i - 1]
    draws.shuffle(chosen)
    log_price = 3 + np.array([effects[c].sum() for c in chosen]) + draws.normal(0, 0.1, len(chosen))
    texts = [" ".join(WORDS[w] for w in c) for c in chosen]
    own = {text: draws.normal(0, 0.3) for text in sorted(set(texts))}  # what only a copy knows
    log_price += [own[text] for text in texts]
    X = np.array([effects[c] for c in chosen]) @ draws.normal(size=(5, 6))
    return texts, log_price, X


@pytest.fixture(scope="module")
def workspace(truth, tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("w"))
    texts, log_price, X = truth
    rows = [
        {"sample_id": i, "text": text, "name": text, "price": float(np.exp(p)), "given:weight": 1.0 + i % 2}
        for i, (text, p) in enumerate(zip(texts, log_price, strict=True))
    ]
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_vectors(workspace, VectorSet("minilm", "structured"), {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})
    copies = {"sparse": {"alpha_min": 0.025, "min_df": 1}}  # two rows of one text are enough to learn it
    heads = HeadConfig(run=("ridge", "sparse"), vectors=("minilm@structured",), params=copies)
    save_config(workspace, Config(heads=heads))
    train_heads(workspace)
    return workspace


def curve_of(workspace, head):
    folder = workspace.read_json(f"predictions/{head}.json")["folder"]
    table = workspace.read_table(f"{folder}/curve.parquet")
    return table, workspace.read_metadata(f"{folder}/curve.parquet"), folder


def test_the_sample_holds_whole_groups_and_is_the_same_for_every_head_and_row_order():
    group = np.arange(1000) // 3
    rows = sampled_rows(group, 7)
    assert rows.mean() == pytest.approx(0.5, abs=0.01)
    assert len(np.unique(group[rows])) + len(np.unique(group[~rows])) == len(np.unique(group))
    np.testing.assert_array_equal(sampled_rows(group[::-1], 7)[::-1], rows)
    assert sampled_rows(np.arange(75_000), 7).mean() == pytest.approx(0.25, abs=0.01)


def test_fewer_rows_than_show_how_an_error_falls_have_no_curve():
    rows, log_price = make_rows(LEAST_ROWS)
    found = curve_pass(Ridge(), rows, log_price, folds_of(rows), 7)
    assert found is not None
    assert found.log_price.shape == (LEAST_ROWS // 2,)
    few = rows.subset(np.arange(LEAST_ROWS - 1))
    assert curve_pass(Ridge(), few, log_price[:-1], folds_of(few), 7) is None


def test_each_head_predicts_half_of_the_rows_by_models_of_that_half(workspace):
    tables = {head: curve_of(workspace, head) for head in ("ridge", "sparse")}
    for table, metadata, _ in tables.values():
        assert len(table) == N_TRAIN // 2
        assert metadata["share"] == pytest.approx(0.5)
        assert metadata["folds_hash"] == read_folds(workspace).hash
    ids = [table["sample_id"].to_pylist() for table, _, _ in tables.values()]
    assert ids[0] == ids[1]


def test_the_expected_score_is_lower_than_the_out_of_fold_one_and_true_on_the_test_rows(workspace, truth):
    blend = make_blend(workspace)
    expected = blend.record["scores"]["expected"]
    assert read_record(workspace).grouping == "none"
    assert expected["curve_heads"] == ["ridge", "sparse"]
    assert blend.record["inputs"]["learning_curves"] == ["ridge", "sparse"]
    assert 0.7 < expected["test"]["size_factor"] < 1
    assert blend.expected < blend.smape
    assert expected["test_shares"]["product"] == pytest.approx(0.5, abs=0.2)
    assert expected["without_relative"]["smape"] > 1.3 * blend.expected  # copies are easy
    write_submission(workspace)
    lines = list(csv.reader(workspace.read_bytes("intervals.csv").decode().splitlines()))[1:]
    price, low, high = (np.log([float(line[at]) for line in lines]) for at in (1, 2, 3))
    actual = truth[1][N_TRAIN:]
    true = 200 * np.tanh(np.abs(price - actual) / 2)
    assert expected["test"]["interval"][0] < true.mean() < expected["test"]["interval"][1]
    assert ((low <= actual) & (actual <= high)).mean() == pytest.approx(0.9, abs=0.08)


def test_the_summary_says_what_is_expected_and_why(workspace):
    printed = CliRunner().invoke(main, ["ensemble", "blend", "-w", workspace.root]).output
    assert "on the 120 test rows" in printed
    assert "for a model of all rows instead of all folds but one" in printed
    assert "On products without a relative in train expect" in printed
    assert "have a relative in train" in printed


def test_weights_of_rows_decide_score_and_blend(workspace, tmp_path):
    weighted = json.loads(
        CliRunner().invoke(main, ["ensemble", "blend", "-w", workspace.root, "--json"]).stdout
    )["scores"]
    prices = workspace.read_table(f"{make_blend(workspace).record['folder']}/oof.parquet")[
        "log_price"
    ].to_numpy()
    train = workspace.read_table("catalog/train.parquet")
    loss = 200 * np.tanh(np.abs(prices - np.log(train["price"].to_numpy())) / 2)
    assert weighted["nested"] == pytest.approx(np.average(loss, weights=train["given:weight"].to_numpy()))
    assert weighted["nested"] != pytest.approx(loss.mean(), abs=1e-6)


def test_of_folds_in_order_of_time_the_first_is_in_no_score_and_nothing_knows_later_ones(truth, tmp_path):
    texts, log_price, X = truth
    rows = [
        {
            "sample_id": i,
            "text": t,
            "name": t,
            "price": float(np.exp(p)),
            "given:time": float(i),
            "given:weight": 1.0 + i % 2,
        }
        for i, (t, p) in enumerate(zip(texts[:200], log_price[:200], strict=True))
    ]
    workspace = Workspace(tmp_path)
    publish_catalog(workspace, catalog_table(rows))
    publish_vectors(workspace, VectorSet("minilm", "structured"), {"train": X[:200]})
    heads = HeadConfig(run=("ridge",), vectors=("minilm@structured",))
    config = Config(heads=heads, columns=ColumnConfig(time="day"))
    save_config(workspace, config)
    (ridge,) = train_heads(workspace)
    oof = workspace.read_table(f"{ridge.folder}/oof.parquet").sort_by("sample_id")
    later = oof["fold"].to_numpy() > 0
    loss = 200 * np.tanh(np.abs(oof["log_price"].to_numpy() - log_price[:200]) / 2)
    weight = 1.0 + np.arange(200) % 2
    assert ridge.smape == pytest.approx(np.average(loss[later], weights=weight[later]))
    assert ridge.smape != pytest.approx(np.average(loss, weights=weight), rel=1e-4)
    of_ridge, _ = compare_heads(workspace, config, ("ridge", "sparse"))
    assert of_ridge.smape == pytest.approx(ridge.smape)
    said = CliRunner().invoke(
        main, ["heads", "tune", "--head", "svr", "--minutes", "0.01", "-w", workspace.root]
    )
    assert said.exit_code == 1
    assert "would score parameters on later rows" in said.output


def test_a_second_run_trains_no_curve_and_the_setting_turns_it_off(workspace):
    _, _, folder = curve_of(workspace, "ridge")
    assert {head.status for head in train_heads(workspace)} == {"present"}
    workspace.remove(f"{folder}/head.json")
    workspace.remove(f"{folder}/curve.parquet")
    off = Config(heads=HeadConfig(run=("ridge",), vectors=("minilm@structured",), learning_curve=False))
    save_config(workspace, off)
    (head,) = train_heads(workspace)
    assert (head.status, head.folder) == ("trained", folder)  # the same predictions
    assert not workspace.exists(f"{folder}/curve.parquet")
    assert make_blend(workspace).record["scores"]["expected"]["test"]["size_factor"] == 1
