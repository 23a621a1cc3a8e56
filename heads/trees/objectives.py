"""Gradients and Hessians of the losses in log price, for the boosters' custom objectives.

With d = predicted - actual in log price, the SMAPE of a row is 200 tanh(|d| / 2). Its second derivative is
negative away from 0, where a Newton step would increase the loss, so each loss gives the curvature of the
parabola that touches it at d and lies above it everywhere: gradient / d. A leaf is then a weighted mean of
its residuals, and no step can make the loss worse.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

LEAST_RESIDUAL = 0.05  # log price; nearer to 0 the curvature of |d| would outweigh all other rows
HUBER_DELTA = 0.2  # log price: quadratic within 20%, linear beyond

Derivatives = tuple[np.ndarray, np.ndarray]


def smape_derivatives(d: np.ndarray) -> Derivatives:
    """Gradient and positive curvature of 2 tanh(|d| / 2), a hundredth of SMAPE; shapes as `d`."""
    size = np.abs(d)
    slope = 1.0 / np.cosh(np.minimum(size, 60.0) / 2.0) ** 2
    return np.sign(d) * slope, slope / np.maximum(size, LEAST_RESIDUAL)


def mae_derivatives(d: np.ndarray) -> Derivatives:
    """Of |d|."""
    return np.sign(d), 1.0 / np.maximum(np.abs(d), LEAST_RESIDUAL)


def huber_derivatives(d: np.ndarray) -> Derivatives:
    """Of Huber's loss with a bend at `HUBER_DELTA`, divided by it."""
    size = np.maximum(np.abs(d), HUBER_DELTA)
    return d / size, 1.0 / size


def mse_derivatives(d: np.ndarray) -> Derivatives:
    """Of d squared, halved."""
    return d, np.ones_like(d)


DERIVATIVES: dict[str, Callable[[np.ndarray], Derivatives]] = {
    "smape": smape_derivatives,
    "mae-log": mae_derivatives,
    "huber-log": huber_derivatives,
    "mse-log": mse_derivatives,
}


def boosting_objective(loss: str, log_price: np.ndarray) -> Callable[[np.ndarray, Any], Derivatives]:
    """An objective as XGBoost's and LightGBM's `train` take it: (predicted, data) -> gradient, Hessian.

    Args:
        loss: a key of `DERIVATIVES`.
        log_price: of the training rows, shape (n_rows,), in the order of the booster's data.
    """
    derivatives = DERIVATIVES[loss]

    def objective(predicted: np.ndarray, data: Any) -> Derivatives:
        gradient, hessian = derivatives(np.asarray(predicted, dtype=np.float64) - log_price)
        if (weight := weight_of(data)) is not None:
            gradient, hessian = gradient * weight, hessian * weight
        return gradient.astype(np.float32), hessian.astype(np.float32)

    return objective


def weight_of(data: Any) -> np.ndarray | None:
    """Weights of the rows of a booster's data, shape (n_rows,); None where it was given none."""
    weight = data.get_weight()
    return weight if weight is not None and len(weight) else None
