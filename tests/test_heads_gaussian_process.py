from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from heads.contributions import explain_rows
from heads.features.ranks import FieldRanks
from heads.features.rows import CategoricalColumn, FieldTable
from heads.folds.crossfit import crossfit
from heads.kernels.gaussian_process import GaussianProcess
from heads.kernels.relevance import FIELDS, FIELDS_AND_WORDS, Evidence, Relevance, rational_quadratic
from heads.linear.additive import Additive
from heads.testing import folds_of, make_rows
from store.metric import smape_log
from tests.fake_rows import with_one_core

one_core = pytest.fixture(scope="module", autouse=True)(with_one_core)


def rooms(n_rows=300, seed=0):
    """Rows whose price is a bump over two numbers, higher in one kind of room; three more fields say nothing."""
    rng = np.random.default_rng(seed)
    rows, _ = make_rows(n_rows)
    X, kind = rng.uniform(-1, 1, (n_rows, 5)), rng.integers(0, 2, n_rows)
    fields = FieldTable(
        ("north", "east", "a", "b", "c"), X, {"categorical:kind": CategoricalColumn(("hall", "room"), kind)}
    )
    names = np.array([("hall", "room")[k] for k in kind], dtype=object)
    rows = replace(rows, matrices=(), fields=fields, texts={"full": names, "name": names})
    bump = np.exp(-3 * (X[:, 0] ** 2 + X[:, 1] ** 2))
    return rows, 3 + 2 * bump * (1 + kind) + rng.normal(0, 0.05, n_rows)


def test_a_price_that_is_no_sum_over_fields_is_learned_and_fields_that_say_nothing_get_no_precision():
    rows, log_price = rooms()
    found = crossfit(GaussianProcess(), rows, log_price, folds_of(rows), rows.subset(np.arange(9)))
    of_sum = crossfit(Additive(), rows, log_price, folds_of(rows))
    assert smape_log(log_price, found.oof) < 0.5 * smape_log(log_price, of_sum.oof)
    precision = found.learned[0]["precision"]
    assert min(precision["north"], precision["east"]) > 10 * max(precision[name] for name in "abc")
    assert found.model.learned() == Relevance.mean(found.learned).to_json()  # nothing is searched again
    assert found.test is not None
    assert found.test.shape == (9,)


def test_rows_far_off_count_less():
    rows, log_price = rooms()
    wrong = log_price.copy()
    wrong[::12] += 3.0
    fold = folds_of(rows)
    errors = [
        smape_log(log_price, crossfit(GaussianProcess(huber_bend=bend), rows, wrong, fold).oof)
        for bend in (0.0, 1.0)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_slopes_of_the_marginal_likelihood_are_those_of_its_values():
    rng = np.random.default_rng(0)
    n, X = 40, rng.normal(size=(40, 3))
    words = np.clip(rng.normal(size=(n, 6)), 0, None)
    evidence = Evidence(
        {"numbers": X @ X.T},
        X,
        np.array([0, 1, 1]),
        ["size", "kind"],
        words @ words.T,
        X[:, 0] + rng.normal(0, 0.3, n),
        rng.uniform(0.5, 2.0, n),
        0.1,
    )

    def value(logs):
        return evidence._objective(logs)[0]

    def slope(logs):
        return evidence._objective(logs)[1]

    at = np.array([0.3, -0.5, 0.2, -1.0, 0.4])
    assert check_grad(value, slope, at) < 1e-3 * np.linalg.norm(slope(at))
    found = evidence.find()
    assert found.local.keys() == {FIELDS, FIELDS_AND_WORDS}
    values = [one for kind in (found.linear, found.local, found.precision) for one in kind.values()]
    assert value(np.log(values)) < value(at)


def test_ranks_keep_a_sentinel_near_and_tell_a_missing_number_and_a_rare_level():
    n_rows = 100
    rows, _ = make_rows(n_rows)
    X = np.column_stack([np.arange(n_rows, dtype=float), np.full(n_rows, 7.0)])
    X[-1, 0], X[0, 0] = 1e9, np.nan
    codes = np.array([0] * 50 + [1] * 48 + [2] * 2)
    fields = FieldTable(
        ("size", "same"), X, {"kind": CategoricalColumn(("cup", "pot", "rare"), codes.astype(np.int32))}
    )
    rows = replace(rows, fields=fields)
    ranks = FieldRanks().fit(rows)
    columns = ranks.transform(rows)
    assert ranks.names_ == ["size", "kind"]
    assert ranks.owner_.tolist() == [0, 0, 1, 1]
    size = columns[1:, 0]
    np.testing.assert_allclose(np.diff(size), size[1] - size[0])
    assert columns[0, :2].tolist() == [0.0, 1.5]
    assert columns[[0, 60, 99], 2:].tolist() == [[1, 0], [0, 1], [0, 0]]
    near = rational_quadratic(columns[:5], columns, np.ones(4))
    apart = ((columns[:5, None] - columns[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(near, 1 / (1 + apart / 2), atol=1e-12)


def test_more_rows_than_are_learned_from_are_sampled_and_rows_alike_cost_the_mean():
    rows, log_price = rooms(120)
    head = GaussianProcess(most_rows=50, tune_rows=40).fit(rows, log_price)
    assert head.held_.shape[0] == 50
    assert smape_log(log_price, head.predict(rows)) < smape_log(log_price, np.full(120, log_price.mean()))
    same = np.array([""] * 120, dtype=object)
    bare = replace(rows, fields=FieldTable((), np.empty((120, 0))), texts={"full": same, "name": same})
    np.testing.assert_allclose(
        GaussianProcess(huber_bend=0).fit(bare, log_price).predict(bare), log_price.mean(), rtol=1e-3
    )


def test_parts_by_word_number_category_and_similar_rows_add_up_to_the_log_price():
    rows, log_price = rooms()
    head = GaussianProcess().fit(rows, log_price)
    asked = rows.subset(np.arange(20))
    found = explain_rows([head], asked, 3.0)
    sums = [found.base + sum(parts.values()) for parts in found.parts]
    np.testing.assert_allclose(sums, head.predict(asked), atol=1e-6)
    assert {"similar", "number", "category"} <= {kind for parts in found.parts for kind, _ in parts}
