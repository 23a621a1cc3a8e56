"""The score that is expected of test rows: weighed by their relatives in train, and of a model of all rows."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ensemble.blend import make_record
from ensemble.calibrate import NONE
from ensemble.conformal import (
    Intervals,
    RowKinds,
    coverage_by_kind,
    crossfitted_intervals,
    fit_intervals,
    interval_score,
    latest_of,
)
from ensemble.expected import CurveLoss, expect, extrapolation, recency
from ensemble.honest import Blend, Nested
from ensemble.inputs import CurveRows, TrainingRows
from ensemble.outlook import outlook
from ensemble.rivals import Mix
from ensemble.score import _rows, honest_score
from heads.registry import learning_exponent
from store.metric import smape_rows


def losses(seed, n, share_with, with_relative=10.0, alone=30.0):
    """Percent and level of rows, some with a relative and then easier."""
    draws = np.random.default_rng(seed)
    level = 2 * (draws.random(n) < share_with)
    return draws.gamma(2, np.where(level == 2, with_relative, alone) / 2), level


def expected_of(loss, level, shares, *, curve=None, n_new=400, **options):
    return expect(loss, level, shares, np.arange(len(loss)), curve, n_new, 0.95, **options)


def test_the_expected_score_is_that_of_the_test_rows_and_lies_in_its_interval_as_often_as_stated():
    off, inside, widths = [], [], []
    for seed in range(300):
        loss, level = losses(seed, 1500, 0.4)
        new, of_new = losses(1000 + seed, 400, 0.8)  # a test set with more relatives in train
        shares = [(of_new == at).mean() for at in range(3)]
        found = expected_of(loss, level, shares)
        off.append(found.smape - new.mean())
        inside.append(found.interval[0] <= new.mean() <= found.interval[1])
        widths.append(found.interval[1] - found.interval[0])
    assert abs(np.mean(off)) < 0.15
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert np.mean(widths) < 4


def test_rows_of_a_level_that_no_training_row_has_count_as_the_next_one_and_are_told():
    loss, level = losses(0, 500, 0.0)
    found = expected_of(loss, level, [0.7, 0.0, 0.3])
    assert found.smape == pytest.approx(loss.mean())
    assert found.unscored == pytest.approx(0.3)
    assert expected_of(loss, level, [1.0, 0.0, 0.0]).unscored == 0


def test_the_few_rows_of_a_rare_level_are_pooled_with_the_next_one():
    level = np.repeat([0, 1, 2], [200, 60, 15])
    loss = np.array([30.0, 24.0, 4.0])[level]
    found = expected_of(loss, level, [0.8, 0.1, 0.1])
    assert found.smape == pytest.approx(0.8 * 30 + 0.2 * 20)  # (60 x 24 + 15 x 4) / 75 = 20
    assert found.unscored == pytest.approx(0.1)
    assert found.n_scored == 275
    untouched = expected_of(
        loss, level, [0.8, 0.2, 0.0]
    )  # the test set has no such rows: they say nothing of it
    assert untouched.smape == pytest.approx(0.8 * 30 + 0.2 * 24)


def test_a_learning_curve_takes_off_what_the_missing_fold_is_worth_and_widens_the_interval_little():
    draws = np.random.default_rng(0)
    loss = draws.gamma(2, 10, 2000)
    rows = draws.random(2000) < 0.5
    sample = loss[rows] * 1.1 + draws.normal(0, 2, rows.sum())
    curve = CurveLoss(rows, loss[rows], sample, beyond=0.25)
    level = np.zeros(2000, int)
    plain, corrected = (expected_of(loss, level, [1, 0, 0], curve=one) for one in (None, curve))
    assert plain.size_factor == 1
    assert corrected.size_factor == pytest.approx(1 - 0.1 * 0.25, abs=0.005)
    assert corrected.smape == pytest.approx(corrected.size_factor * loss.mean())
    width, before = (np.ptp(one.interval) for one in (corrected, plain))
    assert 0.9 * before < width < 1.05 * before
    worse = CurveLoss(rows, loss[rows], loss[rows] * 0.9, 0.25)  # noise: more rows never make the score worse
    assert expected_of(loss, level, [1, 0, 0], curve=worse).size_factor == 1


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("remaining", [0.0, 12.0])
@pytest.mark.parametrize("exponent", [0.35, 0.7, 1.0])
def test_a_fall_towards_what_remains_is_extrapolated_exactly(share, remaining, exponent):
    error = {size: remaining + 3 * size**-exponent for size in (0.8 * share, 0.8, 1.0)}
    fall = error[0.8 * share] - error[0.8]
    assert error[0.8] - extrapolation(share, 5, exponent) * fall == pytest.approx(error[1.0])


def test_an_exponent_of_0_is_the_same_fall_with_each_doubling():
    error = {size: 20 - 3 * np.log2(size) for size in (0.4, 0.8, 1.0)}
    fall = error[0.4] - error[0.8]
    assert error[0.8] - extrapolation(0.5, 5, 0.0) * fall == pytest.approx(error[1.0])
    assert extrapolation(0.5, 5, 0.0) == pytest.approx(extrapolation(0.5, 5, 1e-6), abs=1e-5)
    assert extrapolation(0.5, 10, 0.0) < extrapolation(0.5, 5, 0.7) < extrapolation(0.5, 5, 0.0)


@pytest.mark.parametrize(
    ("head", "exponent"),
    [("ridge", 0.7), ("neighbours", 0.0), ("reranked-neighbours", 0.0), ("no-such", 0.7)],
)
def test_a_head_says_how_its_error_falls(head, exponent):
    assert learning_exponent(head) == exponent


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_missing_fold_is_worth_what_it_is_to_each_head_by_its_weight(weight):
    draws, n_rows = np.random.default_rng(0), 400
    actual, sampled = draws.normal(3, 1, n_rows), np.arange(n_rows) % 2 == 0
    off = draws.normal(0, 0.1, n_rows)
    both = np.stack([actual + off] * 2, axis=1)  # heads that price alike
    curve = CurveRows(
        sampled,
        ("neighbours", "ridge"),
        np.stack([actual + 1.2 * off] * 2, axis=1)[sampled],
        np.zeros(n_rows // 2, int),
        share=0.5,
        exponents=(0.0, 0.7),
    )
    blend = Blend(Mix("convex", "geometric", np.array([weight, 1 - weight])), NONE, {}, 0.0, 0.0)
    rows = TrainingRows(
        pa.array(map(str, range(n_rows))),
        curve.heads,
        both,
        actual,
        np.arange(n_rows) % 5,
        np.arange(n_rows),
        100,
        curve=curve,
    )
    loss = smape_rows(actual, both[:, 0])
    found = outlook(rows, Nested(both[:, 0], (blend,) * 5), loss, -5.0, 0.95)["test"]
    beyond = weight * extrapolation(0.5, 5, 0.0) + (1 - weight) * extrapolation(0.5, 5, 0.7)
    assert found["size_factor"] == pytest.approx(1 - 0.2 * beyond, abs=1e-3)


def test_what_a_row_counts_decides_the_score():
    loss = np.array([10.0] * 100 + [30.0] * 100)
    weight = np.array([3.0] * 100 + [1.0] * 100)
    found = expected_of(loss, np.zeros(200, int), [1, 0, 0], row_weight=weight)
    assert found.smape == pytest.approx(15)


def test_plain_arrays_expect_what_their_rows_score():
    draws = np.random.default_rng(0)
    log_price = draws.normal(3, 1, 300)
    heads = {name: log_price + draws.normal(0, 0.3, 300) for name in ("a", "b")}
    score = honest_score(heads, log_price, np.arange(300) % 5)
    expected = score.record["scores"]["expected"]
    assert expected["test"]["smape"] == pytest.approx(score.smape)
    assert expected["without_relative"] is None
    assert score.expected == pytest.approx(score.smape)


def blocks_of(seed, drift):
    """Losses of four blocks in order of time and of the next one, whose means wander by `drift` percent."""
    draws = np.random.default_rng(seed)
    mean = 20 * np.exp(np.cumsum(draws.normal(0, drift, 5)))
    loss = draws.gamma(2, mean[np.arange(5 * 120) // 120] / 2)
    return loss[:480], np.arange(480) // 120, loss[480:]


@pytest.mark.parametrize(("drift", "least"), [(0.0, 0.93), (0.15, 0.85), (0.4, 0.85)])
def test_the_score_after_the_last_block_lies_in_the_interval_however_far_blocks_are_apart(drift, least):
    inside, before, widths, off = [], [], [], []
    for seed in range(300):
        loss, block, new = blocks_of(seed, drift)
        level = np.zeros(len(loss), int)
        plain = expected_of(loss, level, [1, 0, 0], n_new=120)
        found = expected_of(loss, level, [1, 0, 0], n_new=120, row_weight=recency(block), block=block)
        inside.append(found.interval[0] <= new.mean() <= found.interval[1])
        before.append(plain.interval[0] <= new.mean() <= plain.interval[1])
        widths.append(np.ptp(found.interval) / np.ptp(plain.interval))
        off.append([abs(one.smape - new.mean()) for one in (plain, found)])
    assert np.mean(inside) >= least
    if drift:
        assert np.mean(before) < 0.7
        assert np.mean(off, axis=0)[1] < np.mean(off, axis=0)[0]
    else:
        assert np.median(widths) < 1.2


def test_products_without_a_relative_have_a_score_of_their_own_only_where_enough_rows_tell_it():
    draws = np.random.default_rng(0)
    log_price = draws.normal(3, 1, 400)
    rows = replace(
        _rows({"a": log_price + draws.normal(0, 0.3, 400)}, log_price, np.arange(400) % 5, None, "log_price"),
        n_test=90,
        test_level=np.arange(90) % 3,
    )
    inputs = {"seed": 0, "coverage": 0.9}
    for n_alone, is_told in ((19, False), (20, True)):
        level = np.where(np.arange(400) < n_alone, 0, 1 + np.arange(400) % 2)
        expected = make_record(replace(rows, level=level), inputs)[0]["scores"]["expected"]
        assert (expected["without_relative"] is not None) == is_told
        assert expected["test"]["unscored"] == pytest.approx(0 if is_told else 1 / 3)


# ---- intervals per row ---------------------------------------------------------------------------


def rows_of_kinds(seed, n=4000):
    """Rows whose error follows their price, their relatives, their image, and how far heads are apart."""
    draws = np.random.default_rng(seed)
    log_price, level = draws.normal(3, 1, n), 2 * draws.integers(0, 2, n)
    has_image, hard = draws.random(n) < 0.7, np.exp(draws.normal(0, 0.5, n))
    scale = (
        0.2
        * hard
        * np.where(level == 2, 0.4, 1)
        * np.where(has_image, 1, 1.6)
        * np.exp(0.2 * log_price - 0.6)
    )
    spread = 0.5 * hard * np.exp(draws.normal(0, 0.2, n)) * 0.2
    return log_price, log_price + draws.laplace(0, scale), RowKinds(spread, level, has_image)


def test_row_intervals_hold_in_each_kind_of_rows_and_are_sharper_than_bands_of_price_alone():
    log_price, log_actual, kinds = rows_of_kinds(0)
    fresh, actual, of_fresh = rows_of_kinds(1)
    fitted = fit_intervals(log_price, log_actual, 0.9, kinds)
    plain = fit_intervals(log_price, log_actual, 0.9)
    inside = np.abs(fresh - actual) <= fitted.half_width(fresh, of_fresh)
    shares = coverage_by_kind(inside, fresh, of_fresh)
    assert len(shares) == 8
    assert {kind: share for kind, share in shares.items() if abs(share - 0.9) > 0.03} == {}
    by_bands = coverage_by_kind(np.abs(fresh - actual) <= plain.half_width(fresh), fresh, of_fresh)
    assert by_bands["without a relative"] < 0.87
    widths = fitted.half_width(fresh, of_fresh), plain.half_width(fresh)
    scores = [interval_score(width, fresh - actual, 0.9) for width in widths]
    assert scores[0] < 0.9 * scores[1]
    assert np.median(widths[0]) < 0.9 * np.median(widths[1])


def test_no_row_is_inside_by_an_interval_that_it_was_fitted_on():
    log_price, log_actual, kinds = rows_of_kinds(0, 1000)
    fold = np.arange(1000) % 5
    _, before = crossfitted_intervals(log_price, log_actual, fold, 0.9, kinds)
    wild = np.where(fold == 3, log_actual + 5, log_actual)
    _, after = crossfitted_intervals(log_price, wild, fold, 0.9, kinds)
    np.testing.assert_array_equal(before[fold == 3], after[fold == 3])
    assert (after[fold != 3] > before[fold != 3]).mean() > 0.9


def test_row_intervals_of_folds_in_order_of_time_hold_on_the_next_one_and_are_measured_by_earlier_ones_alone():
    draws = np.random.default_rng(0)
    fold, log_price = np.arange(2500) // 500, draws.normal(3, 1, 2500)
    log_actual = log_price + draws.laplace(0, 0.1 * (1 + fold))  # later rows are ever harder
    known, new = fold < 4, fold == 4
    covered = {}
    for name, latest in (("alike", None), ("by the latest", latest_of(fold[known]))):
        fitted = fit_intervals(log_price[known], log_actual[known], 0.9, latest=latest)
        covered[name] = (np.abs(log_price - log_actual) <= fitted.half_width(log_price))[new].mean()
    assert covered["alike"] < 0.78
    assert covered["by the latest"] == pytest.approx(1 - 0.1**0.8, abs=0.04)  # of rows a quarter harder
    inside, half_width = crossfitted_intervals(log_price, log_actual, fold, 0.9, looks_back=True)
    assert np.isnan(half_width[fold == 0]).all()
    assert inside[new].mean() == covered["by the latest"]
    wild = np.where(new, log_actual + 5, log_actual)
    _, after = crossfitted_intervals(log_price, wild, fold, 0.9, looks_back=True)
    np.testing.assert_array_equal(half_width, after)


def test_intervals_survive_json_with_their_limits_and_those_of_older_blends_are_read():
    log_price, log_actual, kinds = rows_of_kinds(0, 1000)
    fitted = fit_intervals(log_price, log_actual, 0.9, kinds, limits=(2.9, 3.1))
    again = Intervals.from_json(fitted.to_json() | {"measured_coverage": 0.9})
    assert again == fitted
    low, high = again.bounds(log_price, kinds)
    assert (low <= log_price).all()
    assert (high >= log_price).all()
    near = np.abs(log_price - 3) < 0.1
    assert (low[near].min(), high[near].max()) == (2.9, 3.1)
    old = Intervals.from_json({"coverage": 0.9, "edges": [3.0], "half_widths": [0.1, 0.2]})
    assert old.half_width(np.array([2.0, 4.0])).tolist() == [0.1, 0.2]
    assert again.half_width(log_price).shape == log_price.shape  # of rows of which nothing more is known


@pytest.mark.parametrize("n_rows", [3, 20, 100])
def test_few_rows_and_equal_prices_have_intervals_as_well(n_rows):
    log_price = np.full(n_rows, 3.0)
    fitted = fit_intervals(log_price, log_price + np.linspace(-1, 1, n_rows), 0.9, RowKinds(np.zeros(n_rows)))
    assert np.isfinite(fitted.half_width(log_price)).all()
