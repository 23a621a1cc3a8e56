"""Held over every registered head: nothing leaks, nothing is invented, nothing is lost."""

import dataclasses
import functools

import numpy as np
import pytest

from heads.folds.crossfit import crossfit
from heads.registry import HEADS, head_class, make_head
from store.metric import smape_log
from tests.fake_rows import QUICK, fake_rows, folds_of, rows_for, with_one_core

N_ROWS = 400


one_core = pytest.fixture(scope="module", autouse=True)(with_one_core)


@pytest.fixture(params=sorted(HEADS))
def name(request):
    return request.param


def run(name, rows, log_price, fold, test=None):
    rows = rows_for(head_class(name), rows)
    test = None if test is None else rows_for(head_class(name), test)
    return crossfit(make_head(name, QUICK.get(name, {}), seed=1), rows, log_price, fold, test)


@functools.cache
def plain_run(name):
    """What several tests compare with, made once a head: real prices, four folds, test rows."""
    return run(name, *fake_rows(N_ROWS), folds_of(fake_rows(N_ROWS)[0]), fake_rows(200, seed=5)[0])


def test_prices_of_a_fold_do_not_enter_its_own_predictions(name):
    rows, log_price = fake_rows(N_ROWS)
    fold = folds_of(rows)
    changed = log_price.copy()
    held = fold == 2
    changed[held] = np.random.default_rng(9).normal(3, 2, held.sum())
    before, after = plain_run(name).oof, run(name, rows, changed, fold).oof
    # Single precision rounds as memory happens to lie; a price that leaked would move its row by far more.
    np.testing.assert_allclose(before[held], after[held], rtol=0, atol=1e-5)
    assert not np.allclose(before[~held], after[~held])


def test_vectors_fields_and_words_of_a_fold_do_not_enter_predictions_of_its_other_rows(name):
    """Rows of a fold are predicted one by one: a row's neighbours in its fold say nothing about it."""
    rows, log_price = fake_rows(N_ROWS)
    fold = folds_of(rows)
    keep = (fold != 2) | (np.arange(N_ROWS) % 16 < 6)
    whole = plain_run(name).oof
    fewer = run(name, rows.subset(keep), log_price[keep], fold[keep]).oof
    both = keep & (fold == 2)
    gap = np.abs(whole[both] - fewer[fold[keep] == 2])
    # Bin edges of boosted trees are quantiles over all rows, and may move a little.
    assert np.median(gap) < (0.1 if name in ("lightgbm", "xgboost") else 1e-3)


def test_shuffled_prices_leave_no_skill(name):
    rows, log_price = fake_rows(N_ROWS)
    shuffled = np.random.default_rng(3).permutation(log_price)
    fold = folds_of(rows)
    constant = np.array([np.median(shuffled[fold != f]) for f in fold])
    noise = 3 * 200 * np.tanh(np.abs(shuffled - constant) / 2).std() / np.sqrt(N_ROWS)
    assert smape_log(shuffled, run(name, rows, shuffled, fold).oof) > smape_log(shuffled, constant) - noise


def test_real_prices_are_predicted_better_than_by_their_median(name):
    _, log_price = fake_rows(N_ROWS)
    _, test_price = fake_rows(200, seed=5)
    result = plain_run(name)
    median = np.full(N_ROWS, np.median(log_price))
    assert smape_log(log_price, result.oof) < 0.95 * smape_log(log_price, median)
    assert smape_log(test_price, result.test) < 0.95 * smape_log(test_price, median[:200])


def test_row_order_does_not_change_what_a_row_is_predicted(name):
    rows, log_price = fake_rows(N_ROWS)
    fold = folds_of(rows)
    order = np.random.default_rng(4).permutation(N_ROWS)
    one = plain_run(name).oof
    other = run(name, rows.subset(order), log_price[order], fold[order]).oof
    assert np.corrcoef(one[order], other)[0, 1] > 0.9


@pytest.mark.parametrize("fold", [[0, 1, 2, 3], [0, 0, 0, 1, 1, 1]])
def test_the_fewest_rows_that_a_fold_may_leave_are_enough(name, fold):
    rows, log_price = fake_rows(len(fold), no_image=0.5)
    rows = dataclasses.replace(rows, group=np.arange(len(fold)))
    assert np.isfinite(run(name, rows, log_price, np.array(fold), rows).oof).all()


def test_rows_without_any_image_are_predicted(name):
    rows, log_price = fake_rows(N_ROWS, no_image=1.0)
    assert np.isfinite(run(name, rows, log_price, folds_of(rows)).oof).all()


def test_a_fold_whose_rows_alone_have_images_is_predicted(name):
    rows, log_price = fake_rows(N_ROWS, no_image=0.0)
    fold = folds_of(rows)
    image = rows.matrices[1]
    valid = fold == 1
    rows = rows.select([rows.matrices[0].name])
    image = type(image)(image.name, image.X * valid[:, None], valid)
    rows = type(rows)(rows.sample_id, (*rows.matrices, image), rows.fields, rows.texts, rows.group)
    assert np.isfinite(run(name, rows, log_price, fold).oof).all()


def test_the_model_of_a_run_is_saved_without_pickle(name):
    files = plain_run(name).model.files()
    assert all(isinstance(content, bytes) and content for content in files.values())
    assert not any(file.endswith((".pkl", ".pickle", ".joblib")) for file in files)
