"""`stacked`: a second level of boosted trees, on the out-of-fold prices of other heads and on fields."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.rows import Rows
from heads.folds.crossfit import LEAST_GROUPS, crossfit
from heads.kernels.kernel_ridge import KernelRidge
from heads.linear.additive import Additive
from heads.trees.boosted import Boosted


@dataclass(kw_only=True, eq=False)
class Stacked(Boosted):
    """Boosted trees that correct the mean of `additive` and `kernel-ridge`, on both, components, fields and categories.

    Both heads are cross-fitted on the inner folds of the rows fitted on, so that the trees learn from prices with the
    same errors as those of new rows, and nothing outside of the rows fitted on enters. New rows are priced by both
    heads fitted on all of these rows.
    """

    name: ClassVar[str] = "stacked"
    summary: ClassVar[str] = (
        "boosted trees on the out-of-fold prices of additive and kernel-ridge, and on fields"
    )
    texts: ClassVar[tuple[str, ...]] = ("full", "name")
    libraries: ClassVar[tuple[str, ...]] = ("lightgbm", "scikit-learn", "scipy")
    code_version: ClassVar[int] = 4

    kernels: bool = True  # use kernel-ridge beside additive on the first level

    def _fit_below(self, rows: Rows, log_price: np.ndarray, cell: np.ndarray) -> np.ndarray:
        unfitted: list[Head] = [Additive(random_state=self.random_state)]
        if self.kernels:
            unfitted.append(KernelRidge(random_state=self.random_state))
        groups = [len(np.unique(rows.group[cell != held])) for held in np.unique(cell)]
        if len(groups) < 2 or min(groups) < LEAST_GROUPS or np.ptp(log_price) == 0:
            self.below_: list[Head] = []  # too few rows for a second level
            return super()._fit_below(rows, log_price, cell)
        found = [crossfit(head, rows, log_price, cell) for head in unfitted]
        self.below_ = [one.model for one in found]
        return np.column_stack([one.oof for one in found])

    def _below(self, rows: Rows) -> np.ndarray:
        if not self.below_:
            return super()._below(rows)
        return np.column_stack([head.predict(rows) for head in self.below_])

    def fitted_state(self) -> dict[str, Any]:
        """See `Head.fitted_state`."""
        return super().fitted_state() | {"below_": [head.fitted_state() for head in self.below_]}

    def restore(self, state: dict[str, Any], rows: Callable[[pa.Array], Rows]) -> None:
        """See `Head.restore`."""
        heads = [Additive(), KernelRidge()][: len(state["below_"])]
        for head, own in zip(heads, state["below_"], strict=True):
            head.restore(own, rows)
        super().restore(state | {"below_": heads}, rows)
