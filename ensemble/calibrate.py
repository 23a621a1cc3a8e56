"""Corrections of a blend's log price, fitted out of fold: a shift and a scale, or isotonic."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from store.metric import smape_log

Kind = Literal["none", "scale", "isotonic"]
KINDS: tuple[Kind, ...] = ("scale", "isotonic")
MIN_ROWS_ISOTONIC = 100


@dataclass(frozen=True)
class Calibration:
    """Log price before -> log price after: linear between the knots, a constant shift beyond them."""

    kind: Kind
    before: tuple[float, ...] = ()  # increasing
    after: tuple[float, ...] = ()  # never decreasing

    def apply(self, log_price: np.ndarray) -> np.ndarray:
        """Shape (n_rows,) in and out; the order of prices is never reversed."""
        if self.kind == "none":
            return log_price
        before, after = np.array(self.before), np.array(self.after)
        if self.kind == "scale":
            slope = (after[1] - after[0]) / (before[1] - before[0])
            return after[0] + slope * (log_price - before[0])
        inside = np.clip(log_price, before[0], before[-1])
        return np.interp(inside, before, after) + (log_price - inside)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "before": list(self.before), "after": list(self.after)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibration":
        return cls(value["kind"], tuple(value["before"]), tuple(value["after"]))


NONE = Calibration("none")


def fit_calibration(kind: Kind, log_price: np.ndarray, log_actual: np.ndarray) -> Calibration:
    """The correction that brings `log_price` nearest to `log_actual`, both of shape (n_rows,).

    A kind that these rows can't carry (a single price, too few rows) comes back as `NONE`.
    """
    if kind == "none" or np.ptp(log_price) == 0:
        return NONE
    return _scale(log_price, log_actual) if kind == "scale" else _isotonic(log_price, log_actual)


def _scale(log_price: np.ndarray, log_actual: np.ndarray) -> Calibration:
    from scipy.optimize import minimize

    middle = float(np.median(log_price))
    centered = log_price - middle

    def loss(parameters: np.ndarray) -> float:
        return smape_log(log_actual, middle + parameters[0] + parameters[1] * centered)

    start = np.array([np.median(log_actual - log_price), 1.0])
    simplex = start + np.array([[0.0, 0.0], [0.05, 0.0], [0.0, 0.05]])
    found = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-5, "maxiter": 200},
    )
    shift, slope = float(found.x[0]), float(np.clip(found.x[1], 0.1, 10.0))
    return Calibration(
        "scale", (middle - 1.0, middle + 1.0), (middle + shift - slope, middle + shift + slope)
    )


def _isotonic(log_price: np.ndarray, log_actual: np.ndarray) -> Calibration:
    from scipy.optimize import isotonic_regression  # scikit-learn takes a second to import

    if len(log_price) < MIN_ROWS_ISOTONIC:
        return NONE
    at, row, n_rows = np.unique(log_price, return_inverse=True, return_counts=True)
    level = isotonic_regression(np.bincount(row, log_actual) / n_rows, weights=n_rows).x
    rises = np.flatnonzero(np.diff(level) > 0)
    ends = np.unique(np.concatenate([[0], rises, rises + 1, [len(at) - 1]]))  # of each constant stretch
    before, after = at[ends], level[ends]
    if len(before) < 2:
        return NONE
    return Calibration("isotonic", tuple(map(float, before)), tuple(map(float, after)))
