"""Classifiers of rows: random trees on all columns together, and each column alone."""

from typing import Any

import numpy as np

from heads.trees.lightgbm import threads_of

MOST_BINS = 64  # of one column
N_TREES = 100
N_TREES_OF_CLASS = 50  # where each of several classes has its own
MIN_LEAF = 10  # rows
_SMOOTHING = 1.0  # rows of the overall shares that a bin's shares are mixed with


def forest_shares(
    X: np.ndarray, label: np.ndarray, inside: np.ndarray, outside: np.ndarray, n_classes: int, seed: int
) -> np.ndarray:
    """Shares of random trees for each class, shape (n_outside, n_classes), learned on the rows `inside`.

    Args:
        X: shape (n_rows, n_columns).
        label: 0 to n_classes - 1, shape (n_rows,).
    """
    if n_classes == 2:  # half the trees
        of_second = _forest(X, label, inside, outside, {"objective": "binary"}, MIN_LEAF, N_TREES, seed)
        return np.stack([1 - of_second, of_second], axis=1)
    settings = {"objective": "multiclass", "num_class": n_classes}
    return _forest(X, label, inside, outside, settings, MIN_LEAF, N_TREES_OF_CLASS, seed)


def forest_values(
    X: np.ndarray, values: np.ndarray, inside: np.ndarray, outside: np.ndarray, min_leaf: int, seed: int
) -> np.ndarray:
    """Mean of random trees, shape (n_outside,), of values of shape (n_rows,)."""
    middle = values[inside].mean()  # added back here: trees that can't split give 0
    settings = {"objective": "regression"}
    return middle + _forest(X, values - middle, inside, outside, settings, min_leaf, N_TREES, seed)


def _forest(
    X: np.ndarray,
    target: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    settings: dict[str, Any],
    min_leaf: int,
    n_trees: int,
    seed: int,
) -> np.ndarray:
    import lightgbm

    params = settings | {
        "boosting": "rf",
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "feature_fraction_bynode": float(np.clip(3 / np.sqrt(X.shape[1]), 0.2, 1.0)),
        "num_leaves": 63,
        "min_data_in_leaf": min_leaf,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads_of(len(inside) * X.shape[1]),
        "verbose": -1,
    }
    data = lightgbm.Dataset(X[inside], target[inside])
    trees = lightgbm.train(params, data, n_trees)
    return np.asarray(trees.predict(X[outside], num_threads=params["num_threads"]))


def column_shares(
    values: np.ndarray, label: np.ndarray, inside: np.ndarray, outside: np.ndarray, n_classes: int
) -> np.ndarray:
    """As `forest_shares` by the bins of one column, shape (n_rows,), NaN where missing, which is a bin of its own."""
    known = np.isfinite(values)
    levels = np.unique(values[known])
    edges = (
        levels[1:]
        if len(levels) <= MOST_BINS
        else np.unique(np.quantile(values[known], np.arange(1, MOST_BINS) / MOST_BINS))
    )
    bins = np.where(known, np.searchsorted(edges, values, side="right"), len(edges) + 1)
    counts = np.bincount(
        bins[inside] * n_classes + label[inside], minlength=(len(edges) + 2) * n_classes
    ).reshape(-1, n_classes)
    overall = np.bincount(label[inside], minlength=n_classes) / len(inside)
    shares = (counts + _SMOOTHING * overall) / (counts.sum(axis=1, keepdims=True) + _SMOOTHING)
    return np.asarray(shares[bins[outside]])
