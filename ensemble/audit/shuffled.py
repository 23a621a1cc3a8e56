"""Checks that on shuffled prices no model is better than the median; a model that is shows a leak."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import TrainingEvidence, compress
from ensemble.groups import gain_and_error
from ensemble.honest import Maker
from store.metric import smape_rows

SURE = 3.0  # standard errors
MATERIAL = 0.01  # share of the median's SMAPE; by less another price is no better
N_COMPONENTS = 128
QUANTILES = np.arange(1, 100) / 100  # of prices, among which the best single one is looked for


def fold_medians(log_actual: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Each row's guess without any feature: the median of the other folds, shape (n_rows,)."""
    guess = np.empty(len(fold))
    for k in np.unique(fold):
        guess[fold == k] = np.median(log_actual[fold != k])
    return guess


def without_features(log_actual: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, str]:
    """Each row's guess without any feature, shape (n_rows,), and its name: the median, or one price that is better.

    Where prices lie around two levels, the median is between these, and a price at the lower one has less error.
    """
    median, single = fold_medians(log_actual, fold), np.empty(len(fold))
    for k in np.unique(fold):
        others = log_actual[fold != k]
        tried = np.quantile(others, QUANTILES)
        single[fold == k] = min(
            tried, key=lambda price: smape_rows(others, np.full(len(others), price)).mean()
        )
    of_median, of_single = (smape_rows(log_actual, guess).mean() for guess in (median, single))
    return (single, "best single price") if of_single < (1 - MATERIAL) * of_median else (median, "median")


def out_of_fold(
    make: Callable[[], Any],
    features: Callable[[np.ndarray], np.ndarray],
    log_actual: np.ndarray,
    fold: np.ndarray,
) -> np.ndarray:
    """Log price of each row by an estimator that never saw its fold, shape (n_rows,).

    Args:
        features: rows to learn from, shape (n_rows,) bool -> features of all rows, (n_rows, n_columns).
    """
    predicted = np.empty(len(fold))
    for k in np.unique(fold):
        here = fold == k
        X = features(~here)
        predicted[here] = make().fit(X[~here], log_actual[~here]).predict(X[here])
    return predicted


def check_shuffled_target(rows: TrainingEvidence, seed: int) -> Check:
    """Ridge and neighbours on the cached vectors, blended as the real heads are, on shuffled prices."""
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Components are of all rows: no price enters, so none leaks by them.
    X = compress(list(rows.blocks.values()), np.ones(len(rows.fold), bool), N_COMPONENTS, seed)

    def features(inside: np.ndarray) -> np.ndarray:
        return X

    shuffled = np.random.default_rng(seed).permutation(rows.log_actual)
    guess, of = without_features(shuffled, rows.fold)
    heads = [
        guess,
        out_of_fold(lambda: make_pipeline(StandardScaler(), Ridge(1.0)), features, shuffled, rows.fold),
        out_of_fold(
            lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(5)), features, shuffled, rows.fold
        ),
    ]
    nested = Maker(np.stack(heads, axis=1), shuffled, rows.fold, rows.group).nested().log_price
    median_loss, blend_loss = smape_rows(shuffled, guess), smape_rows(shuffled, nested)
    gain, error = gain_and_error(median_loss - blend_loss, rows.group)
    figures = {
        "median_smape": float(median_loss.mean()),
        "blend_smape": float(blend_loss.mean()),
        "gain": gain,
        "gain_error": error,
        "n_rows": len(shuffled),
    }
    scores = f"blend {figures['blend_smape']:.2f}, {of} {figures['median_smape']:.2f}, gain {gain:+.2f} ± {error:.2f}"
    if gain > SURE * error:
        return Check(
            "shuffled target",
            "fail",
            f"On shuffled prices the blend still beats the {of} ({scores}): prices leak across folds.",
            figures,
        )
    return Check(
        "shuffled target",
        "ok",
        f"On shuffled prices nothing beats the {of} ({scores}): no price leaks through folds or blend.",
        figures,
    )
