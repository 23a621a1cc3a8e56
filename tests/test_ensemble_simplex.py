from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.means import ABSOLUTE_LOG, CURVES, combine
from ensemble.simplex import best_counts, compositions, simplex_size
from ensemble.surface import Surface
from store.metric import smape_log


def heads_of(seed, n_rows=120, n_heads=3, offset=0.1):
    generator = np.random.default_rng(seed)
    log_actual = generator.normal(3, 1, n_rows)
    shared = generator.laplace(0, 0.2, n_rows)
    own = generator.laplace(0, 0.3, (n_rows, n_heads)) + offset * generator.normal(size=n_heads)
    return log_actual[:, None] + shared[:, None] + own, log_actual, generator.integers(0, 3, n_rows)


@given(n_heads=st.integers(1, 5), total=st.integers(1, 12))
def test_the_simplex_has_as_many_points_as_the_binomial_coefficient_says(n_heads, total):
    points = compositions(n_heads, total)
    assert len(points) == simplex_size(n_heads, total) == comb(total + n_heads - 1, n_heads - 1)
    assert (points.sum(axis=1) == total).all()
    assert (points >= 0).all()
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.mark.parametrize("mean", CURVES)
def test_the_surface_scores_a_mean_as_the_metric_does(mean):
    log_prices, log_actual, part = heads_of(0)
    surface = Surface(CURVES[mean], log_prices, log_actual, part)
    weights = np.array([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]])
    expected = [smape_log(log_actual, combine(mean, log_prices, w)) for w in weights]
    np.testing.assert_allclose(surface.evaluate(weights, [0, 1, 2])[0], expected, rtol=1e-12)
    np.testing.assert_allclose(surface.exhaustive(weights, [0, 1, 2]), expected, rtol=1e-12)
    inside = part != 1
    of_two = smape_log(log_actual[inside], combine(mean, log_prices[inside], weights[0]))
    assert surface.evaluate(weights[:1], [0, 2])[0][0] == pytest.approx(of_two)


@pytest.mark.parametrize("curve", [*CURVES.values(), ABSOLUTE_LOG])
def test_the_surface_knows_its_slope(curve):
    log_prices, log_actual, part = heads_of(1)
    surface = Surface(curve, log_prices, log_actual, part)
    point, step = np.array([0.5, 0.3, 0.2]), 1e-6 * np.array([1.0, -1.0, 0.0])
    values, slopes = surface.evaluate(np.stack([point - step, point + step, point]), [0, 1, 2])
    assert slopes[2] @ (2 * step) == pytest.approx(values[1] - values[0], rel=1e-3)


@given(
    seed=st.integers(0, 10_000),
    n_heads=st.integers(1, 4),
    n_rows=st.integers(6, 60),
    offset=st.sampled_from([0.0, 0.3, 3.0]),
    mean=st.sampled_from(sorted(CURVES)),
)
@settings(max_examples=80, deadline=None)
def test_the_search_finds_the_optimum_of_the_whole_grid(seed, n_heads, n_rows, offset, mean):
    log_prices, log_actual, part = heads_of(seed, n_rows, n_heads, offset)
    surface = Surface(CURVES[mean], log_prices, log_actual, part)
    parts = np.unique(part)
    found = best_counts(surface, parts, total=20)
    brute = surface.exhaustive(compositions(n_heads, 20) / 20, parts)
    assert found.proven
    assert found.counts.sum() == 20
    assert found.smape == pytest.approx(brute.min(), abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mean", CURVES)
def test_beyond_four_heads_coarse_to_fine_ends_in_the_same_optimum(seed, mean):
    log_prices, log_actual, part = heads_of(seed, 200, 6)
    surface = Surface(CURVES[mean], log_prices, log_actual, part)
    brute = surface.exhaustive(compositions(6, 12) / 12, [0, 1, 2]).min()
    found = best_counts(surface, [0, 1, 2], total=12)
    assert found.smape == pytest.approx(brute, abs=1e-8)
    assert found.bound <= brute + 1e-8
    walked = best_counts(surface, [0, 1, 2], total=12, max_evaluations=1)
    assert not walked.proven
    assert walked.bound - 1e-8 <= brute <= walked.smape + 1e-9


def test_heads_that_all_say_the_same_end_the_search_at_once():
    log_prices, log_actual, part = heads_of(2, n_heads=1)
    surface = Surface(CURVES["geometric"], np.repeat(log_prices, 4, axis=1), log_actual, part)
    found = best_counts(surface, [0, 1, 2])
    assert found.proven
    assert surface.n_points < 500


@pytest.mark.parametrize("mean", CURVES)
def test_wild_heads_do_not_make_the_search_open_the_whole_grid(mean):
    generator = np.random.default_rng(1)
    log_actual = generator.normal(3, 1, 80)
    spread = generator.uniform(0.1, 1.0, 4)
    log_prices = log_actual[:, None] + generator.laplace(0, 1, (80, 4)) * 2 * spread
    surface = Surface(CURVES[mean], log_prices, log_actual, np.arange(80) % 4)
    for parts in ([0, 1, 2, 3], [1, 2, 3], [0, 2, 3]):
        found = best_counts(surface, parts)
        assert found.proven
        assert found.n_evaluations < simplex_size(4, 100) / 50


@pytest.mark.parametrize("curve", [*CURVES.values(), ABSOLUTE_LOG])
@given(ends=st.tuples(st.floats(-12, 12), st.floats(-12, 12)))
def test_a_tangent_rises_above_the_loss_by_its_overshoot_and_by_no_more(curve, ends):
    low, high = np.sort(curve.coordinate(np.array(ends)))
    x, reach = np.array([(low + high) / 2]), np.array([(high - low) / 2])
    right = curve.coordinate(np.zeros(1))
    inside = np.append(np.linspace(low, high, 101), np.clip(right, low, high))
    loss, slope = curve.loss_and_slope(x.copy())
    highest = (loss + slope * (inside - x) - curve.loss_and_slope(inside.copy())[0]).max()
    assert curve.overshoot(x, reach)[0] == pytest.approx(max(highest, 0.0), abs=1e-9)


def test_prices_that_are_absurd_neither_overflow_nor_hide_the_good_head():
    log_prices, log_actual, part = heads_of(3, n_heads=2)
    log_prices[:, 1] = 1e4
    for curve in CURVES.values():
        found = best_counts(Surface(curve, log_prices, log_actual, part), [0, 1, 2])
        assert np.isfinite(found.smape)
        assert found.weights[0] > 0.5
