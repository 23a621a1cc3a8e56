"""`svr`: support vector regression on principal components: small errors cost nothing, large ones count linearly."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.components import ComponentFeatures
from heads.features.rows import Rows
from heads.kernels.mixture import squared_distances
from heads.params import MOST_SEED, param

BLOCK_ROWS = 2048


@dataclass(kw_only=True, eq=False)
class SVR(Head):
    """Support vector regression of log price with a Gaussian kernel, on principal components and fields.

    The solver's time grows with the square of the rows, so beyond `max_rows` it sees a random sample of groups.
    """

    name: ClassVar[str] = "svr"
    summary: ClassVar[str] = "support vector regression on principal components and fields"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)
    code_version: ClassVar[int] = 2
    takes_weights: ClassVar[bool] = True

    components: int = param(128, low=1, high=65_536)  # principal components of each vector set
    C: float = param(3.0, low=1e-6, high=1e6, was="penalty")
    epsilon: float = param(0.03, low=0, high=100)  # errors of log price below this are ignored
    width: float = param(0.3, low=1e-6, high=1e6)  # width of the kernel, in median squared distances
    max_rows: int = param(12_000, low=2, high=1e9)  # training rows that it is fitted on, at most
    fields: bool = True  # use parsed fields
    random_state: int = param(42, low=0, high=MOST_SEED)

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        from sklearn import svm

        self.features_ = ComponentFeatures(self.components, self.fields).fit(rows)
        kept = np.arange(len(rows))
        if len(rows) > self.max_rows:
            unique, inverse = np.unique(rows.group, return_inverse=True)
            rank = np.random.default_rng(self.random_state).permutation(len(unique))[inverse]
            kept = np.sort(np.argsort(rank, kind="stable")[: self.max_rows])
        X = self.features_.transform(rows.subset(kept))
        sample = X[:: max(1, len(X) // 1024)]
        between = squared_distances(sample, sample)[np.triu_indices(len(sample), 1)]
        median = max(float(np.median(between)) if len(between) else 1.0, 1e-6)
        weight = None if rows.weight is None else rows.weight[kept]
        self.mean_ = float(np.average(log_price[kept], weights=weight))
        self.gamma_ = 0.5 / (self.width * median)
        solver = svm.SVR(C=self.C, epsilon=self.epsilon, gamma=self.gamma_, cache_size=1000)
        solver.fit(X, log_price[kept] - self.mean_, weight)
        self.support_, self.dual_ = solver.support_vectors_, solver.dual_coef_[0]
        self.intercept_ = float(solver.intercept_[0])

    def _predict(self, rows: Rows) -> np.ndarray:
        predicted = np.empty(len(rows))
        for start in range(0, len(rows), BLOCK_ROWS):
            part = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
            X = self.features_.transform(rows.subset(part)).astype(np.float64)
            kernel = np.exp(-self.gamma_ * squared_distances(X, self.support_))
            predicted[part] = kernel @ self.dual_
        return predicted + self.intercept_ + self.mean_

    def learned(self) -> dict[str, Any]:
        return {"support_rows": len(self.support_)}
