"""`ridge`: the whole path of penalties for all folds from one pass over the data."""

import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import FoldPredictions, Head
from heads.gram import Layout, Path, Scaling, Sums, predict_paths, solve_path, sum_cells
from heads.nested import NestedPlan, Split
from heads.rows import Rows
from store.errors import HeadError


@dataclass(kw_only=True, eq=False)
class Ridge(Head):
    """Squared error in log price; the penalty is chosen by SMAPE on folds inside the training rows.

    Sums over folds are shared by every model that `NestedPlan` asks for, so choosing the penalty of each
    fold without a look at it costs one reduction of a Gram matrix a pair of folds. Test rows: a refit on
    all rows with the penalty of the best out-of-fold SMAPE.
    """

    name: ClassVar[str] = "ridge"
    summary: ClassVar[str] = "linear in vectors and fields; all folds and penalties from one pass"
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    n_penalties: int = 20
    n_neighbours: int = 2  # folds that score the penalty of a fold
    low: float = 1e-6  # smallest penalty a row, where every block of columns has a total variance of 1
    high: float = 1.0  # largest
    scale: str = "block"  # vectors: "block" keeps the geometry, "column" gives each column unit variance
    fields: bool = True
    number_weight: float = 1.0  # scale of the numbers where a vector set has 1
    category_weight: float = 1.0  # scale of the categories where a vector set has 1
    min_count: int = 5  # training rows that must hold a category

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        self._cross(rows, log_price, NestedPlan.for_fit(rows.group))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`; two passes over the rows, one to sum and one to predict."""
        oof, chosen = self._cross(train, log_price, NestedPlan.of(fold, train.group, self.n_neighbours))
        learned = [{"penalty": float(self.penalties[setting])} for setting in chosen]
        return FoldPredictions(oof, None if test is None else self.predict(test), learned, self)

    def _cross(self, rows: Rows, log_price: np.ndarray, plan: NestedPlan) -> tuple[np.ndarray, list[int]]:
        """Out-of-fold log price and each fold's setting; leaves the model of all rows in `path_`."""
        if self.scale not in ("block", "column"):
            raise HeadError(f"ridge: scale must be 'block' or 'column', got {self.scale!r}")
        scaling = Scaling(self.scale, self.number_weight, self.category_weight, self.min_count)
        self.layout_ = Layout.of(rows, self.min_count, self.fields)
        cells = sum_cells(rows, log_price, plan.cell, self.layout_)

        def solve(fitted: frozenset[int], penalties: np.ndarray) -> Path:
            return solve_path(
                Sums.joined([cells[c] for c in sorted(fitted)]), self.layout_, scaling, penalties
            )

        paths = {fitted: solve(fitted, self.penalties) for fitted in {fitted for fitted, _ in plan.splits}}
        predicted: dict[Split, np.ndarray] = {}
        for scored in sorted({scored for _, scored in plan.splits}):
            here = [split for split in plan.splits if split[1] == scored]
            index = np.flatnonzero(plan.cell == scored)
            found = predict_paths(self.layout_, rows, index, [paths[fitted] for fitted, _ in here])
            predicted |= dict(zip(here, found, strict=True))
        best, oof = self.n_penalties // 2, np.empty(0)
        chosen: list[int] = []
        if predicted:
            oof, chosen, errors = plan.choose(log_price, predicted)
            best = int(np.argmin(errors))
        self.penalty_ = float(self.penalties[best])
        self.path_ = solve(plan.cells, np.array([self.penalty_]))
        return oof, chosen

    def _predict(self, rows: Rows) -> np.ndarray:
        return predict_paths(self.layout_, rows, np.arange(len(rows)), [self.path_])[0][:, 0]

    def learned(self) -> dict[str, Any]:
        return {"penalty": self.penalty_}

    def files(self) -> dict[str, bytes]:
        """`ridge.npz`: coefficients on raw columns, shift and intercept; `ridge.json`: what the columns are."""
        content = io.BytesIO()
        np.savez(
            content,
            coefficients=self.path_.coefficients[:, 0],
            intercept=self.path_.intercept[0],
            shift=self.layout_.shift,
        )
        return {"ridge.npz": content.getvalue(), "ridge.json": json.dumps(self.layout_.describe()).encode()}

    @property
    def penalties(self) -> np.ndarray:
        """The path, shape (n_penalties,): scikit-learn's alpha over the number of rows fitted on."""
        return np.geomspace(self.low, self.high, self.n_penalties)
