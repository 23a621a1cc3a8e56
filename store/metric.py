"""The scores, defined once. All are computed from log prices.

With d = ln(predicted / actual), the SMAPE of one row is
200 * |p - a| / (p + a) = 200 * tanh(|d| / 2): bounded, symmetric, free of overflow.
"""

from typing import Any

import numpy as np

from store.errors import PriceError, RowMismatchError
from store.target import Target, as_log_price, check_target


def _check_same_rows(actual: np.ndarray, predicted: np.ndarray) -> None:
    if actual.ndim != 1 or actual.shape != predicted.shape:
        raise RowMismatchError(
            "scores compare two one-dimensional arrays of the same rows, "
            f"got shapes {actual.shape} and {predicted.shape}"
        )
    if actual.size == 0:
        raise RowMismatchError("scores need at least one row, got 0")


def smape_rows(log_actual: np.ndarray, log_predicted: np.ndarray) -> np.ndarray:
    """SMAPE of each row from log prices, shape (n_rows,), percent 0 to 200."""
    return 200.0 * np.tanh(np.abs(log_predicted - log_actual) / 2.0)


def smape_log(log_actual: np.ndarray, log_predicted: np.ndarray, weight: np.ndarray | None = None) -> float:
    """SMAPE of log prices, both of shape (n_rows,); percent, 0 (perfect) to 200.

    Args:
        weight: what each row counts, > 0, shape (n_rows,); None: all alike.

    Raises:
        RowMismatchError: the shapes differ, are not one-dimensional, or are empty.
    """
    _check_same_rows(log_actual, log_predicted)
    return float(np.average(smape_rows(log_actual, log_predicted), weights=weight))


def smape(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Symmetric mean absolute percentage error, the score of the challenge.

    >>> smape([100.0, 50.0], [120.0, 50.0])  # 18.18 for the first row, 0 for the second
    9.0909...

    Args:
        actual: true prices, shape (n_rows,), > 0.
        predicted: predicted prices, shape (n_rows,), same currency. One that is not > 0 counts 200.

    Returns:
        Percent, 0 (perfect) to 200.

    Raises:
        RowMismatchError: the shapes differ, are not one-dimensional, or are empty.
        PriceError: a true price is not finite and > 0, or a predicted one is not a number.

    Source: Amazon ML Challenge 2025, evaluation criteria.
    """
    actual, predicted = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    _check_same_rows(actual, predicted)
    log_actual = as_log_price(actual, "price", "smape")
    if np.isnan(predicted).any():
        raise PriceError(f"smape: predicted price of {int(np.isnan(predicted).argmax())} is nan")
    positive = predicted > 0
    log_predicted = np.log(np.where(positive, predicted, 1.0))
    return float(np.where(positive, smape_rows(log_actual, log_predicted), 200.0).mean())


def gain_and_error(gain_rows: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Mean of `gain_rows` and its standard error over groups, both arguments of shape (n_rows,).

    The error is infinite where all rows are one group: nothing can be told then.
    """
    mean = float(gain_rows.mean())
    index = np.unique(group, return_inverse=True)[1]
    sums = np.bincount(index, gain_rows - mean)
    n_groups = len(sums)
    if n_groups < 2:
        return mean, float("inf")
    return mean, float(np.sqrt((sums**2).sum() * n_groups / (n_groups - 1)) / len(gain_rows))


def smape_scorer(target: Target = "price") -> Any:
    """SMAPE as a scikit-learn scorer, negative since scorers are maximised.

    >>> from sklearn.dummy import DummyRegressor
    >>> from sklearn.model_selection import cross_val_score
    >>> price, X = np.array([10.0, 20.0, 30.0, 40.0]), np.zeros((4, 1))
    >>> cross_val_score(DummyRegressor(), X, price, scoring=smape_scorer(), cv=2).round(1).tolist()
    [-82.8, -78.8]

    Args:
        target: unit of y and of the predictions, "price" or "log_price".

    Returns:
        A scorer for `scoring=`; its values are minus SMAPE in percent, -200 to 0.

    Raises:
        PriceError: `target` is unknown.
    """
    from sklearn.metrics import make_scorer

    check_target(target, "smape_scorer")
    return make_scorer(smape if target == "price" else smape_log, greater_is_better=False)


def scores(
    log_actual: np.ndarray, log_predicted: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """Every score of one set of predictions: SMAPE (percent), MAE and RMSE (price), R2 of log price.

    Args:
        weight: what each row counts, > 0, as the others of shape (n_rows,); None: all alike.
    """
    _check_same_rows(log_actual, log_predicted)

    def mean(values: np.ndarray) -> float:
        return float(np.average(values, weights=weight))

    price_error = np.exp(log_predicted) - np.exp(log_actual)
    spread = mean((log_actual - mean(log_actual)) ** 2)
    residual = mean((log_predicted - log_actual) ** 2)
    return {
        "smape": mean(smape_rows(log_actual, log_predicted)),
        "mae": mean(np.abs(price_error)),
        "rmse": float(np.sqrt(mean(price_error**2))),
        "r2_log": 1.0 - residual / spread if spread > 0 else 0.0,
    }
