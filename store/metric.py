"""The scores, defined once. Everything lives in log price.

With d = ln(predicted / actual), the SMAPE of one row is
200 * |p - a| / (p + a) = 200 * tanh(|d| / 2): bounded, symmetric, free of overflow.
"""

import numpy as np

from store.errors import RowMismatchError


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


def smape_log(log_actual: np.ndarray, log_predicted: np.ndarray) -> float:
    """SMAPE of log prices, both of shape (n_rows,); percent, 0 (perfect) to 200.

    Raises:
        RowMismatchError: the shapes differ, are not one-dimensional, or are empty.
    """
    _check_same_rows(log_actual, log_predicted)
    return float(smape_rows(log_actual, log_predicted).mean())


def smape(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Symmetric mean absolute percentage error, the score of the challenge.

    Args:
        actual: true prices, shape (n_rows,), > 0.
        predicted: predicted prices, shape (n_rows,), > 0, same currency.

    Returns:
        Percent, 0 (perfect) to 200.

    Raises:
        RowMismatchError: the shapes differ, are not one-dimensional, or are empty.

    Source: Amazon ML Challenge 2025, evaluation criteria.
    """
    return smape_log(np.log(actual), np.log(predicted))


def scores(log_actual: np.ndarray, log_predicted: np.ndarray) -> dict[str, float]:
    """Every score of one set of predictions: SMAPE (percent), MAE and RMSE (price), R2 of log price."""
    _check_same_rows(log_actual, log_predicted)
    price_error = np.exp(log_predicted) - np.exp(log_actual)
    spread = float(((log_actual - log_actual.mean()) ** 2).sum())
    residual = float(((log_predicted - log_actual) ** 2).sum())
    return {
        "smape": smape_log(log_actual, log_predicted),
        "mae": float(np.abs(price_error).mean()),
        "rmse": float(np.sqrt((price_error**2).mean())),
        "r2_log": 1.0 - residual / spread if spread > 0 else 0.0,
    }
