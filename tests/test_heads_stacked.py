"""`stacked`: its second level learns from prices that no row took part in, and from nothing else."""

import json

import numpy as np
import pyarrow.compute as pc
import pytest

from heads.fitted import read_fitted, write_fitted
from heads.folds.crossfit import crossfit
from heads.folds.nested import inner_cells
from heads.kernels.kernel_ridge import KernelRidge
from heads.linear.additive import Additive
from heads.testing import folds_of, make_rows
from heads.trees.stacked import Stacked
from store.metric import smape_log
from tests.fake_rows import QUICK, finds_nothing_in_shuffled_prices, with_one_core

one_core = pytest.fixture(autouse=True, scope="module")(with_one_core)
ROWS, LOG_PRICE = make_rows(300)


def quick(**params):
    return Stacked(**QUICK["boosted"] | params)


def test_the_second_level_sees_prices_of_heads_that_were_fitted_without_the_inner_fold():
    head = quick()
    cell = inner_cells(ROWS.group, head.n_inner_folds)
    below = head._fit_below(ROWS, LOG_PRICE, cell)
    held, inside = np.flatnonzero(cell == 0), np.flatnonzero(cell != 0)
    others = LOG_PRICE.copy()
    others[held] = np.random.default_rng(0).permutation(others[held]) + 3
    without = head._fit_below(ROWS, others, cell)
    np.testing.assert_allclose(without[held], below[held], atol=1e-5)
    assert np.abs(without[inside] - below[inside]).max() > 0.01
    assert (
        np.corrcoef(below[:, 0], LOG_PRICE)[0, 1]
        < np.corrcoef(Additive().fit(ROWS, LOG_PRICE).predict(ROWS), LOG_PRICE)[0, 1]
    ), "fitted on the very rows, prices would be closer"


def test_on_shuffled_prices_it_finds_nothing():
    finds_nothing_in_shuffled_prices(quick(), ROWS, LOG_PRICE, folds_of(ROWS))


def test_a_step_that_sums_and_kernels_smooth_over_is_left_to_the_trees():
    size = np.nan_to_num(ROWS.fields.X[:, 0], nan=4.0)
    brand = ROWS.fields.categories["fact:brand"].codes
    log_price = (
        2 + np.where((size > 4) & (brand > 3), 1.0, 0.0) + np.where((size < 3.5) & (brand % 2 == 0), 0.7, 0)
    )
    fold = folds_of(ROWS)
    of = {
        head.name: smape_log(log_price, crossfit(head, ROWS, log_price, fold).oof)
        for head in (Additive(), KernelRidge(), quick(n_estimators=200, learning_rate=0.1))
    }
    assert of["stacked"] < 0.95 * min(of["additive"], of["kernel-ridge"])


def test_without_kernels_one_head_is_below_and_what_was_written_predicts_alike():
    head = quick(kernels=False).fit(ROWS, LOG_PRICE)
    assert [one.name for one in head.below_] == ["additive"]
    files = write_fitted("stacked", [head])
    (read,) = read_fitted(files.__getitem__, lambda ids: ROWS.subset(pc.index_in(ids, ROWS.sample_id)))
    np.testing.assert_allclose(read.predict(ROWS), head.predict(ROWS), atol=1e-9)
    record = json.loads(head.files()["boosted.json"])
    assert record["iterations"] == head.iterations_


def test_a_handful_of_rows_has_no_second_level():
    few = ROWS.subset(np.arange(6))
    head = quick().fit(few, LOG_PRICE[:6])
    assert head.below_ == []
    assert np.isfinite(head.predict(ROWS)).all()
