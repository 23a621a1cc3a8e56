import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from heads.base import Head
from heads.folds.crossfit import crossfit
from heads.registry import head_class, make_head
from store.errors import HeadError
from tests.fake_rows import QUICK, fake_rows, folds_of, rows_for


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


ROWS, LOG_PRICE = fake_rows(80)
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


@pytest.mark.parametrize("name", ["kernel-ridge", "lightgbm", "neighbours", "ridge", "sparse", "svr"])
def test_one_row_a_fold_is_predicted_by_the_others(name):
    rows, log_price = fake_rows(12)
    rows = dataclasses.replace(rows, group=np.arange(12))
    result = crossfit(
        make_head(name, QUICK.get(name, {}), 1), rows_for(head_class(name), rows), log_price, np.arange(12)
    )
    assert np.isfinite(result.oof).all()
    assert np.abs(result.oof - log_price).max() < 5
