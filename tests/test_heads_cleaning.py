from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from heads.base import Head
from heads.features.inputs import read_inputs
from heads.features.rows import Rows
from heads.folds.crossfit import crossfit
from heads.linear.ridge import Ridge
from heads.run import run_heads
from store.catalog.clean.run import clean_catalog
from store.cleaning import Cleaning, Decision, decision_of
from store.config import load_config
from store.errors import HeadError
from store.folds.assign import read_folds
from store.status import read_status
from store.workspace import Workspace
from tests.clean_rows import publish


@dataclass(kw_only=True, eq=False)
class Witness(Head):
    """Predicts the mean and records the rows that it was fitted on."""

    name: ClassVar[str] = "witness"
    seen: ClassVar[list[dict[int, float]]] = []

    def _fit(self, rows, log_price):
        self.seen.append(
            dict(zip(rows.sample_id.to_pylist(), np.exp(log_price).round(6).tolist(), strict=True))
        )
        self.mean_ = float(log_price.mean())

    def _predict(self, rows):
        return np.full(len(rows), self.mean_)


PRICES = np.array([10.0, 30.0, 50.0, 8.0, 9.0, 10.0])
FOLD = np.array([0, 0, 1, 1, 1, 0])


def fitted_on(*decisions, prices=PRICES):
    """What the model of each fold, and that of all rows, was fitted on: row -> price."""
    Witness.seen.clear()
    rows = Rows.from_array(np.zeros((len(prices), 1)))
    crossfit(Witness(), rows, np.log(prices), FOLD, rows, cleaning=Cleaning(decisions))
    return list(Witness.seen)


def decision(finding, policy, rows, group):
    return Decision(finding, policy, np.array(rows), np.array(group))


def test_a_median_is_that_of_the_rows_fitted_on():
    without_0, without_1, on_all = fitted_on(decision("same_text", "median", [0, 1, 2], [0, 0, 0]))
    assert without_0 == {2: 50.0, 3: 8.0, 4: 9.0}
    assert without_1 == pytest.approx({0: 300**0.5, 1: 300**0.5, 5: 10.0})
    assert [on_all[i] for i in (0, 1, 2)] == [30.0] * 3


def test_the_first_row_is_the_first_of_those_fitted_on():
    without_0, without_1, on_all = fitted_on(decision("same_text", "first", [0, 2, 3], [0, 0, 0]))
    assert set(without_0) == {2, 4}
    assert set(without_1) == {0, 1, 5}
    assert set(on_all) == {0, 1, 4, 5}


def test_the_first_row_is_that_of_the_lowest_id_wherever_the_catalogue_has_it():
    found = pa.table(
        {"sample_id": [3, 8], "finding": ["same_text"] * 2, "policy": ["first"] * 2, "group": [0, 0]}
    )
    cleaning = Cleaning((decision_of(found, pa.array([9, 8, 3, 1])),))
    positions, _ = cleaning.training_part(np.arange(4), np.zeros(4))
    assert positions.tolist() == [0, 2, 3]


@pytest.mark.parametrize("policy", ["median", "first", "weight"])
def test_a_group_cut_down_to_one_row_by_the_folds_is_fitted_on_as_it_is(policy):
    without_0, *_ = fitted_on(decision("same_text", policy, [0, 1, 2], [0, 0, 0]))
    assert without_0 == {2: 50.0, 3: 8.0, 4: 9.0}


def test_a_weighted_group_counts_as_one_row_at_its_median():
    *_, on_all = fitted_on(decision("near_text", "weight", [0, 1, 2], [0, 0, 0]))
    assert on_all == {0: 30.0, 3: 8.0, 4: 9.0, 5: 10.0}


def test_dropped_rows_are_fitted_on_by_no_model_and_predicted_all_the_same():
    rows = Rows.from_array(np.zeros((6, 1)))
    cleaning = Cleaning((decision("outlier", "drop", [2, 5], [-1, -1]),))
    Witness.seen.clear()
    result = crossfit(Witness(), rows, np.log(PRICES), FOLD, rows, cleaning=cleaning)
    assert all(not {2, 5} & set(seen) for seen in Witness.seen)
    assert np.isfinite(result.oof).all()
    assert len(result.oof) == 6


def test_a_contradiction_that_only_the_held_out_fold_makes_is_none():
    without_0, without_1, on_all = fitted_on(decision("price", "drop", [2, 3, 5], [0, 0, 0]))
    assert set(without_0) == {4}
    assert set(without_1) == {0, 1, 5}
    assert set(on_all) == {0, 1, 4}


@pytest.mark.parametrize("policy", ["drop", "median", "first", "weight"])
@pytest.mark.parametrize("finding", ["price", "same_text"])
def test_prices_of_a_fold_change_nothing_about_the_model_that_predicts_it(finding, policy):
    one = decision(finding, policy, [0, 1, 2, 3], [0, 0, 0, 1])
    before = fitted_on(one)
    for held_out in (0, 1):
        changed = np.where(held_out == FOLD, 1000.0 + PRICES, PRICES)
        assert fitted_on(one, prices=changed)[held_out] == before[held_out]


def test_no_row_left_is_an_error_that_names_the_policies():
    everything = decision("outlier", "drop", list(range(6)), [-1] * 6)
    with pytest.raises(HeadError, match=r"cleaning leaves none of 3 rows .*outlier=drop"):
        fitted_on(everything)


def test_a_head_that_crosses_all_folds_at_once_obeys_too():
    draw = np.random.default_rng(0)
    X, fold = draw.normal(size=(120, 3)), np.arange(120) % 3
    log_price = X @ [1.0, 0.5, -0.5]
    log_price[7] += 50
    rows = Rows.from_array(X)
    plain = crossfit(Ridge(), rows, log_price, fold)
    cleaned = crossfit(
        Ridge(), rows, log_price, fold, cleaning=Cleaning((decision("outlier", "drop", [7], [-1]),))
    )
    others = np.arange(120) != 7
    error = [np.abs(found.oof - log_price)[others].mean() for found in (plain, cleaned)]
    assert error[1] < 0.1 * error[0]


@pytest.fixture
def workspace(tmp_path):
    found = Workspace(tmp_path)
    texts = ["red fig jam", "green leaf tea", "olive oil jar", "brown rice bag"]
    train = [
        {"sample_id": i, "text": f"{texts[i % 4]} {i % 8} {i % 5}", "price": 3.0 + i % 4, "image": None}
        for i in range(40)
    ]
    train[12]["text"] = train[28]["text"] = "green leaf tea twice"
    train[28]["price"] = 30.0
    found.publish_bytes("shelfprice.toml", b"[heads]\nrun = ['sparse']\nvectors = []\n")
    publish(found, train, fold=[i % 2 for i in range(40)])
    return found


def run(workspace):
    (result,) = run_heads(workspace, load_config(workspace))
    assert result.error is None, result.error
    return result


def test_decisions_of_the_workspace_reach_the_fold_loop_and_scores_are_on_all_rows(workspace):
    clean_catalog(workspace, ("price=drop",))
    inputs = read_inputs(workspace, [], [], read_folds(workspace))
    assert inputs.cleaning.decisions[0].rows.tolist() == [12, 28]
    assert np.exp(inputs.log_price[28]) == pytest.approx(30.0)
    result = run(workspace)
    assert len(workspace.read_table(f"{result.folder}/oof.parquet")) == 40


def test_without_decisions_results_are_those_of_no_cleaning_at_all(workspace):
    before = run(workspace)
    oof = workspace.read_table(f"{before.folder}/oof.parquet")
    clean_catalog(workspace)
    again = run(workspace)
    assert (again.status, again.folder) == ("present", before.folder)
    workspace.remove(before.folder)
    assert run(workspace).folder == before.folder
    assert workspace.read_table(f"{before.folder}/oof.parquet").equals(oof)


def test_other_decisions_make_predictions_stale(workspace):
    before = run(workspace)
    clean_catalog(workspace, ("price=median",))
    (holding,) = read_status(workspace, load_config(workspace)).record["heads"]
    assert "decisions of 'catalog clean' have changed" in holding.stale
    assert run(workspace).folder != before.folder


def test_decisions_for_another_catalogue_are_refused(workspace):
    clean_catalog(workspace, ("price=median",))
    rows = [{"sample_id": i, "text": f"tea {i}", "price": 1.0 + i, "image": None} for i in range(40)]
    publish(workspace, rows, fold=[i % 2 for i in range(40)])
    (result,) = run_heads(workspace, load_config(workspace))
    assert "decisions about doubtful rows no longer fit: the catalogue has changed" in result.error


def test_policies_that_were_never_applied_are_refused(workspace):
    workspace.publish_bytes(
        "shelfprice.toml", workspace.read_bytes("shelfprice.toml") + b"[clean]\nprice = 'drop'\n"
    )
    (result,) = run_heads(workspace, load_config(workspace))
    assert "price=drop of shelfprice.toml was never applied" in result.error
    assert "Run 'shelfprice catalog clean" in result.error
