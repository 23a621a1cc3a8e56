"""Means of head prices, and the SMAPE of such a mean as a function of its weights.

Every mean here is linear in one coordinate of the ratio r = predicted / actual: ln r for the geometric
mean, r for the arithmetic, 1/r for the harmonic. With x the weighted coordinate of a row, its SMAPE is
200 * |s(x)| with s(x) = tanh(x/2) for the geometric mean and (x - 1) / (x + 1) for the two others: the
metric is symmetric, so the inverse ratio has the same loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ensemble.medians import median_of_heads

MeanName = Literal["arithmetic", "geometric", "harmonic", "median"]
LOG_RATIO_LIMIT = 300.0  # beyond it a row scores 200 to the last bit, and exp stays finite


def combine(mean: MeanName, log_prices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean's log price per row, shape (n_rows,).

    Args:
        mean: which mean; `median` is the weighted one, see `ensemble.medians`.
        log_prices: shape (n_rows, n_heads).
        weights: shape (n_heads,), >= 0, sum 1.
    """
    if mean == "median":
        return median_of_heads(log_prices, weights)
    used = weights > 0
    chosen = log_prices[:, used]
    if mean == "geometric":
        return chosen @ weights[used]
    sign = 1.0 if mean == "arithmetic" else -1.0
    return sign * np.logaddexp.reduce(sign * chosen + np.log(weights[used]), axis=1)


@dataclass(frozen=True)
class Curve:
    """How a row's loss depends on its weighted coordinate x; all three take arrays of any shape.

    `overshoot` takes x and a reach, and returns how far the tangent at x rises at most above the loss within
    that reach of x. Where the loss is convex it rises nowhere; where it is concave, most at an end of the
    range; beyond the minimum of the loss the tangent falls and the loss rises.
    """

    coordinate: Callable[[np.ndarray], np.ndarray]  # ln(predicted / actual) -> x
    loss_and_slope: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    overshoot: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _tanh_loss(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s = np.tanh(0.5 * x)
    steep = s * s
    steep *= -0.5
    steep += 0.5
    np.copysign(steep, s, out=steep)
    return np.abs(s, out=s), steep


def _tanh_overshoot(x: np.ndarray, reach: np.ndarray) -> np.ndarray:
    size = np.abs(x)
    t, up = np.minimum(np.tanh(0.5 * size), 1.0 - 1e-15), np.tanh(0.5 * reach)
    down = np.minimum(up, t)  # no further than to the minimum at 0
    farther = 0.5 * reach - up / (1.0 + t * up)
    nearer = down / (1.0 - t * down) - 0.5 * np.minimum(reach, size)
    return (1.0 - t * t) * np.maximum(farther, nearer, out=farther)


def _ratio_loss(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    short = x + 1.0
    np.divide(2.0, short, out=short)
    s = 1.0 - short  # (x - 1) / (x + 1)
    short *= short
    short *= 0.5
    np.copysign(short, s, out=short)
    return np.abs(s, out=s), short


def _ratio_overshoot(x: np.ndarray, reach: np.ndarray) -> np.ndarray:
    side = x + 1.0
    down = np.clip(x - 1.0, 0.0, reach)  # no further than to the minimum at 1
    nearer, farther = down * down / np.maximum(side - down, 2.0), reach * reach / (side + reach)
    return np.where(x > 1.0, 2.0 * np.maximum(nearer, farther, out=farther) / (side * side), 0.0)


def _clipped(log_ratio: np.ndarray) -> np.ndarray:
    return np.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


GEOMETRIC = Curve(_clipped, _tanh_loss, _tanh_overshoot)
ARITHMETIC = Curve(lambda d: np.exp(_clipped(d)), _ratio_loss, _ratio_overshoot)
HARMONIC = Curve(lambda d: np.exp(-_clipped(d)), _ratio_loss, _ratio_overshoot)
CURVES: dict[MeanName, Curve] = {"arithmetic": ARITHMETIC, "geometric": GEOMETRIC, "harmonic": HARMONIC}


def _smooth_absolute(x: np.ndarray, width: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(x * x + width * width)
    return root - width, x / root


# Convex in the weights: the rival without local minima. Its loss is |log error|, not SMAPE.
ABSOLUTE_LOG = Curve(_clipped, _smooth_absolute, lambda x, reach: np.zeros_like(x))
