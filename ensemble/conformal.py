"""Intervals per row by split conformal prediction on out-of-fold log residuals.

Rows are sorted into bands of predicted price (Mondrian), since cheap and dear products err by different
factors; a band's half-width is the residual quantile that covers a new exchangeable row with at least the
stated probability.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BANDS = 8
MIN_ROWS_PER_BAND = 200


@dataclass(frozen=True)
class Intervals:
    """Half-widths in log price: a price p lies within p / exp(h) and p * exp(h)."""

    coverage: float  # stated probability, 0 to 1
    edges: tuple[float, ...]  # log prices between the bands, increasing
    half_widths: tuple[float, ...]  # one per band

    def half_width(self, log_price: np.ndarray) -> np.ndarray:
        """Shape (n_rows,), of predicted log prices of shape (n_rows,)."""
        band = np.searchsorted(np.array(self.edges), log_price, side="right")
        return np.array(self.half_widths)[band]

    def to_json(self) -> dict[str, Any]:
        return {
            "coverage": self.coverage,
            "edges": list(self.edges),
            "half_widths": list(self.half_widths),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Intervals":
        return cls(value["coverage"], tuple(value["edges"]), tuple(value["half_widths"]))


def fit_intervals(log_price: np.ndarray, log_actual: np.ndarray, coverage: float) -> Intervals:
    """Intervals from predictions of rows that the blend never saw, both of shape (n_rows,).

    Where a band holds too few rows for the stated coverage its widest residual is taken.
    """
    n_bands = int(np.clip(len(log_price) // MIN_ROWS_PER_BAND, 1, MAX_BANDS))
    edges = np.unique(np.quantile(log_price, np.arange(1, n_bands) / n_bands))
    band = np.searchsorted(edges, log_price, side="right")
    residual = np.abs(log_price - log_actual)
    widths = [_quantile(residual[band == b], coverage) for b in range(len(edges) + 1)]
    filled = [w if np.isfinite(w) else _quantile(residual, coverage) for w in widths]
    return Intervals(coverage, tuple(map(float, edges)), tuple(map(float, filled)))


def crossfitted_coverage(
    log_price: np.ndarray, log_actual: np.ndarray, fold: np.ndarray, coverage: float
) -> tuple[float, float]:
    """Share of rows inside intervals fitted on the other folds, and their median factor exp(half-width)."""
    inside = np.empty(len(fold), dtype=bool)
    half_width = np.empty(len(fold))
    for k in np.unique(fold):
        here = fold == k
        half_width[here] = fit_intervals(log_price[~here], log_actual[~here], coverage).half_width(
            log_price[here]
        )
        inside[here] = np.abs(log_price[here] - log_actual[here]) <= half_width[here]
    return float(inside.mean()), float(np.exp(np.median(half_width)))


def _quantile(residual: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) * coverage)-th smallest of n residuals; the largest where that is beyond n."""
    if len(residual) == 0:
        return float("nan")
    rank = min(int(np.ceil((len(residual) + 1) * coverage - 1e-9)), len(residual))
    return float(np.partition(residual, rank - 1)[rank - 1])
