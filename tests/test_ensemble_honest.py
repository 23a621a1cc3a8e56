from inspect import signature

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from ensemble.calibrate import Calibration, fit_calibration
from ensemble.conformal import crossfitted_coverage, fit_intervals
from ensemble.groups import BOOTSTRAP_DRAWS, bootstrap_interval, expected_interval, gain_and_error
from ensemble.honest import Maker
from ensemble.rivals import METHODS, Rivals
from ensemble.simplex import compositions
from store.metric import smape_log


def heads_of(seed, n_rows=400, spread=(0.2, 0.3, 0.4), n_folds=4, bias=0.0):
    generator = np.random.default_rng(seed)
    log_actual = generator.normal(3, 1, n_rows)
    errors = generator.laplace(0, 1, (n_rows, len(spread))) * np.array(spread)
    group = np.arange(n_rows) // 2
    return log_actual[:, None] + errors + bias, log_actual, group % n_folds, group


@given(seed=st.integers(0, 10_000), n_heads=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_a_blend_is_never_worse_than_its_best_head_on_the_rows_it_was_fitted_on(seed, n_heads):
    spread = np.random.default_rng(seed).uniform(0.1, 1.0, n_heads)
    log_prices, log_actual, fold, group = heads_of(seed, 80, tuple(spread))
    blend = Maker(log_prices, log_actual, fold, group).final()
    of_heads = [smape_log(log_actual, z) for z in log_prices.T]
    assert smape_log(log_actual, blend.log_price(log_prices)) <= min(of_heads) + 1e-9


@pytest.mark.parametrize("k", range(4))
def test_prices_of_a_fold_never_change_what_scores_it(k):
    log_prices, log_actual, fold, group = heads_of(0, bias=0.3)
    before = Maker(log_prices, log_actual, fold, group).nested()
    generator = np.random.default_rng(9)
    changed_prices, changed_actual = log_prices.copy(), log_actual.copy()
    changed_actual[fold == k] = generator.normal(5, 3, (fold == k).sum())
    after = Maker(changed_prices, changed_actual, fold, group).nested()
    np.testing.assert_allclose(before.log_price[fold == k], after.log_price[fold == k], atol=1e-6)
    assert before.blends[k].mix.method == after.blends[k].mix.method
    others = [j for j in range(4) if j != k]
    assert any(
        not np.allclose(before.log_price[fold == j], after.log_price[fold == j], atol=1e-6) for j in others
    )


def test_choosing_among_heads_of_pure_noise_gains_nothing_on_unseen_folds():
    nested, naive, truth = [], [], []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        log_actual = generator.normal(0, 0.5, 120)
        # Every head guesses the truth's middle plus noise of its own: weights can only learn the noise.
        log_prices = generator.normal(0, 0.2, (120, 8))
        fold = np.arange(120) % 4
        maker = Maker(log_prices, log_actual, fold, np.arange(120), METHODS[:1])
        nested.append(smape_log(log_actual, maker.nested().log_price))
        fitted = maker.rivals.fit("grid-geometric", range(4))
        naive.append(smape_log(log_actual, fitted.log_price(log_prices)))
        fresh_actual = generator.normal(0, 0.5, 20_000)
        fresh = generator.normal(0, 0.2, (20_000, 8))
        truth.append(smape_log(fresh_actual, maker.final().log_price(fresh)))
    assert np.mean(naive) < np.mean(truth) - 0.5
    assert np.mean(nested) > np.mean(truth) - 2 * np.std(nested) / np.sqrt(len(nested))


def test_the_plain_average_is_taken_when_equal_heads_leave_only_noise_to_fit():
    taken = 0
    for seed in range(10):
        log_prices, log_actual, fold, group = heads_of(seed, 200, (0.3, 0.3, 0.3))
        taken += Maker(log_prices, log_actual, fold, group).final().mix.method == "average"
    assert taken >= 5


def test_weights_are_taken_when_one_head_is_far_better():
    log_prices, log_actual, fold, group = heads_of(1, 400, (0.05, 0.8, 0.8))
    blend = Maker(log_prices, log_actual, fold, group).final()
    assert blend.mix.method != "average"
    assert blend.mix.weights[0] > 0.8
    assert blend.gain > blend.gain_error > 0


@pytest.mark.parametrize("method", [*METHODS, "average"])
def test_every_rival_shares_out_one_whole_weight_by_its_own_rows_alone(method):
    log_prices, log_actual, fold, _ = heads_of(5)
    mix = Rivals(log_prices, log_actual, fold).fit(method, [0, 2])
    assert mix.weights.sum() == pytest.approx(1)
    assert (mix.weights >= 0).all()
    inside = np.isin(fold, [0, 2])
    alone = Rivals(log_prices[inside], log_actual[inside], fold[inside] // 2).fit(method, [0, 1])
    np.testing.assert_allclose(mix.weights, alone.weights, atol=1e-5)


def test_convex_weights_have_the_least_absolute_log_error_of_the_simplex():
    log_prices, log_actual, fold, _ = heads_of(6)
    weights = Rivals(log_prices, log_actual, fold).fit("convex", range(4)).weights

    def error(w):
        return np.abs(log_prices @ w - log_actual).mean()

    least = min(error(w) for w in compositions(3, 40) / 40)
    assert error(weights) <= least * 1.002


def test_greedy_selection_may_take_a_good_head_again():
    log_prices, log_actual, fold, _ = heads_of(7, spread=(0.1, 0.3, 0.5))
    weights = Rivals(log_prices, log_actual, fold).fit("greedy", range(4)).weights
    assert weights[0] > 0.6
    assert 0 < weights[1] < weights[0]


def test_two_folds_are_enough_for_an_honest_score():
    log_prices, log_actual, fold, group = heads_of(2, n_folds=2)
    nested = Maker(log_prices, log_actual, fold, group).nested()
    assert np.isfinite(nested.log_price).all()
    assert len(nested.blends) == 2


def test_rows_in_another_order_give_the_same_weights():
    log_prices, log_actual, fold, group = heads_of(3)
    order = np.random.default_rng(0).permutation(len(fold))
    one = Maker(log_prices, log_actual, fold, group).final()
    other = Maker(log_prices[order], log_actual[order], fold[order], group[order]).final()
    assert one.mix.method == other.mix.method
    np.testing.assert_allclose(one.mix.weights, other.mix.weights, atol=1e-6)


def test_a_common_bias_of_all_heads_is_corrected_and_helps_unseen_folds():
    log_prices, log_actual, fold, group = heads_of(4, 1000, bias=0.5)
    maker = Maker(log_prices, log_actual, fold, group)
    assert maker.final().calibration.kind != "none"
    plain = maker.final().mix.log_price(log_prices)
    assert smape_log(log_actual, maker.nested().log_price) < smape_log(log_actual, plain) - 5


def test_heads_without_bias_are_left_as_they_are():
    kept = [Maker(*heads_of(seed, 600, (0.02, 0.03, 0.04))).final().calibration.kind for seed in range(6)]
    assert kept.count("none") >= 4


@pytest.mark.parametrize("kind", ["scale", "isotonic"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_calibration_never_turns_prices_over_and_survives_json(kind, seed):
    generator = np.random.default_rng(seed)
    log_price = generator.normal(3, 1, 150)
    fitted = fit_calibration(kind, log_price, 0.8 * log_price + generator.normal(0.2, 0.3, 150))
    assert fitted.kind == kind
    new = np.sort(generator.normal(3, 2, 200))
    corrected = Calibration.from_json(fitted.to_json()).apply(new)
    assert (np.diff(corrected) >= -1e-12).all()
    assert np.isfinite(corrected).all()


@pytest.mark.parametrize("decimals", [1, 9])  # many rows of one price, or none
def test_an_isotonic_calibration_is_that_of_scikit_learn_inside_its_range(decimals):
    generator = np.random.default_rng(0)
    log_price = np.round(generator.normal(3, 1, 400), decimals)
    log_actual = 0.8 * log_price + generator.normal(0.2, 0.3, 400)
    expected = IsotonicRegression(out_of_bounds="clip").fit(log_price, log_actual)
    fitted = fit_calibration("isotonic", log_price, log_actual)
    at = np.linspace(log_price.min(), log_price.max(), 1000)
    np.testing.assert_allclose(fitted.apply(at), expected.predict(at), rtol=1e-12)
    assert len(fitted.before) <= len(expected.X_thresholds_)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_intervals_cover_fresh_rows_as_often_as_they_state(coverage):
    inside = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        log_price = generator.normal(3, 1, 3000)
        noise = np.where(log_price > 3, 0.6, 0.1)  # dear products err by larger factors
        log_actual = log_price + generator.standard_t(3, 3000) * noise
        fitted = fit_intervals(log_price[:1000], log_actual[:1000], coverage)
        error = np.abs(log_price - log_actual)[1000:]
        inside.append(error <= fitted.half_width(log_price[1000:]))
    assert np.mean(inside) == pytest.approx(coverage, abs=0.015)
    dear = np.array(inside)[-1][log_price[1000:] > 3]
    assert dear.mean() == pytest.approx(coverage, abs=0.08)


def test_crossfitted_coverage_counts_rows_that_fitted_nothing():
    generator = np.random.default_rng(0)
    log_price = generator.normal(3, 1, 2000)
    log_actual = log_price + generator.normal(0, 0.2, 2000)
    share, factor = crossfitted_coverage(log_price, log_actual, np.arange(2000) % 5, 0.9)
    assert share == pytest.approx(0.9, abs=0.03)
    assert factor == pytest.approx(np.exp(0.2 * 1.645), rel=0.1)


def test_the_error_of_a_gain_grows_when_rows_come_in_groups():
    generator = np.random.default_rng(0)
    per_group = generator.normal(1, 1, 100)
    rows, group = np.repeat(per_group, 20), np.repeat(np.arange(100), 20)
    mean, error = gain_and_error(rows, group)
    assert mean == pytest.approx(per_group.mean())
    assert error == pytest.approx(per_group.std(ddof=1) / 10)
    assert gain_and_error(rows, np.arange(2000))[1] < error / 3
    low, high = bootstrap_interval(rows, group, seed=1)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert low < mean < high


def test_the_score_of_fresh_rows_falls_into_the_expected_interval_as_often_as_stated():
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        known, fresh = generator.exponential(20, 500), generator.exponential(20, 200)
        low, high = expected_interval(known, np.arange(500), 200)
        hits.append(low <= fresh.mean() <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)


def test_one_group_of_rows_tells_nothing_of_the_error():
    assert gain_and_error(np.ones(5), np.zeros(5))[1] == np.inf


@pytest.mark.parametrize("n_new", [1, 3, 200])
def test_no_expected_interval_leaves_the_scale_of_smape(n_new):
    low, high = expected_interval(np.array([0.5, 1.0, 60.0, 2.0]), np.arange(4), n_new)
    assert low == 0.0
    assert 15.875 < high < 200.0
    assert expected_interval(np.array([190.0, 200.0, 20.0, 199.0]), np.arange(4), n_new)[1] == 200.0
    assert expected_interval(np.array([20.0, 20.0, 80.0]), np.zeros(3), n_new) == (0.0, 200.0)  # one group


def test_an_interval_over_groups_is_that_of_scipys_bootstrap_with_the_same_draws():
    from scipy.stats import bootstrap

    generator = np.random.default_rng(0)
    seeded = (
        "rng" if "rng" in signature(bootstrap).parameters else "random_state"
    )  # as SciPy before 1.15 has it
    group = np.sort(generator.integers(0, 120, 300))
    rows = generator.exponential(20, 300)
    index = np.unique(group, return_inverse=True)[1]
    peer = bootstrap(
        (np.bincount(index, rows), np.bincount(index)),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        n_resamples=BOOTSTRAP_DRAWS,
        batch=50,
        vectorized=True,
        paired=True,
        method="percentile",
        **{seeded: np.random.default_rng(7)},
    ).confidence_interval
    assert bootstrap_interval(rows, group, seed=7) == pytest.approx((peer.low, peer.high), rel=1e-12)
