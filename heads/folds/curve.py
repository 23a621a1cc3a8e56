"""The gain of a head from more rows: one more pass over a share of them, for the score of a model of all rows.

Out-of-fold predictions are of models that learned from the rows of all folds but one, the model that prices test rows
learns from all. The fall of the error from the share to the whole is extrapolated beyond it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.rows import Rows
from heads.folds.crossfit import crossfit
from heads.folds.tuning import Tuning
from store.errors import ShelfpriceError
from store.folds.assign import sample_of_groups

LEAST_ROWS = 200  # of training; fewer do not show how an error falls
MOST_SHARE, LEAST_SHARE = 0.5, 0.25
ROWS = 10_000  # that the pass takes where they are between both shares
MOST_SECONDS = 1200.0  # of the pass over all rows, beyond which a second one is not worth its time


@dataclass(frozen=True)
class CurvePass:
    """Out-of-fold predictions of a sample of rows by models that learned from the sample alone."""

    rows: np.ndarray  # (n_train,) bool: the sample
    log_price: np.ndarray  # (n_sampled,)
    share: float  # of the training rows in the sample


def sampled_rows(group: np.ndarray, seed: int) -> np.ndarray:
    """The sample, shape (n_train,) bool: whole groups, the same for every head and row order."""
    n_rows = len(group)
    share = float(np.clip(ROWS / max(n_rows, 1), LEAST_SHARE, MOST_SHARE))
    return sample_of_groups(group, int(share * n_rows), seed)


def curve_pass(
    head: Head,
    train: Rows,
    log_price: np.ndarray,
    fold: np.ndarray,
    seed: int,
    tuning: Tuning | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> CurvePass | None:
    """One pass over the sample; None where a head can't do it, or averages its fold models for test rows."""
    if len(train) < LEAST_ROWS or head.test_mode == "average" or train.folded:
        return None
    rows = sampled_rows(train.group, seed)
    try:
        found = crossfit(
            head, train.subset(rows), log_price[rows], fold[rows], tuning=tuning, keeps_model=False
        )
    except ShelfpriceError as error:
        log(f"{head.name}: no learning curve, a sample of the rows can't be fitted: {error}")
        return None
    return CurvePass(rows, found.oof, float(rows.mean()))


def curve_table(sample_id: pa.Array, found: CurvePass) -> pa.Table:
    """`curve.parquet`: id and log price of each sampled row."""
    return pa.table({"sample_id": sample_id.filter(pa.array(found.rows)), "log_price": found.log_price})
