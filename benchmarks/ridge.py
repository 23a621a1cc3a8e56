"""Ridge, 5 folds x 20 penalties, on 75,000 x 2,432 random fp16 vectors: seconds, memory, and scikit-learn's Ridge.

scikit-learn's time is that of a few fits and predictions times the number of fits (5 x 20).
"""

import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Result, main

ROWS, COLUMNS, FOLDS, PENALTIES = 75_000, 2_432, 5, 20
PEER_FITS = 3
MOST_SECONDS, MOST_GIGABYTES, LEAST_RATIO = 20.0, 4.0, 20.0


def measure(data: Path, rows: int | None) -> list[Result]:
    """Time the head on vectors with a known signal, then scikit-learn on the same."""
    from heads.features.rows import Rows
    from heads.folds.crossfit import crossfit
    from heads.linear.ridge import Ridge
    from store.metric import smape_log

    n_rows = rows or ROWS
    rng = np.random.default_rng(0)
    X = np.empty((n_rows, COLUMNS), np.float16)
    for start in range(0, n_rows, 4096):
        X[start : start + 4096] = rng.standard_normal(X[start : start + 4096].shape, np.float32)
    weights = rng.standard_normal(COLUMNS) / np.sqrt(COLUMNS)
    log_price = 3.0 + np.concatenate([X[i : i + 4096] @ weights for i in range(0, n_rows, 4096)])
    log_price += rng.normal(0, 0.5, n_rows)
    fold = rng.integers(0, FOLDS, n_rows).astype(np.int16)
    table = Rows.from_array(X)

    started = time.perf_counter()
    result = crossfit(Ridge(n_alphas=PENALTIES), table, log_price, fold)
    seconds = time.perf_counter() - started
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    error = smape_log(log_price, result.oof)

    one_fit = _peer_seconds(X, log_price, fold)
    peer = one_fit * FOLDS * PENALTIES
    shape = {"rows": n_rows, "columns": COLUMNS, "folds": FOLDS, "penalties": PENALTIES}
    note = f"scikit-learn's seconds are those of {PEER_FITS} fits and predictions, times {FOLDS * PENALTIES}"
    return [
        Result.at_most("ridge seconds", seconds, MOST_SECONDS, **shape, smape=error),
        Result.at_most(
            "ridge peak gigabytes", gigabytes, MOST_GIGABYTES, "whole process, the vectors included"
        ),
        Result.at_least(
            "ridge over scikit-learn", peer / seconds, LEAST_RATIO, note, seconds=seconds, peer_seconds=peer
        ),
    ]


def _peer_seconds(X: np.ndarray, log_price: np.ndarray, fold: np.ndarray) -> float:
    """Seconds of one `sklearn.linear_model.Ridge` fit on all folds but one, and its prediction of that one."""
    from sklearn.linear_model import Ridge

    inside, outside = X[fold != 0].astype(np.float32), X[fold == 0].astype(np.float32)
    target = log_price[fold != 0].astype(np.float32)
    started = time.perf_counter()
    for alpha in np.geomspace(1.0, 1e4, PEER_FITS):
        Ridge(alpha=alpha).fit(inside, target).predict(outside)
    return (time.perf_counter() - started) / PEER_FITS


if __name__ == "__main__":
    main(measure)
