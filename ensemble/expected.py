"""The score to expect of the model that prices the test rows: of a fit on all rows, and of rows like the test rows.

Out-of-fold losses are biased for it in two ways. Their models learned from all folds but one: the learning curve, from
one more pass over a sample of the rows, tells what the missing fold is worth. And a row may have a close relative among
the rows that it is predicted from, more or less often than a test row has one in train: rows with and without are
averaged on their own, and weighed as they occur in the test set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.groups import MOST_SMAPE, gain_and_error

LEVELS = ("none", "family", "product")  # the closest relative that a row has where its price is learned from
LEAST_ROWS = 20  # of a level, for a mean of its own
UNSCORED = 0.02  # of the test rows: fewer are not worth a word


@dataclass(frozen=True)
class CurveLoss:
    """Loss of sampled rows by models of all folds but one, and by models of the sample's folds but one."""

    rows: np.ndarray  # (n_rows,) bool: sampled rows whose closest relative is of the same level in both
    full: np.ndarray  # (n_curve,) percent
    sample: np.ndarray  # (n_curve,) percent
    beyond: float  # fall from all folds but one to all of them, over that from the sample to the whole


@dataclass(frozen=True)
class Expected:
    """What to expect of some kind of rows."""

    smape: float  # percent, 0 to 200
    interval: tuple[float, float]  # that the mean of so many new rows falls into
    size_factor: float  # the score over that of the out-of-fold models
    n_scored: int  # training rows that it is taken from
    unscored: float  # share of the rows whose level too few training rows have: it is pooled with the next

    def to_json(self) -> dict[str, Any]:
        return {
            "smape": self.smape,
            "interval": list(self.interval),
            "size_factor": self.size_factor,
            "n_scored": self.n_scored,
            "unscored": self.unscored,
        }


def extrapolation(share: float, n_folds: int, exponent: float) -> float:
    """The fall of the error from all folds but one to all of them, over that from the sample to the whole.

    Args:
        share: of the rows in the sample.
        exponent: see `Head.learning_exponent`.
    """
    if exponent == 0:
        return float(np.log(n_folds / (n_folds - 1)) / np.log(1 / share))
    beyond = (n_folds / (n_folds - 1)) ** -exponent
    return float((1 - beyond) / (share**-exponent - 1))


def expect(
    loss: np.ndarray,
    level: np.ndarray,
    shares: Sequence[float],
    group: np.ndarray,
    curve: CurveLoss | None,
    n_new: int | None,
    confidence: float,
    row_weight: np.ndarray | None = None,
    block: np.ndarray | None = None,
) -> Expected:
    """The mean loss of `n_new` new rows.

    Args:
        loss: percent, of each training row by a model that did not learn from it, shape (n_rows,).
        level: index into `LEVELS` of each training row, shape (n_rows,).
        shares: of the new rows in each level, sum 1.
        group: shape (n_rows,): rows of one group are one draw.
        curve: None: no correction for the number of rows.
        n_new: None: so many that their mean has no error of its own.
        row_weight: what each training row counts, > 0, shape (n_rows,); None: all alike.
        block: of rows in order of time, shape (n_rows,): new rows come after the last, and their score may be as far
            from the expected one as those of blocks are from one another. None: rows are in no order.
    """
    from scipy.stats import norm

    counts = np.bincount(level, minlength=len(LEVELS))
    wanted, unscored = np.array(shares, np.float64), 0.0
    scored = np.flatnonzero(counts >= min(LEAST_ROWS, counts.max()))
    for at in np.flatnonzero((wanted > 0) & ~np.isin(np.arange(len(LEVELS)), scored)):
        lower = scored[scored < at]
        pooled = lower[-1] if len(lower) else scored[0]
        # Its few rows are kept: their losses may be far from the others'.
        level = np.where(level == at, pooled, level)
        wanted[pooled] += wanted[at]
        unscored += wanted[at]
        wanted[at] = 0.0
    given = np.ones(len(loss)) if row_weight is None else row_weight
    totals = np.bincount(level, given, minlength=len(LEVELS))
    weight = given * (wanted / np.where(totals > 0, totals, 1.0))[level]  # sums to 1
    weight /= weight.sum()
    middles = np.bincount(level, given * loss, minlength=len(LEVELS)) / np.where(totals > 0, totals, 1.0)
    mean = float(weight @ loss)
    influence = len(loss) * weight * (loss - middles[level])
    factor = 1.0
    if curve is not None and curve.rows.any() and weight[curve.rows].sum() > 0:
        of_curve = weight[curve.rows]
        fall = (of_curve @ (curve.sample - curve.full)) / max(of_curve @ curve.full, 1e-12)
        factor = 1.0 - curve.beyond * float(np.clip(fall, 0.0, 1.0))
        slope = curve.sample - curve.full - fall * curve.full
        influence[curve.rows] -= curve.beyond * len(loss) * of_curve / of_curve.sum() * slope
    _, error = gain_and_error(influence, group)
    spread = weight @ (loss - middles[level]) ** 2
    fresh = 0.0 if n_new is None else spread / n_new
    normal = float(norm.ppf((1 + confidence) / 2))
    between = 0.0 if block is None else _scatter(loss, weight, block, (1 + confidence) / 2)
    reach = factor * float(np.sqrt(normal**2 * (error**2 + fresh) + between))
    smape = factor * mean
    interval = max(smape - reach, 0.0), min(smape + reach, MOST_SMAPE)
    return Expected(smape, interval, factor, int((weight > 0).sum()), float(unscored))


def recency(block: np.ndarray) -> np.ndarray:
    """What rows of blocks in order of time count: each block twice the one before, shape (n_rows,), as `block`."""
    _, place, size = np.unique(block, return_inverse=True, return_counts=True)
    return np.asarray(2.0**place / size[place])


def _scatter(loss: np.ndarray, weight: np.ndarray, block: np.ndarray, quantile: float) -> float:
    """Square of how far a new block's score may be from the weighted mean of the known ones, beyond chance over rows."""
    from scipy.stats import t

    _, place = np.unique(block, return_inverse=True)
    share, size = np.bincount(place, weight), np.bincount(place)
    if len(share) < 2:
        return 0.0
    score = np.bincount(place, weight * loss) / share
    of_rows = np.bincount(place, weight * (loss - score[place]) ** 2) / share / size
    variance = max(float(score.var(ddof=1) - of_rows.mean()), 0.0)
    return float(t.ppf(quantile, len(share) - 1)) ** 2 * variance * float(1 + (share**2).sum())
