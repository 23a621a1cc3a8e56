import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heads.networks.losses import LOSSES, huber_log_loss, mae_log_loss, smape_loss
from heads.trees.objectives import DERIVATIVES, boosting_objective
from store.metric import smape

residuals = st.floats(-20, 20).filter(lambda d: abs(d) > 1e-3)


def test_the_loss_of_100_predicted_as_120_is_a_hundredth_of_its_smape():
    loss = smape_loss(torch.tensor([math.log(120.0)]), torch.tensor([math.log(100.0)]))
    assert 100 * loss.item() == pytest.approx(18.1818, abs=1e-4)
    assert 100 * loss.item() == pytest.approx(smape(np.array([100.0]), np.array([120.0])), abs=1e-4)


def test_the_smape_loss_stays_finite_where_prices_would_overflow():
    predicted = torch.tensor([1000.0, -1000.0], requires_grad=True)
    loss = smape_loss(predicted, torch.zeros(2))
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()


@pytest.mark.parametrize("loss", LOSSES.values())
def test_every_loss_is_zero_where_the_price_is_right_and_grows_with_the_error(loss):
    zero = torch.zeros(1)
    errors = [loss(torch.tensor([d]), zero).item() for d in (0.0, 0.1, 0.5, 2.0)]
    assert errors[0] == 0.0
    assert errors == sorted(errors)


def test_many_predictions_of_one_row_are_each_compared_with_its_price():
    predicted, actual = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([[1.0], [2.0]])
    assert mae_log_loss(predicted, actual).item() == pytest.approx(0.5)
    assert huber_log_loss(predicted, actual).item() == pytest.approx((2 - 0.1) / 4, abs=1e-5)


@given(residuals, st.sampled_from(["smape", "mae-log"]))
def test_boosters_and_networks_descend_the_same_loss(d, name):
    predicted = torch.tensor([d], dtype=torch.float64, requires_grad=True)
    LOSSES[name](predicted, torch.zeros(1, dtype=torch.float64)).backward()
    assert predicted.grad is not None
    assert DERIVATIVES[name](np.array([d]))[0][0] == pytest.approx(predicted.grad.item(), abs=1e-9)


@given(st.floats(-50, 50), st.sampled_from(sorted(DERIVATIVES)))
def test_the_hessian_is_positive_wherever_the_residual_lies(d, name):
    gradient, hessian = DERIVATIVES[name](np.array([d]))
    assert np.isfinite(gradient).all()
    assert 0 <= hessian[0] < np.inf
    assert hessian[0] > 0 or abs(d) > 30  # underflows only where no price can be


@given(residuals.filter(lambda d: abs(d) > 0.06), st.floats(-15, 15))
def test_the_parabola_of_the_hessian_lies_above_the_loss(d, other):
    gradient, hessian = DERIVATIVES["smape"](np.array([d]))

    def loss(x):
        return 2 * math.tanh(abs(x) / 2)

    parabola = loss(d) + gradient[0] * (other - d) + hessian[0] * (other - d) ** 2 / 2
    assert parabola >= loss(other) - 1e-9


def test_a_booster_that_minimises_smape_beats_squares_where_outliers_pull():
    import xgboost

    rng = np.random.default_rng(0)
    X = rng.integers(0, 5, size=(600, 1)).astype(float)
    actual = X[:, 0] * 0.5 + np.where(rng.random(600) < 0.25, 4.0, 0.0)
    errors = {}
    for loss in ("smape", "mse-log"):
        data = xgboost.DMatrix(X, actual)
        booster = xgboost.train(
            {"eta": 0.3, "base_score": 0.0, "nthread": 1}, data, 60, obj=boosting_objective(loss, actual)
        )
        errors[loss] = 200 * np.tanh(np.abs(booster.predict(data) - actual) / 2).mean()
    assert errors["smape"] < 0.7 * errors["mse-log"]
