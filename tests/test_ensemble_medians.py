"""Weighted medians of head prices."""

from itertools import product

import numpy as np
import pytest

from ensemble.honest import Maker
from ensemble.means import combine
from ensemble.medians import MOST_HEADS, UNITS, Medians, majorities, median_of_heads
from ensemble.rivals import Rivals
from store.metric import smape_log, smape_rows


def prices(seed=0, n_rows=300, n_heads=4):
    """Log prices of heads that are each exactly right in some rows and off in the others, and the true ones."""
    draws = np.random.default_rng(seed)
    actual = draws.normal(3, 1, n_rows)
    off = draws.normal(0, 0.3, (n_rows, n_heads))
    right = draws.random((n_rows, n_heads)) < np.linspace(0.2, 0.6, n_heads)
    return actual[:, None] + np.where(right, 0, off), actual


@pytest.mark.parametrize("n_heads", range(1, 7))
def test_equal_weights_are_the_median(n_heads):
    log_prices = np.random.default_rng(n_heads).normal(size=(200, n_heads)).round(1)  # with ties
    equal = np.full(n_heads, 1 / n_heads)
    np.testing.assert_array_equal(median_of_heads(log_prices, equal), np.median(log_prices, axis=1))
    np.testing.assert_array_equal(combine("median", log_prices, equal), np.median(log_prices, axis=1))


def test_whole_weights_are_that_many_equal_prices():
    log_prices, _ = prices()
    units = np.array([3, 0, 2, 4])
    repeated = np.repeat(log_prices, units, axis=1)
    np.testing.assert_array_equal(median_of_heads(log_prices, units / 9), np.median(repeated, axis=1))


@pytest.mark.parametrize(("n_heads", "n_medians"), [(1, 1), (2, 2), (3, 4), (4, 12), (5, 81)])
def test_there_are_as_many_median_of_headss_as_majorities_of_so_many_voters(n_heads, n_medians):
    found = majorities(n_heads)
    assert found.shape == (n_medians, n_heads)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found[:n_heads].sum(axis=0), 1)  # each head alone comes first
    sets = np.array(list(product([0, 1], repeat=n_heads)))
    for weights in found:
        wins = {tuple(one) for one in sets[sets @ weights > 0.5].tolist()}
        for head in np.flatnonzero(weights):  # has a say: some set wins with it and loses without
            assert any(one[head] and (*one[:head], 0, *one[head + 1 :]) not in wins for one in wins), weights


@pytest.mark.parametrize("n_heads", [2, 3, 4, 5])
def test_no_weights_have_a_better_median_than_the_best_that_is_found(n_heads):
    log_prices, actual = prices(n_heads=n_heads)
    part = np.arange(len(actual)) % 3
    found = Medians(log_prices, actual, part).best([0, 2])
    here = part != 1
    score = smape_log(actual[here], median_of_heads(log_prices[here], found))
    draws = np.random.default_rng(0)
    for weights in draws.dirichlet(np.ones(n_heads), 300):
        assert score <= smape_log(actual[here], median_of_heads(log_prices[here], weights)) + 1e-9


def test_of_many_heads_the_best_ones_are_weighed():
    log_prices, actual = prices(n_heads=9)
    weights = Medians(log_prices, actual, np.zeros(len(actual), int)).best([0])
    smape = np.array([smape_rows(actual, one).mean() for one in log_prices.T])
    assert weights.sum() == pytest.approx(1)
    assert set(np.flatnonzero(weights)) <= set(np.argsort(smape)[:MOST_HEADS])
    assert np.allclose(weights * UNITS, (weights * UNITS).round())


def test_prices_of_other_parts_do_not_change_the_weights():
    log_prices, actual = prices()
    part = np.arange(len(actual)) % 3
    before = Rivals(log_prices, actual, part).fit("weighted-median", [0, 1]).weights
    changed = np.where(part == 2, actual[::-1] + 5, actual)
    np.testing.assert_array_equal(
        Rivals(log_prices, changed, part).fit("weighted-median", [0, 1]).weights, before
    )


def test_heads_that_are_often_exactly_right_are_blended_by_a_median_of_heads():
    log_prices, actual = prices(n_rows=1500)
    maker = Maker(log_prices, actual, np.arange(1500) % 5, np.arange(1500))
    blend = maker.final()
    assert (blend.mix.method, blend.mix.mean) == ("weighted-median", "median")
    assert np.isclose(blend.log_price(log_prices)[:, None], log_prices).any(axis=1).all()
    inner = blend.inner_smape
    assert inner["weighted-median"] < min(
        smape for method, smape in inner.items() if method != "weighted-median"
    )
