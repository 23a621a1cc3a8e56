"""`ridge`: the whole path of penalties for all folds from one pass over the data."""

import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import FoldPredictions, Head
from heads.features.rows import Rows
from heads.folds.nested import NestedPlan, Split
from heads.folds.parallel import each_on_a_core
from heads.linear.gram import Sums, sum_cells
from heads.linear.layout import ColumnLayout
from heads.linear.path import Path, Scaling, check_path, predict_paths, solve_path
from heads.params import param


@dataclass(kw_only=True, eq=False)
class Ridge(Head):
    """Ridge regression of log price on vectors and fields; the penalty is chosen by SMAPE on inner folds.

    Sums over folds are shared by every model that `NestedPlan` asks for, so choosing the penalty and the weights of
    the vector sets without the fold's rows costs one reduction of a Gram matrix for each pair of folds. Test rows: a
    refit on all rows with the penalty of the best out-of-fold SMAPE.
    """

    name: ClassVar[str] = "ridge"
    summary: ClassVar[str] = "linear in vectors and fields; all folds and penalties from one pass"
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)
    code_version: ClassVar[int] = 2
    beyond_memory: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    n_alphas: int = param(20, low=1, high=1000, was="n_penalties")
    n_inner_folds: int = param(
        2, low=1, high=2, was="n_neighbours"
    )  # inner folds that score the penalty of a fold
    alpha_min: float = param(  # smallest penalty that is tried, for each row
        1e-6, above=0, high=1e12, was="low"
    )
    alpha_max: float = param(1.0, above=0, high=1e12, was="high")
    scale: str = param(  # scaling of vectors: one factor for each set, or one for each column
        "block", one_of=("block", "column")
    )
    fields: bool = True  # use parsed fields
    held_back: float = param(0.3, low=0, high=100)  # weight that is tried for each vector set, beside 1
    number_weight: float = param(2.0, low=0, high=1e6)
    category_weight: float = param(3.0, low=0, high=1e6)
    min_count: int = param(5, low=1, high=1e9)  # training rows that must hold a category

    def _check_together(self) -> None:
        check_path(self.name, self.alpha_min, self.alpha_max)

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        self._cross(rows, log_price, NestedPlan.for_fit(rows.group))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`; two passes over the rows, one to sum and one to predict."""
        oof, learned = self._cross(train, log_price, NestedPlan.of(fold, train.group, self.n_inner_folds))
        return FoldPredictions(oof, None if test is None else self.predict(test), learned, self)

    def _cross(
        self, rows: Rows, log_price: np.ndarray, plan: NestedPlan
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Out-of-fold log price and what each fold chose; leaves the model of all rows in `path_`."""
        self.layout_ = ColumnLayout.of(rows, self.min_count, self.fields)
        cells = sum_cells(rows, log_price, plan.cell, self.layout_)
        scalings = self._scalings(len(rows.matrices))

        def solve(fitted: frozenset[int], scaling: Scaling, penalties: np.ndarray) -> Path:
            return solve_path(
                Sums.joined([cells[c] for c in sorted(fitted)]), self.layout_, scaling, penalties
            )

        def predict(paths: dict[Split, Path]) -> dict[Split, np.ndarray]:
            predicted: dict[Split, np.ndarray] = {}
            for scored in sorted({scored for _, scored in paths}):
                here = [split for split in paths if split[1] == scored]
                index = np.flatnonzero(plan.cell == scored)
                found = predict_paths(self.layout_, rows, index, [paths[split] for split in here])
                predicted |= dict(zip(here, found, strict=True))
            return predicted

        # Settings are weightings of the vector sets times penalties, flat; penalties run fastest.
        fitted_on = sorted({fitted for fitted, _ in plan.inner_splits}, key=sorted)
        pairs = [(f, scaling) for f in fitted_on for scaling in scalings]
        solved = each_on_a_core(lambda pair: solve(*pair, self.alphas), pairs)
        inner_paths = {
            f: Path.joined(solved[at * len(scalings) : (at + 1) * len(scalings)])
            for at, f in enumerate(fitted_on)
        }
        of_inner = predict({split: inner_paths[split[0]] for split in plan.inner_splits})
        inner = plan.inner_errors(log_price, of_inner, rows.weight)
        chosen = {held: divmod(int(np.argmin(errors)), self.n_alphas) for held, errors in inner.items()}
        best = (
            divmod(int(np.argmin(sum(inner.values()))), self.n_alphas) if inner else (0, self.n_alphas // 2)
        )
        oof = np.empty(0)
        if plan.outer:
            of_fold = each_on_a_core(
                lambda held: solve(plan.outer[held][0][0], scalings[chosen[held][0]], self.alphas),
                plan.folds,
            )
            paths = {
                split: path
                for path, splits in zip(of_fold, plan.outer.values(), strict=True)
                for split in splits
            }
            settings = {held: penalty for held, (_, penalty) in chosen.items()}
            oof, errors = plan.collect(log_price, predict(paths), settings)
            best = best[0], int(np.argmin(errors))
        self.scaling_, self.penalty_ = scalings[best[0]], float(self.alphas[best[1]])
        final = plan.cells, self.scaling_, np.array([self.penalty_])
        (self.path_,) = each_on_a_core(lambda one: solve(*one), [final])
        return oof, [self._describe(scalings[chosen[h][0]], self.alphas[chosen[h][1]]) for h in plan.folds]

    def _scalings(self, n_sets: int) -> list[Scaling]:
        """Weightings to choose from: equal weights, and each set in turn with the weight `held_back`."""
        weights = np.ones((1 + n_sets, n_sets))
        weights[np.arange(1, 1 + n_sets), np.arange(n_sets)] = self.held_back
        n_tried = 1 + n_sets if n_sets > 1 and self.held_back != 1.0 else 1
        shared = self.scale, self.number_weight, self.category_weight, self.min_count
        return [Scaling(tuple(weights[i].tolist()), *shared) for i in range(n_tried)]

    def _describe(self, scaling: Scaling, penalty: float) -> dict[str, Any]:
        return {"alpha": float(penalty), "vector_weights": list(scaling.vector_weights)}

    def _predict(self, rows: Rows) -> np.ndarray:
        index = np.arange(len(rows))  # in float64: a price does not depend on the other rows
        return predict_paths(self.layout_, rows, index, [self.path_], np.float64)[0][:, 0]

    def learned(self) -> dict[str, Any]:
        return self._describe(self.scaling_, self.penalty_)

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
    def alphas(self) -> np.ndarray:
        """The path, shape (n_alphas,): scikit-learn's alpha over the number of rows fitted on."""
        return np.geomspace(self.alpha_min, self.alpha_max, self.n_alphas)
