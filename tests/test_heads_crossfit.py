import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from heads.base import Head
from heads.folds.crossfit import cross_predict, crossfit
from heads.linear.ridge import Ridge
from heads.registry import head_class, make_head
from heads.testing import folds_of, make_rows, rows_for
from heads.trees.lightgbm import LightGBM
from store.errors import HeadError, RowMismatchError
from store.folds.assign import decide_folds
from store.metric import smape_scorer
from tests.fake_rows import QUICK


@dataclass(kw_only=True, eq=False)
class Mean(Head):
    """Predicts the mean of its training rows plus a shift that it learned."""

    name = "mean"
    summary = "the mean"
    shift: float = 0.0

    def _fit(self, rows, log_price):
        self.mean_ = log_price.mean() + self.shift

    def _predict(self, rows):
        return np.full(len(rows), self.mean_)

    def learned(self):
        return {"mean": self.mean_}

    def for_refit(self, learned):
        return Mean(shift=float(len(learned)))


class Average(Mean):
    test_mode = "average"


class Diverging(Mean):
    def _predict(self, rows):
        return np.where(np.arange(len(rows)) == 3, np.inf, self.mean_)


class Leaping(Average):
    def _predict(self, rows):
        return np.where(np.arange(len(rows)) == 3, 1e300, self.mean_)


ROWS, LOG_PRICE = make_rows(80)
FOLD = folds_of(ROWS)


def test_each_fold_is_predicted_by_a_head_that_saw_the_others():
    oof = crossfit(Mean(), ROWS, LOG_PRICE, FOLD).oof
    for fold in range(4):
        np.testing.assert_allclose(oof[fold == FOLD], LOG_PRICE[fold != FOLD].mean())


def test_test_rows_come_from_a_refit_that_knows_what_the_folds_learned():
    result = crossfit(Mean(), ROWS, LOG_PRICE, FOLD, ROWS)
    np.testing.assert_allclose(result.test, LOG_PRICE.mean() + 4)
    assert len(result.learned) == 4


def test_no_prediction_is_beyond_ten_times_the_prices_that_it_was_learned_from():
    result = crossfit(Leaping(), ROWS, LOG_PRICE, FOLD, ROWS)
    for fold in range(4):
        assert result.oof[fold == FOLD].max() == LOG_PRICE[fold != FOLD].max() + np.log(10)
    assert result.test.max() == LOG_PRICE.max() + np.log(10)


def test_a_head_that_averages_takes_the_mean_of_its_fold_models():
    result = crossfit(Average(), ROWS, LOG_PRICE, FOLD, ROWS)
    means = [LOG_PRICE[fold != FOLD].mean() for fold in range(4)]
    np.testing.assert_allclose(result.test, np.mean(means))


def test_the_head_that_is_given_stays_unfitted():
    head = Mean()
    crossfit(head, ROWS, LOG_PRICE, FOLD)
    assert not hasattr(head, "mean_")


def test_a_prediction_that_is_not_finite_is_an_error_naming_the_first_row():
    with pytest.raises(HeadError, match=r"mean diverged: 4 of 80 predictions are not finite \(first: 10"):
        crossfit(Diverging(), ROWS, LOG_PRICE, FOLD)


def test_rows_of_one_fold_alone_are_an_error():
    with pytest.raises(HeadError, match="need rows in at least 2 folds, got 1"):
        crossfit(Mean(), ROWS, LOG_PRICE, np.zeros(80, int))


def test_folds_that_leave_too_few_groups_to_learn_from_are_an_error():
    with pytest.raises(HeadError, match="without fold 1 only 2 of the groups of rows are left"):
        crossfit(Mean(), ROWS, LOG_PRICE, np.where(ROWS.group < 2, 0, 1))


def test_equal_prices_are_an_error_that_states_the_price():
    with pytest.raises(HeadError, match=r"all 80 training prices are 2\.71828"):
        crossfit(Mean(), ROWS, np.ones(80), FOLD)


def test_a_price_that_is_not_a_number_is_an_error_naming_the_row():
    with pytest.raises(HeadError, match="log price of 1003 is nan, prices must be finite"):
        Mean().fit(ROWS, np.where(np.arange(80) == 3, np.nan, LOG_PRICE))


def test_fewer_prices_than_rows_are_an_error():
    with pytest.raises(HeadError, match=r"one log price a row, got \(79,\) for 80 rows"):
        Mean().fit(ROWS, LOG_PRICE[:79])


def test_folds_side_by_side_predict_what_they_do_one_after_the_other():
    class Beside(Mean):
        side_by_side = True

    class AverageBeside(Average):
        side_by_side = True

    for one, many in ((Mean, Beside), (Average, AverageBeside)):
        expected, found = (crossfit(head(), ROWS, LOG_PRICE, FOLD, ROWS) for head in (one, many))
        np.testing.assert_array_equal(found.oof, expected.oof)
        np.testing.assert_array_equal(found.test, expected.test)
        assert found.learned == expected.learned
        assert hasattr(found.model, "mean_")


def test_an_error_of_one_fold_ends_a_run_side_by_side():
    class Failing(Mean):
        side_by_side = True

        def _fit(self, rows, log_price):
            raise HeadError("no such luck")

    with pytest.raises(HeadError, match="no such luck"):
        crossfit(Failing(), ROWS, LOG_PRICE, FOLD)


# ---- cross_predict and the unit of the target: what a notebook meets ----------------------------

X, PRICE = ROWS.matrices[0].X.astype(float), np.exp(LOG_PRICE)


def test_cross_predict_gives_what_the_fold_loop_gives():
    expected = crossfit(Ridge(), dataclasses.replace(ROWS.select(["minilm@structured"])), LOG_PRICE, FOLD).oof
    found = cross_predict(Ridge(), ROWS.select(["minilm@structured"]), LOG_PRICE, folds=FOLD)
    np.testing.assert_array_equal(found, expected)
    prices = cross_predict(Ridge(target="price"), X.astype(np.float16), PRICE, ROWS.group, folds=FOLD)
    plain = cross_predict(Ridge(), X.astype(np.float16), LOG_PRICE, ROWS.group, folds=FOLD)
    np.testing.assert_allclose(prices, np.exp(plain))


def test_no_row_of_a_group_enters_the_prediction_of_another():
    groups = [f"product {group}" for group in ROWS.group]
    folds = decide_folds(LOG_PRICE, groups)
    changed = PRICE.copy()
    changed[:2] *= 50  # both rows of the first group
    before, after = (
        cross_predict(Ridge(target="price"), X, price, groups, folds=folds) for price in (PRICE, changed)
    )
    np.testing.assert_allclose(after[:2], before[:2], rtol=1e-9)
    assert not np.allclose(after[2:], before[2:])


def test_a_row_without_a_vector_is_nan_throughout_and_is_predicted():
    gaps = X.copy()
    gaps[::5] = np.nan
    assert np.isfinite(cross_predict(Ridge(target="price"), gaps, PRICE)).all()
    head = LightGBM(n_estimators=5).fit(gaps, LOG_PRICE)
    assert np.isfinite(head.predict(gaps)).all()
    gaps[1, 0] = np.nan
    for call in (lambda: cross_predict(Ridge(), gaps, LOG_PRICE), lambda: Ridge().fit(gaps, LOG_PRICE)):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            call()


def test_what_does_not_fit_together_is_an_error_that_counts():
    with pytest.raises(RowMismatchError, match="80 of X, 79 of y, 80 of groups, 80 of folds"):
        cross_predict(Mean(), X, LOG_PRICE[:79], folds=FOLD)
    with pytest.raises(RowMismatchError, match="80 of X, 80 of y, 3 of groups, 80 of folds"):
        cross_predict(Mean(), X, LOG_PRICE, [1, 2, 3], folds=FOLD)


def test_a_head_on_prices_predicts_prices():
    prices = Mean(target="price").fit(ROWS, PRICE).predict(ROWS)
    np.testing.assert_allclose(prices, np.exp(LOG_PRICE.mean()))
    pipeline = make_pipeline(StandardScaler(), Ridge(target="price"))
    scores = cross_val_score(pipeline, X, PRICE, scoring=smape_scorer())
    on_log = cross_val_score(
        make_pipeline(StandardScaler(), Ridge()), X, LOG_PRICE, scoring=smape_scorer("log_price")
    )
    np.testing.assert_allclose(scores, on_log)
    assert scores.mean() > -100


def test_no_price_is_beyond_ten_times_the_prices_that_it_was_learned_from():
    prices = Leaping(target="price").fit(ROWS, PRICE).predict(ROWS)
    assert prices.max() == pytest.approx(10 * PRICE.max())


@pytest.mark.parametrize("price", [0.0, -3.5, np.nan, np.inf])
def test_a_price_that_is_none_is_an_error_naming_the_row(price):
    with pytest.raises(HeadError, match=rf"mean: price of 1003 is {price}, prices must be finite and > 0"):
        Mean(target="price").fit(ROWS, np.where(np.arange(80) == 3, price, PRICE))


@pytest.mark.parametrize("call", [lambda y: Mean().fit(X, y), lambda y: cross_predict(Mean(), ROWS, y)])
def test_prices_given_as_log_prices_are_a_warning_that_names_the_parameter(call):
    looks = r'mean: the target should be log prices but looks like prices .* give target="price"'
    with pytest.warns(UserWarning, match=looks) as told:
        call(np.round(PRICE, 2))
    assert [one.filename for one in told] == [__file__]


def test_another_unit_is_an_error():
    with pytest.raises(HeadError, match="mean: parameter target must be one of log_price, price, got 'euro'"):
        Mean(target="euro").fit(ROWS, PRICE)


@pytest.mark.parametrize("name", ["kernel-ridge", "lightgbm", "neighbours", "ridge", "sparse", "svr"])
def test_one_row_a_fold_is_predicted_by_the_others(name):
    rows, log_price = make_rows(12)
    rows = dataclasses.replace(rows, group=np.arange(12))
    result = crossfit(
        make_head(name, QUICK.get(name, {}), 1), rows_for(head_class(name), rows), log_price, np.arange(12)
    )
    assert np.isfinite(result.oof).all()
    assert np.abs(result.oof - log_price).max() < 5
