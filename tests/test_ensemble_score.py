"""Blends from Python: of plain arrays, and of a workspace."""

import csv

import numpy as np
import pandas as pd
import pytest

from ensemble.blend import run_blend
from ensemble.score import best_weights, honest_score, make_blend, write_submission
from store.config import Config, HeadConfig, save_config
from store.errors import PriceError, RowMismatchError, WorkspaceError
from store.metric import smape
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_fake_predictions, publish_folds

N_ROWS = 300
FOLD = np.arange(N_ROWS) % 5


@pytest.fixture
def log_price():
    return np.random.default_rng(0).normal(3, 1, N_ROWS)


@pytest.fixture
def predictions(log_price):
    """Two heads, out of fold; `good` errs less."""
    draws = np.random.default_rng(1)
    return {
        head: log_price + draws.laplace(0, spread, N_ROWS) for head, spread in (("good", 0.2), ("poor", 0.5))
    }


@pytest.fixture
def workspace(tmp_path, log_price, predictions):
    """The same rows as a catalogue, with folds and both heads' predictions, and ten test rows."""
    workspace = Workspace(tmp_path / "w")
    rows = [{"sample_id": i, "price": float(np.exp(p))} for i, p in enumerate(log_price)]
    tests = [{"sample_id": N_ROWS + i, "price": 1.0} for i in range(10)]
    publish_catalog(workspace, catalog_table(rows), catalog_table(tests, priced=False))
    publish_folds(workspace, FOLD)
    for head, said in predictions.items():
        publish_fake_predictions(workspace, head, said, np.full(10, 3.0))
    save_config(workspace, Config(heads=HeadConfig(run=("good", "poor"))))
    return workspace


def test_a_blend_of_arrays_scores_as_the_same_blend_of_a_workspace(workspace, log_price, predictions):
    of_arrays, of_workspace = honest_score(predictions, log_price, FOLD), make_blend(workspace.root)
    assert of_arrays.smape == of_workspace.smape == honest_score(workspace).smape
    assert of_arrays.smape < min(of_arrays.heads.values())
    assert of_arrays.weights == of_workspace.weights
    assert of_arrays.interval[0] < of_arrays.smape < of_arrays.interval[1]
    assert of_arrays.smape == pytest.approx(smape(np.exp(log_price), np.exp(of_arrays.log_price)))
    np.testing.assert_array_equal(of_arrays.log_price, of_workspace.log_price)
    assert of_arrays.optimism == pytest.approx(of_arrays.smape - of_arrays.naive)


def test_an_honest_score_of_a_workspace_writes_nothing(workspace):
    honest_score(workspace)
    assert not workspace.exists("blend")


def test_making_a_blend_is_what_the_command_does(workspace):
    blend = make_blend(workspace, ["good"])
    assert blend.record["folder"] == run_blend(workspace, ["good"], ("good", "poor"))["folder"]
    assert blend.weights == {"good": 1.0}


def test_a_blend_of_chosen_heads_is_a_trial_unless_it_is_to_stand(
    workspace, tmp_path, log_price, predictions
):
    make_blend(workspace)
    write_submission(workspace)
    before = workspace.read_bytes("submission.csv")
    trial = make_blend(workspace, ["poor"])
    written = write_submission(workspace, tmp_path / "trial.csv", blend=trial)
    assert written["folder"] == trial.record["folder"]
    assert workspace.read_bytes("submission.csv") == before
    make_blend(workspace, ["poor"], standing=True)
    assert write_submission(workspace)["folder"] == trial.record["folder"]
    with pytest.raises(
        WorkspaceError, match="honest_score keeps no blend to price test rows by: use make_blend"
    ):
        write_submission(workspace, blend=honest_score(predictions, log_price, FOLD))


@pytest.mark.parametrize("form", [pd.DataFrame, lambda one: np.column_stack(list(one.values())), dict])
def test_predictions_come_as_a_frame_a_matrix_or_by_head_and_in_prices_as_well(form, log_price, predictions):
    prices = form({head: np.exp(said) for head, said in predictions.items()})
    found = honest_score(prices, np.exp(log_price), FOLD, target="price")
    assert found.smape == pytest.approx(honest_score(predictions, log_price, FOLD).smape, abs=1e-9)
    assert len(found.weights) == 2


def test_printed_it_is_the_table_of_the_command(log_price, predictions):
    lines = str(honest_score(predictions, log_price, FOLD)).splitlines()
    assert lines[0].startswith("2 heads, 300 rows in 300 groups, 5 folds.")
    assert [line.split()[0] for line in lines if line.startswith("  ")][:3] == ["head", "good", "poor"]
    assert any("blend, honest" in line for line in lines)


def test_prices_of_a_fold_do_not_enter_the_blend_that_prices_it(log_price, predictions):
    changed = log_price.copy()
    changed[FOLD == 2] += 3
    before, after = (honest_score(predictions, actual, FOLD).log_price for actual in (log_price, changed))
    np.testing.assert_array_equal(before[FOLD == 2], after[FOLD == 2])


def test_the_best_weights_favour_the_better_head(log_price, predictions):
    weights = best_weights(predictions, log_price)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["good"] > 0.6
    scores = [np.tanh(abs(w * predictions["good"] + (1 - w) * predictions["poor"] - log_price) / 2).mean()
              for w in np.arange(101) / 100]  # fmt: skip
    assert weights["good"] == pytest.approx(np.argmin(scores) / 100)


def test_what_does_not_fit_together_is_an_error_that_counts(log_price, predictions):
    with pytest.raises(RowMismatchError, match="got 300 of actual and 299 of folds"):
        honest_score(predictions, log_price, FOLD[1:])
    with pytest.raises(
        RowMismatchError, match="got 299 of actual and 300 of good, 300 of poor, 300 of folds"
    ):
        honest_score(predictions, log_price[1:], FOLD)
    with pytest.raises(RowMismatchError, match="needs the actual prices and the folds"):
        honest_score(predictions, log_price)
    with pytest.raises(RowMismatchError, match="got 300 of actual and no predictions"):
        honest_score({}, log_price, FOLD)
    with pytest.raises(RowMismatchError, match=r"a column a head, shape \(n_rows, n_heads\), got \(300,\)"):
        honest_score(predictions["good"], log_price, FOLD)
    with pytest.raises(RowMismatchError, match="at least 2 groups of rows for a score, fold 0 has 1"):
        honest_score(predictions, log_price, FOLD, groups=FOLD)


def test_prices_must_be_prices(log_price, predictions):
    with pytest.raises(PriceError, match=r"predictions of good: price of 0 is"):
        honest_score({"good": log_price - 10}, np.exp(log_price), FOLD, target="price")
    with pytest.warns(UserWarning, match="actual: the target should be log prices but looks like prices"):
        honest_score(predictions, np.exp(log_price), FOLD)


def test_a_submission_from_python_holds_every_test_row(workspace, tmp_path):
    make_blend(workspace)
    written = write_submission(workspace.root, tmp_path / "prices.csv")
    rows = list(csv.reader((tmp_path / "prices.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["sample_id", *(str(N_ROWS + i) for i in range(10))]
    assert written["n_rows"] == 10
    assert workspace.exists("submission.csv")
