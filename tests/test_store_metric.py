import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score

from store.errors import PriceError, RowMismatchError
from store.metric import smape, smape_scorer
from store.target import warn_of_prices


def test_smape_is_on_the_scale_of_the_challenge():
    assert smape(np.array([100.0]), np.array([120.0])) == pytest.approx(18.181818)


def test_smape_never_overflows_and_never_passes_200():
    assert smape(np.array([1e-300]), np.array([1e300])) == pytest.approx(200.0)


def test_rows_that_do_not_match_are_an_error_showing_both_shapes():
    with pytest.raises(RowMismatchError, match=r"\(2,\) and \(3,\)"):
        smape(np.ones(2), np.ones(3))


def test_a_prediction_that_is_no_price_counts_200_and_a_true_price_must_be_one():
    assert smape(np.array([5.0, 5.0]), np.array([5.0, -1.0])) == 100.0
    assert smape([5, 5], [5, 0]) == 100.0
    with pytest.raises(PriceError, match=r"smape: price of 1 is 0\.0, prices must be finite and > 0"):
        smape(np.array([5.0, 0.0]), np.array([5.0, 1.0]))
    with pytest.raises(PriceError, match="predicted price of 0 is nan"):
        smape(np.array([5.0]), np.array([np.nan]))


def test_scikit_learn_scores_by_smape_of_prices_or_of_log_prices():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 3))
    price = np.exp(X[:, 0] + 3)
    on_price = TransformedTargetRegressor(LinearRegression(), func=np.log, inverse_func=np.exp)
    scores = cross_val_score(on_price, X, price, scoring=smape_scorer())
    np.testing.assert_allclose(
        cross_val_score(LinearRegression(), X, np.log(price), scoring=smape_scorer("log_price")),
        scores,
        atol=1e-9,
    )
    assert (cross_val_score(DummyRegressor(), X, price, scoring=smape_scorer()) < scores - 10).all()
    with pytest.raises(PriceError, match="target must be 'log_price' or 'price', got 'euro'"):
        smape_scorer("euro")


@pytest.mark.parametrize("prices", [[14.0, 2796.0, 3.5], list(np.arange(1, 21) / 4)])
def test_prices_given_as_log_prices_are_named(prices):
    with pytest.warns(
        UserWarning, match=r'ridge: the target should be log prices but looks like .* give target="price"'
    ):
        warn_of_prices(np.array(prices), "ridge")


@pytest.mark.parametrize(
    "log_price", [np.log([14.0, 2796.0, 3.5]), np.log(np.arange(1, 21)), np.zeros(20), [1, 2, 3]]
)
def test_log_prices_are_taken_as_they_are(log_price, recwarn):
    warn_of_prices(np.array(log_price), "ridge")
    assert not recwarn
