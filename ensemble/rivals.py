"""Rival ways to make one price of many heads: each is fitted on some parts of the rows, never on others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from ensemble.means import ABSOLUTE_LOG, CURVES, MeanName, combine
from ensemble.medians import Medians
from ensemble.simplex import TOLERANCE, best_counts
from ensemble.surface import Surface

Method = Literal[
    "grid-arithmetic",
    "grid-geometric",
    "grid-harmonic",
    "median",
    "weighted-median",
    "greedy",
    "convex",
    "average",
]
METHODS: tuple[Method, ...] = (
    "grid-geometric",
    "grid-arithmetic",
    "grid-harmonic",
    "greedy",
    "convex",
    "median",
    "weighted-median",
)
GREEDY_ROUNDS = 50


@dataclass(frozen=True)
class Mix:
    """One way to make one price of many: a mean and its weights."""

    method: Method
    mean: MeanName
    weights: np.ndarray  # (n_heads,), >= 0, sum 1

    def log_price(self, log_prices: np.ndarray) -> np.ndarray:
        """Shape (n_rows,), from (n_rows, n_heads)."""
        return combine(self.mean, log_prices, self.weights)


@dataclass
class Rivals:
    """Fits any method on any parts of the same rows; evaluations are shared between fits."""

    log_prices: np.ndarray  # (n_rows, n_heads)
    log_actual: np.ndarray  # (n_rows,)
    part: np.ndarray  # (n_rows,) int, 0..n_parts-1
    total: int = 100  # units of weight: 100 is a grid of 0.01
    _surfaces: dict[str, Surface] = field(default_factory=dict)
    _fits: dict[tuple[str, tuple[int, ...]], Mix] = field(default_factory=dict)

    @property
    def n_heads(self) -> int:
        return int(self.log_prices.shape[1])

    def fit(self, method: Method, parts: Sequence[int]) -> Mix:
        """The method's mix for the rows of `parts`; rows of other parts are not looked at."""
        key = (method, tuple(sorted(parts)))
        if key not in self._fits:
            self._fits[key] = self._fit(method, key[1])
        return self._fits[key]

    @cached_property
    def _medians(self) -> Medians:
        return Medians(self.log_prices, self.log_actual, self.part)

    def best_head_smape(self, parts: Sequence[int]) -> float:
        """SMAPE of the best single head on the rows of `parts`."""
        return float(self._surface("geometric").evaluate(np.eye(self.n_heads), parts)[0].min())

    def _fit(self, method: Method, parts: tuple[int, ...]) -> Mix:
        equal = np.full(self.n_heads, 1.0 / self.n_heads)
        if method == "average":
            return Mix(method, "geometric", equal)
        if method == "median":
            return Mix(method, "median", equal)
        if method == "weighted-median":
            return Mix(method, "median", self._medians.best(parts))
        if method == "greedy":
            return Mix(method, "geometric", self._greedy(parts))
        if method == "convex":
            return Mix(method, "geometric", self._convex(parts))
        mean: MeanName = {
            "grid-arithmetic": "arithmetic",
            "grid-geometric": "geometric",
            "grid-harmonic": "harmonic",
        }[method]  # type: ignore[assignment]
        return Mix(method, mean, best_counts(self._surface(mean), parts, self.total).weights)

    def _surface(self, name: str) -> Surface:
        if name not in self._surfaces:
            curve = ABSOLUTE_LOG if name == "absolute" else CURVES[name]  # type: ignore[index]
            self._surfaces[name] = Surface(curve, self.log_prices, self.log_actual, self.part)
        return self._surfaces[name]

    def _greedy(self, parts: tuple[int, ...]) -> np.ndarray:
        """Ensemble selection with replacement (Caruana et al. 2004), on the mean of log prices."""
        surface, m = self._surface("geometric"), self.n_heads
        counts = np.zeros(m)
        best, best_smape = counts, np.inf
        for taken in range(1, GREEDY_ROUNDS + 1):
            points = (counts + np.eye(m)) / taken
            values, _ = surface.evaluate(points, parts)
            counts = counts + np.eye(m)[int(values.argmin())]
            if values.min() < best_smape - TOLERANCE:
                best, best_smape = counts / taken, float(values.min())
        return best

    def _convex(self, parts: tuple[int, ...]) -> np.ndarray:
        """Least absolute log error over the simplex: convex, so the result does not depend on the start."""
        from scipy.optimize import minimize

        surface, m = self._surface("absolute"), self.n_heads

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = surface.evaluate(weights[None], parts)
            return float(value[0]), slope[0]

        found = minimize(
            loss,
            np.full(m, 1.0 / m),
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * m,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(m)},
            options={"maxiter": 200, "ftol": 1e-7},
        )
        weights = np.clip(found.x, 0.0, None)
        weights[weights < 1e-4] = 0.0
        return weights / weights.sum()
