"""Intervals per row by conformal prediction on out-of-fold log residuals.

How wide a row's interval is follows its predicted price, how far the heads are apart, whether a relative of the row was
learned from, and whether it has an image: a quantile regression of the log of the residual on these. Such a regression
holds the stated coverage within each of the kinds of rows that it knows (Gibbs, Cherian and Candes 2023). One factor
for all rows then makes it hold for rows that the regression was not fitted on.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

MAX_BANDS = 8
MIN_ROWS_PER_BAND = 200
LEAST_OF_A_KIND = 60  # rows with a relative, or without an image, for a width of their own
LEAST_RESIDUAL = 1e-4  # of log price; smaller ones are alike
SMOOTH = 0.05  # log half-width about which the loss of the regression is rounded
KINDS = ("spread", "family", "product", "no_image")


@dataclass(frozen=True)
class RowKinds:
    """What is known of rows beside their predicted price; None: nothing."""

    spread: np.ndarray | None = None  # (n_rows,) standard deviation of the heads' log prices
    level: np.ndarray | None = (
        None  # (n_rows,) closest relative among the rows learned from, see `expected.LEVELS`
    )
    has_image: np.ndarray | None = None  # (n_rows,) bool

    def rows(self, chosen: np.ndarray) -> "RowKinds":
        """Of the chosen rows, by positions or mask."""
        return RowKinds(
            *(None if part is None else part[chosen] for part in (self.spread, self.level, self.has_image))
        )

    def columns(self) -> dict[str, np.ndarray]:
        """What the width depends on, name -> shape (n_rows,)."""
        found = {}
        if self.spread is not None:
            found["spread"] = np.log(self.spread + 0.02)
        if self.level is not None:
            found |= {"family": (self.level >= 1).astype(float), "product": (self.level >= 2).astype(float)}
        if self.has_image is not None:
            found["no_image"] = (~self.has_image).astype(float)
        return found


@dataclass(frozen=True)
class Intervals:
    """Half-widths in log price: a price p lies within p / exp(h) and p * exp(h). Plain data, JSON both ways.

    With knots, log h is linear between them, and each term adds its slope times what the row's value is above its
    middle. Blends of before 0.2 have `edges` between bands of price and one half-width each instead.
    """

    coverage: float  # stated probability, 0 to 1
    edges: tuple[float, ...] = ()  # log prices between the bands, increasing
    half_widths: tuple[float, ...] = ()  # one per band
    knots: tuple[float, ...] = ()  # log prices, increasing
    log_widths: tuple[float, ...] = ()  # one per knot
    slopes: dict[str, float] | None = None  # of `KINDS` that the width depends on
    middles: dict[str, float] | None = None  # where the width is that of the knots
    limits: tuple[float, float] | None = None  # log prices that no interval reaches beyond

    def half_width(self, log_price: np.ndarray, kinds: RowKinds | None = None) -> np.ndarray:
        """Shape (n_rows,), of predicted log prices of shape (n_rows,). What `kinds` does not say is taken as the middle."""
        if not self.knots:
            band = np.searchsorted(np.array(self.edges), log_price, side="right")
            return np.array(self.half_widths)[band]
        log_width = np.interp(log_price, self.knots, self.log_widths)
        known = {} if kinds is None else kinds.columns()
        for name, slope in (self.slopes or {}).items():
            if name in known:
                log_width = log_width + slope * (known[name] - (self.middles or {})[name])
        return np.asarray(np.exp(log_width))

    def bounds(self, log_price: np.ndarray, kinds: RowKinds | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Log prices that a row's interval runs from and to, each of shape (n_rows,), within the limits."""
        width = self.half_width(log_price, kinds)
        low, high = self.limits or (-np.inf, np.inf)
        return (
            np.minimum(np.maximum(log_price - width, low), log_price),
            np.maximum(np.minimum(log_price + width, high), log_price),
        )

    def narrowed(self, factor: float) -> "Intervals":
        """Every half-width times a factor, > 0."""
        return replace(self, log_widths=tuple(width + float(np.log(factor)) for width in self.log_widths))

    def to_json(self) -> dict[str, Any]:
        return {
            name: list(v) if isinstance(v, tuple) else v
            for name, v in asdict(self).items()
            if v not in ((), None)
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Intervals":
        known: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in value.items() if name in FIELDS
        }
        return cls(**known)


FIELDS = frozenset(Intervals.__dataclass_fields__)


def fit_intervals(
    log_price: np.ndarray,
    log_actual: np.ndarray,
    coverage: float,
    kinds: RowKinds | None = None,
    limits: tuple[float, float] | None = None,
    latest: np.ndarray | None = None,
) -> Intervals:
    """Intervals from predictions of rows that the blend never saw, both of shape (n_rows,).

    The factor of all widths is the residual quantile that covers a new exchangeable row with at least the stated
    probability, on halves of the rows that the regression of the other half is applied to. Where rows follow one
    another in time, the latest come nearest to new ones: the factor is taken from these, the regression from all others.

    Args:
        latest: shape (n_rows,) bool; None: rows are in no order.
    """
    kinds = kinds or RowKinds()
    residual = np.abs(log_price - log_actual)
    if latest is not None and not latest.all():
        before = _fit(log_price[~latest], residual[~latest], coverage, kinds.rows(~latest))
        ratio = residual[latest] / before.half_width(log_price[latest], kinds.rows(latest))
        return replace(before, limits=limits).narrowed(max(_quantile(ratio, coverage), LEAST_RESIDUAL))
    half = np.random.default_rng(0).permutation(len(log_price)) % 2
    ratio = np.empty(len(log_price))
    for part in (0, 1):
        fitted = _fit(log_price[half == part], residual[half == part], coverage, kinds.rows(half == part))
        there = half != part
        ratio[there] = residual[there] / fitted.half_width(log_price[there], kinds.rows(there))
    found = _fit(log_price, residual, coverage, kinds)
    factor = float(np.log(max(_quantile(ratio, coverage), LEAST_RESIDUAL)))
    return Intervals(
        coverage,
        knots=found.knots,
        log_widths=tuple(width + factor for width in found.log_widths),
        slopes=found.slopes,
        middles=found.middles,
        limits=limits,
    )


def _fit(log_price: np.ndarray, residual: np.ndarray, coverage: float, kinds: RowKinds) -> Intervals:
    """A quantile regression of the log residual, by its smoothed loss."""
    from scipy.optimize import minimize

    n_knots = int(np.clip(len(log_price) // MIN_ROWS_PER_BAND, 1, MAX_BANDS)) + 1
    knots = np.unique(np.quantile(log_price, np.arange(n_knots) / (n_knots - 1)))
    if len(knots) == 1:
        knots = knots[0] + np.array([-1e-3, 1e-3])
    inside = np.clip(log_price, knots[0], knots[-1])
    hats = np.column_stack([np.interp(inside, knots, one) for one in np.eye(len(knots))])
    columns = {name: v for name, v in kinds.columns().items() if _tells(name, v)}
    middles = {name: float(v.mean()) for name, v in columns.items()}
    X = np.column_stack([hats, *(v - middles[name] for name, v in columns.items())])
    y = np.log(np.maximum(residual, LEAST_RESIDUAL))

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        z = (y - X @ beta) / SMOOTH  # pinball loss, rounded: t + log(1 + exp(-t)) for max(t, 0)
        value = SMOOTH * (np.logaddexp(0, z) - (1 - coverage) * z)
        slope = (1 - coverage) - 1 / (1 + np.exp(-np.clip(z, -500, 500)))
        return float(value.mean()), X.T @ slope / len(y)

    start = np.zeros(X.shape[1])
    start[: len(knots)] = np.quantile(y, coverage)
    beta = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    slopes = {name: float(b) for name, b in zip(columns, beta[len(knots) :], strict=True)}
    return Intervals(
        coverage,
        knots=tuple(map(float, knots)),
        log_widths=tuple(map(float, beta[: len(knots)])),
        slopes=slopes,
        middles=middles,
    )


def _tells(name: str, values: np.ndarray) -> bool:
    if name == "spread":
        return bool(np.ptp(values) > 0)
    return bool(min(values.sum(), len(values) - values.sum()) >= LEAST_OF_A_KIND)


def crossfitted_intervals(
    log_price: np.ndarray,
    log_actual: np.ndarray,
    fold: np.ndarray,
    coverage: float,
    kinds: RowKinds | None = None,
    *,
    looks_back: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows lie inside intervals fitted on the other folds, and the half-width of each; both of shape (n_rows,).

    Args:
        looks_back: folds follow one another in time, and intervals are fitted on earlier ones alone. Those of the first
            fold are unknown, and their half-width NaN.
    """
    kinds = kinds or RowKinds()
    half_width = np.full(len(fold), np.nan)
    for k in np.unique(fold):
        here, others = fold == k, fold < k if looks_back else fold != k
        if not others.any():
            continue
        latest = latest_of(fold[others]) if looks_back else None
        fitted = fit_intervals(
            log_price[others], log_actual[others], coverage, kinds.rows(others), latest=latest
        )
        half_width[here] = fitted.half_width(log_price[here], kinds.rows(here))
    return np.abs(log_price - log_actual) <= half_width, half_width


def latest_of(fold: np.ndarray) -> np.ndarray:
    """Rows of the last of folds that follow one another in time, bool of shape (n_rows,), as `fold`."""
    return np.asarray(fold == fold.max())


def crossfitted_coverage(
    log_price: np.ndarray, log_actual: np.ndarray, fold: np.ndarray, coverage: float
) -> tuple[float, float]:
    """Share of rows inside intervals fitted on the other folds, and their median factor exp(half-width)."""
    inside, half_width = crossfitted_intervals(log_price, log_actual, fold, coverage)
    return float(inside.mean()), float(np.exp(np.median(half_width)))


def coverage_by_kind(inside: np.ndarray, log_price: np.ndarray, kinds: RowKinds) -> dict[str, float]:
    """Kind of rows -> share of them inside; kinds of fewer than `LEAST_OF_A_KIND` rows are left out.

    Args:
        inside: bool, shape (n_rows,), as the predicted `log_price`.
    """
    band = np.searchsorted(np.quantile(log_price, (0.25, 0.5, 0.75)), log_price, side="right")
    masks = {f"price quarter {b + 1}": band == b for b in range(4)}
    if kinds.level is not None:
        masks |= {"with a relative": kinds.level > 0, "without a relative": kinds.level == 0}
    if kinds.has_image is not None:
        masks |= {"with an image": kinds.has_image, "without an image": ~kinds.has_image}
    return {name: float(inside[m].mean()) for name, m in masks.items() if m.sum() >= LEAST_OF_A_KIND}


def interval_score(half_width: np.ndarray, residual: np.ndarray, coverage: float) -> float:
    """Mean interval score in log price (Gneiting and Raftery 2007), lower is better: width, and misses by how far.

    Args:
        half_width, residual: shape (n_rows,); the sign of a residual does not matter.
    """
    beyond = np.maximum(np.abs(residual) - half_width, 0.0)
    return float(np.mean(2 * half_width + 2 / (1 - coverage) * beyond))


def _quantile(residual: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) * coverage)-th smallest of n residuals; the largest where that is beyond n."""
    rank = min(int(np.ceil((len(residual) + 1) * coverage - 1e-9)), len(residual))
    return float(np.partition(residual, rank - 1)[rank - 1])
