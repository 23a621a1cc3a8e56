import dataclasses

import numpy as np
import pytest

from heads.base import Head
from heads.folds.crossfit import crossfit
from heads.kernels.gaussian_process import GaussianProcess
from heads.kernels.kernel_ridge import solve
from heads.linear.additive import Additive
from heads.linear.ridge import Ridge
from heads.linear.variances import solve_blocks
from heads.registry import HEADS, make_head
from heads.testing import folds_of, make_rows
from store.metric import smape_log
from tests.fake_rows import QUICK, with_one_core

one_core = pytest.fixture(autouse=True, scope="module")(with_one_core)

ROWS, LOG_PRICE = make_rows(200)
NEW, NEW_PRICE = make_rows(150, seed=5)
WRONG = np.random.default_rng(1).random(200) < 0.4
WRONG_PRICE = np.where(WRONG, LOG_PRICE + 1.5, LOG_PRICE)


@dataclasses.dataclass(kw_only=True, eq=False)
class Witness(Head):
    """Predicts the mean, and says what it was fitted on; it takes no weights."""

    name = "witness"
    summary = "for tests"

    def _fit(self, rows, log_price):
        assert rows.weight is None
        self.mean_, self.ids_ = float(log_price.mean()), rows.sample_id.to_pylist()

    def _predict(self, rows):
        return np.full(len(rows), self.mean_)


def test_every_head_but_the_pretrained_one_takes_weights():
    assert [name for name in HEADS if not type(make_head(name, {}, 0)).takes_weights] == ["tabicl"]


@pytest.mark.parametrize(("name", "loss"), [("lightgbm", "smape"), ("xgboost", "mse-log")])
def test_weights_reach_the_objectives_that_are_ours(name, loss):
    head = make_head(name, {**QUICK[name], "loss": loss}, 0)
    rows = dataclasses.replace(ROWS, weight=np.where(WRONG, 0.02, 1.0))
    of_weights = head.fit(rows, WRONG_PRICE).predict(NEW)
    assert smape_log(NEW_PRICE, of_weights) < smape_log(NEW_PRICE, head.fit(ROWS, WRONG_PRICE).predict(NEW))


def test_a_row_of_twice_the_weight_is_two_rows():
    times = 1 + np.arange(200) % 2
    twice = np.repeat(np.arange(200), times)
    repeated = Ridge(n_alphas=1, alpha_min=0.01).fit(ROWS.subset(twice), LOG_PRICE[twice]).predict(NEW)
    weighted = dataclasses.replace(ROWS, weight=times.astype(float))
    found = Ridge(n_alphas=1, alpha_min=0.01).fit(weighted, LOG_PRICE).predict(NEW)
    np.testing.assert_allclose(found, repeated, atol=1e-6)
    X, target = np.random.default_rng(0).normal(size=(200, 7)), LOG_PRICE - LOG_PRICE.mean()
    kernel, there = X @ X.T, np.ix_(twice, twice)
    for one, both in (
        (
            solve_blocks([X], [1.0], target, times.astype(float))[0][0],
            solve_blocks([X[twice]], [1.0], target[twice], np.ones(len(twice)))[0][0],
        ),
        (
            X.T @ GaussianProcess(huber_bend=0)._solve(kernel, target, 1 / times),
            X[twice].T
            @ GaussianProcess(huber_bend=0)._solve(kernel[there], target[twice], np.ones(len(twice))),
        ),
        (
            X.T @ solve(kernel.copy(), target, 0.3 / times, "a"),
            X[twice].T @ solve(kernel[there], target[twice], 0.3, "a"),
        ),
    ):
        np.testing.assert_allclose(one, both, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("head", [Additive(), GaussianProcess()], ids=lambda head: head.name)
def test_weights_leave_the_variances_of_parts_about_as_they_are(head):
    weight = np.random.default_rng(2).uniform(0.5, 2.0, 200)
    rows = dataclasses.replace(ROWS, weight=weight)
    plain, weighted = (crossfit(head, one, LOG_PRICE, folds_of(ROWS)) for one in (ROWS, rows))
    for before, after in zip(plain.learned, weighted.learned, strict=True):
        for kind in before:
            ratios = [after[kind][part] / value for part, value in before[kind].items()]
            assert 0.2 < min(ratios) <= max(ratios) < 5
    assert smape_log(LOG_PRICE, weighted.oof) < 1.1 * smape_log(LOG_PRICE, plain.oof)


def test_a_head_without_weights_is_fitted_on_rows_repeated_in_proportion_and_at_least_once():
    weight = np.ones(200)
    weight[:10], weight[10:110] = 1000.0, 0.01
    fitted = Witness().fit(dataclasses.replace(ROWS, weight=weight), LOG_PRICE)
    times = [fitted.ids_.count(one) for one in ROWS.sample_id.to_pylist()]
    assert min(times) == 1
    assert sum(times[:10]) == pytest.approx(10 * 2 * 1000 / weight.mean(), abs=1)
    equal = Witness().fit(dataclasses.replace(ROWS, weight=np.full(200, 0.1)), LOG_PRICE)
    assert equal.ids_ == ROWS.sample_id.to_pylist()
