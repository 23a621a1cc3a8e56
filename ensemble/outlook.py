"""The expected scores on the test rows, and on products without a relative in train, from the rows of a blend."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble.conformal import RowKinds
from ensemble.expected import LEVELS, CurveLoss, Expected, expect, extrapolation, recency
from ensemble.honest import Nested
from ensemble.inputs import TrainingRows
from ensemble.rivals import Mix
from store.metric import smape_rows


def outlook(
    rows: TrainingRows, nested: Nested, loss: np.ndarray, lowest: float, confidence: float
) -> dict[str, Any]:
    """The `expected` part of blend.json.

    Args:
        loss: percent, of each row by the nested blend, shape (n_rows,).
        lowest: log price below which none is submitted.
        confidence: of the intervals.

    Returns:
        `test` (see `Expected`; of rows like the training rows where there are no test rows), `without_relative` (None
        where no test row has one, or too few training rows have none), `test_shares` and `train_shares` by level,
        `blocks` of folds in order of time (None for others), `curve_heads`, `known_groups` (share of test rows whose own
        group is in train while folds keep such groups apart, so that the score is of other rows; None: there are none).
    """
    n_folds = len(np.unique(rows.fold)) + rows.looks_back
    level = np.zeros(len(loss), np.int64) if rows.level is None else rows.level
    shares = _shares(level if rows.test_level is None else rows.test_level)
    curve = _curve_loss(rows, nested, level, lowest, n_folds)
    weight, block = rows.weight, rows.fold if rows.looks_back else None
    if block is not None:
        weight = recency(block) * (1.0 if weight is None else weight)

    def of(wanted: np.ndarray, n_new: int | None) -> Expected:
        return expect(loss, level, wanted.tolist(), rows.group, curve, n_new, confidence, weight, block)

    alone = np.eye(len(LEVELS))[0]
    n_alone = None if rows.test_level is None else int((rows.test_level == 0).sum()) or rows.n_test
    without = of(alone, n_alone)
    is_told = shares[0] < 1 and without.unscored == 0
    return {
        "test": of(shares, rows.n_test).to_json(),
        "without_relative": without.to_json() if is_told else None,
        "test_shares": None if rows.test_level is None else _named(shares),
        "train_shares": _named(_shares(level)),
        "curve_heads": [] if rows.curve is None else list(rows.curve.heads),
        "blocks": _blocks(rows, nested, loss) if rows.looks_back else None,
        "known_groups": rows.known_groups,
    }


def _blocks(rows: TrainingRows, nested: Nested, loss: np.ndarray) -> list[dict[str, Any]]:
    """Score and price level of each fold, from the earliest on, by what was known before it."""
    residual = rows.log_actual - nested.log_price
    weight = np.ones(len(loss)) if rows.weight is None else rows.weight
    return [
        {
            "n_rows": int((rows.fold == k).sum()),
            "smape": float(np.average(loss[rows.fold == k], weights=weight[rows.fold == k])),
            "level": float(
                np.expm1(np.median(residual[rows.fold == k]))
            ),  # of prices over predicted ones, less 1
        }
        for k in np.unique(rows.fold)
    ]


def kinds_of(rows: TrainingRows, heads: Sequence[str]) -> RowKinds:
    """What the width of a row's interval may depend on.

    Args:
        heads: of the blend, that are asked how far they are apart.
    """
    asked = [rows.heads.index(head) for head in heads]
    return RowKinds(head_spread(rows.log_prices[:, asked]), rows.level, rows.has_image)


def spread_heads(record: Mapping[str, Any], heads: Sequence[str]) -> list[str]:
    """The heads whose spread the intervals of a blend go by; all of them in blends of before 0.2.

    Args:
        record: content of blend.json.
        heads: of the blend.
    """
    return list(record["intervals"].get("spread_of", heads))


def head_spread(log_prices: np.ndarray) -> np.ndarray | None:
    """How far the heads are apart on each row, shape (n_rows,), from (n_rows, n_heads); None: there is one head."""
    return np.asarray(log_prices.std(axis=1)) if log_prices.shape[1] > 1 else None


def _shares(level: np.ndarray) -> np.ndarray:
    return np.asarray(np.bincount(level, minlength=len(LEVELS)) / len(level))


def _named(shares: np.ndarray) -> dict[str, float]:
    return dict(zip(LEVELS, map(float, shares), strict=True))


def _curve_loss(
    rows: TrainingRows, nested: Nested, level: np.ndarray, lowest: float, n_folds: int
) -> CurveLoss | None:
    """Losses at both sizes, of a blend with the nested weights of the heads that have a curve."""
    curve = rows.curve
    if curve is None:
        return None
    at = np.array([rows.heads.index(head) for head in curve.heads])
    position = np.flatnonzero(curve.rows)
    prices = {"full": rows.log_prices[np.ix_(position, at)], "sample": curve.log_prices}
    blended, shares = {name: np.empty(len(position)) for name in prices}, np.zeros(len(at))
    for fold, blend in zip(np.unique(rows.fold), nested.blends, strict=True):
        weights = blend.mix.weights[at]
        weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(at), 1 / len(at))
        shares += weights / len(nested.blends)
        mix = Mix(blend.mix.method, blend.mix.mean, weights)
        here = rows.fold[position] == fold
        for name, z in prices.items():
            blended[name][here] = blend.calibration.apply(mix.log_price(z[here]))
    same = curve.level == level[position]
    kept = np.zeros(len(level), bool)
    kept[position[same]] = True
    of_sizes = {
        name: smape_rows(rows.log_actual[position], np.maximum(z, lowest))[same]
        for name, z in blended.items()
    }
    beyond = [extrapolation(curve.share, n_folds, exponent) for exponent in curve.exponents]
    return CurveLoss(kept, of_sizes["full"], of_sizes["sample"], float(shares @ beyond))
