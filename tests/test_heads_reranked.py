"""`reranked-neighbours`: candidates of near rows, ranked by trees that never saw the price of the row."""

import dataclasses
import json

import numpy as np
import pyarrow.compute as pc
import pytest
from threadpoolctl import threadpool_limits

from heads.contributions import explain_rows
from heads.fitted import read_fitted, write_fitted
from heads.folds import parallel
from heads.folds.crossfit import crossfit
from heads.kernels.neighbours import Neighbours
from heads.linear.additive import Additive
from heads.testing import folds_of, make_rows
from heads.trees.reranked import Decision, RerankedNeighbours, decided
from store.metric import smape_log
from tests.fake_rows import QUICK, finds_nothing_in_shuffled_prices, with_one_core

one_core = pytest.fixture(autouse=True, scope="module")(with_one_core)
ROWS, LOG_PRICE = make_rows(240)
FOLD = folds_of(ROWS) % 3


def quick(**params):
    return RerankedNeighbours(**QUICK["reranked-neighbours"] | params)


def test_two_folds_share_a_fit_that_saw_neither_of_them():
    found = crossfit(quick(), ROWS, LOG_PRICE, FOLD)
    held = FOLD == 1
    others = LOG_PRICE.copy()
    others[held] = np.random.default_rng(0).permutation(others[held]) + 3
    without = crossfit(quick(), ROWS, others, FOLD)
    np.testing.assert_allclose(without.oof[held], found.oof[held], atol=1e-9)
    assert np.abs(without.oof[~held] - found.oof[~held]).max() > 0.01


def test_on_shuffled_prices_it_finds_nothing():
    finds_nothing_in_shuffled_prices(quick(), ROWS, LOG_PRICE, FOLD)


def test_product_lines_of_one_price_beside_products_on_their_own_are_priced_better_than_by_either_way():
    rows, log_price = make_rows(360)
    draw, text = np.random.default_rng(1), rows.matrices[0].X.astype(np.float32)
    for start in range(0, 240, 4):
        line = slice(start, start + 4)
        text[line] = 4 * draw.standard_normal(12) + 0.02 * draw.standard_normal((4, 12))
        log_price[line] = draw.normal(4.5, 1.0)
    matrices = (dataclasses.replace(rows.matrices[0], X=text), *rows.matrices[1:])
    rows = dataclasses.replace(rows, matrices=matrices, group=np.arange(len(rows)))
    fold = folds_of(rows) % 3
    of = {
        head.name: smape_log(log_price, crossfit(head, rows, log_price, fold).oof)
        for head in (Additive(tune_rows=100), Neighbours(), quick(n_estimators=60, min_data_in_leaf=20))
    }
    assert of["reranked-neighbours"] < 0.97 * min(of["additive"], of["neighbours"])


def test_what_was_written_predicts_alike():
    head = quick().fit(ROWS, LOG_PRICE)
    files = write_fitted("reranked-neighbours", [head])
    (read,) = read_fitted(
        files.__getitem__, lambda ids: ROWS.subset(pc.index_in(ids, ROWS.sample_id).to_numpy())
    )
    np.testing.assert_allclose(read.predict(ROWS), head.predict(ROWS), atol=1e-9)
    record = json.loads(head.files()["reranked.json"])
    assert Decision(record["temperature"], record["is_candidate"]) == head.decision_
    assert len(record["features"]) == head.boosters_[0].num_feature()


def test_effects_add_up_to_the_price_and_name_the_nearest_rows():
    head = quick().fit(ROWS, LOG_PRICE)
    few = ROWS.subset(np.arange(5))
    found = explain_rows([head], few, 0.0)
    np.testing.assert_allclose(
        [found.base + sum(one.values()) for one in found.parts], head.predict(few), atol=1e-6
    )
    assert all(any(kind == "row" for kind, _ in one) for one in found.parts)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (Decision(0.0, True), 1.0),
        (Decision(1e9, False), 2.0),
        (Decision(1e-6, False), 1.0),
        (Decision(1e9, True), 2.0),
    ],
)
def test_a_price_is_the_best_candidate_or_a_mean_by_expected_errors(decision, expected):
    assert decided(np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, 6.0]]), decision) == pytest.approx(
        [expected]
    )


def test_a_handful_of_rows_is_priced_by_additive():
    few = ROWS.subset(np.arange(6))
    head = quick().fit(few, LOG_PRICE[:6])
    assert head.boosters_ == []
    np.testing.assert_array_equal(head.predict(ROWS), head.below_.predict(ROWS))


def test_rows_of_a_single_group_among_those_ranked_train_the_trees_without_a_choice():
    rows = dataclasses.replace(ROWS, group=np.minimum(np.arange(240), 4))
    head = quick(ranked_rows=8, random_state=3).fit(rows, LOG_PRICE)
    assert len(head.boosters_) == 1
    assert np.isfinite(head.predict(ROWS)).all()


def test_prices_hardly_depend_on_the_number_of_threads(monkeypatch):
    twice = np.r_[np.arange(240), np.arange(60)]  # twins are as near to a row as one another
    rows = dataclasses.replace(ROWS.subset(twice), group=np.arange(300))
    log_price = LOG_PRICE[twice] + np.random.default_rng(0).normal(0, 0.05, 300)
    priced = []
    for threads in (1, 2):
        monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _, n=threads: set(range(n)))
        with threadpool_limits(limits=threads):
            head = quick(n_jobs=threads).fit(rows, log_price)
            priced.append(head.predict(ROWS))
    assert np.abs(priced[1] - priced[0]).mean() < 0.002


@pytest.mark.parametrize("what", ["prices", "vectors", "fields"])
def test_nothing_of_some_rows_of_a_fold_moves_predictions_of_its_other_rows(what):
    rows, log_price = make_rows(240)
    fold, changed, prices = folds_of(rows), rows, log_price.copy()
    held = np.flatnonzero(fold == fold[0])
    some, rest = held[::2], held[1::2]
    if what == "prices":
        prices[some] += 2
    elif what == "vectors":
        matrices = [dataclasses.replace(matrix, X=matrix.X.copy()) for matrix in rows.matrices]
        for matrix in matrices:
            matrix.X[some] = np.random.default_rng(0).normal(size=matrix.X[some].shape)
        changed = dataclasses.replace(rows, matrices=tuple(matrices))
    else:
        X = rows.fields.X.copy()
        X[some] = 3 * X[some] + 1
        changed = dataclasses.replace(rows, fields=dataclasses.replace(rows.fields, X=X))
    before, after = (
        crossfit(RerankedNeighbours(n_estimators=5), one, y, fold).oof
        for one, y in ((rows, log_price), (changed, prices))
    )
    np.testing.assert_array_equal(before[rest], after[rest])
