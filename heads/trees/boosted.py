"""`boosted`: bags of boosted trees on components, fields and target statistics; inner folds choose their length."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.blocks import with_bare_numbers
from heads.features.rows import FieldTable, Rows
from heads.features.statistics import TargetStatistics
from heads.folds.nested import inner_cells
from heads.folds.parallel import n_cores
from heads.params import MOST_SEED, param
from heads.trees.columns import ComponentColumns
from heads.trees.lightgbm import quiet_logger
from store.weights import weighted_median

LEAST_ROWS = 20  # on which iterations are searched
SHORT = 50  # iterations where there are fewer


@dataclass(kw_only=True, eq=False)
class Boosted(Head):
    """Boosted trees on log price that see each category by its mean log price.

    That mean is taken from inner folds that lack the row, groups whole. Iterations are those of the least mean error
    over the same inner folds. Several runs of trees, each on other shares of rows and columns, are averaged. Test
    rows: a refit on all rows with the mean of the folds' iterations.

    Source: Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes", SIGKDD Explorations 3
    (2001), for the mean of a category; the trees are LightGBM's.
    """

    name: ClassVar[str] = "boosted"
    summary: ClassVar[str] = "bags of boosted trees on components, fields and target statistics of categories"
    texts: ClassVar[tuple[str, ...]] = ("name",)
    libraries: ClassVar[tuple[str, ...]] = ("lightgbm",)
    side_by_side: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    components: int = param(32, low=1, high=65_536)  # principal components of each vector set
    bags: int = param(3, low=1, high=1000)  # ensembles of trees that are averaged
    n_inner_folds: int = param(
        5, low=2, high=100
    )  # inner folds for target statistics and the number of trees
    smoothing: float = param(
        5.0, low=1e-6, high=1e9
    )  # rows of the mean that a category's statistic is mixed with
    huber_bend: float = param(0.3, low=1e-6, high=1e6)  # where the loss turns linear, in log price
    learning_rate: float = param(0.05, low=1e-9, high=10)
    n_estimators: int = param(1000, low=1, high=1_000_000)  # trees, at most
    patience: int = param(50, low=1, high=1_000_000)  # iterations without a better inner error
    num_leaves: int = param(15, low=2, high=131_072)
    min_data_in_leaf: int = param(10, low=0, high=1e9)
    max_bin: int = param(127, low=2, high=65_535)
    colsample_bytree: float = param(0.5, low=1e-9, high=1)
    subsample: float = param(0.8, low=1e-9, high=1)
    reg_lambda: float = param(1.0, low=0, high=1e9)
    random_state: int = param(0, low=0, high=MOST_SEED)
    n_jobs: int = param(0, low=0, high=4096)  # cores, 0: all

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        import lightgbm

        lightgbm.register_logger(quiet_logger())
        cell = inner_cells(rows.group, self.n_inner_folds)
        below = self._fit_below(rows, log_price, cell)
        rows = with_bare_numbers(rows)
        self.columns_ = ComponentColumns(self.components).fit(_without_categories(rows))
        self.statistics_ = TargetStatistics(self.smoothing)
        of_categories = self.statistics_.fit_transform(rows.fields, log_price, cell, rows.weight)
        X = self._values(rows, of_categories, below)
        target = log_price - _start(below)
        self.middle_ = weighted_median(target, rows.weight)
        target -= self.middle_
        given: int | None = vars(self).get("given_")
        self.iterations_ = given or self._search(X, target, cell, rows.weight)
        self.boosters_ = [
            lightgbm.train(
                self._params(X, bag), lightgbm.Dataset(X, target, weight=rows.weight), self.iterations_
            )
            for bag in range(self.bags)
        ]

    def _predict(self, rows: Rows) -> np.ndarray:
        below = self._below(rows)
        rows = with_bare_numbers(rows)
        X = self._values(rows, self.statistics_.transform(rows.fields), below)
        predicted = [np.asarray(one.predict(X, num_threads=n_cores(self.n_jobs))) for one in self.boosters_]
        return np.asarray(_start(below) + self.middle_ + np.mean(predicted, axis=0))

    def _fit_below(self, rows: Rows, log_price: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """What a level below prices each row at without its inner fold, shape (n_rows, n_heads): here there is none."""
        return np.empty((len(rows), 0))

    def _below(self, rows: Rows) -> np.ndarray:
        """What the level below prices new rows at, shape (n_rows, n_heads)."""
        return np.empty((len(rows), 0))

    def learned(self) -> dict[str, Any]:
        return {"iterations": self.iterations_}

    def for_refit(self, learned: list[dict[str, Any]]) -> "Boosted":
        """The mean of the folds' iterations; none are searched again."""
        head = self.clone()
        vars(head)["given_"] = round(float(np.mean([chosen["iterations"] for chosen in learned])))
        return head

    def files(self) -> dict[str, bytes]:
        """`model-<bag>.txt`: LightGBM's own text format, of log price less `middle`; `axes.npz`: of components."""
        content = io.BytesIO()
        np.savez(content, **self.columns_.arrays())  # type: ignore[arg-type]
        record = {"middle": self.middle_, "statistics": self.statistics_.statistics_, **self.learned()}
        models = {
            f"model-{bag}.txt": booster.model_to_string().encode()
            for bag, booster in enumerate(self.boosters_)
        }
        return {**models, "axes.npz": content.getvalue(), "boosted.json": json.dumps(record).encode()}

    # ---- parts -----------------------------------------------------------------------------------

    def _values(self, rows: Rows, of_categories: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Components, numbers, target statistics, log prices of the level below, shape (n_rows, n_columns) float32."""
        values = self.columns_.values(_without_categories(rows), slice(None))
        return np.concatenate([values, of_categories.astype(np.float32), below.astype(np.float32)], axis=1)

    def _search(self, X: np.ndarray, target: np.ndarray, cell: np.ndarray, weight: np.ndarray | None) -> int:
        """Iterations of the least mean absolute error over the inner folds."""
        if len(X) < LEAST_ROWS or len(np.unique(cell)) < 2:
            return min(SHORT, self.n_estimators)
        curves = list(self._curves(X, target, cell, weight))
        shortest = min(len(curve) for curve in curves)
        return 1 + int(np.mean([curve[:shortest] for curve in curves], axis=0).argmin())

    def _curves(
        self, X: np.ndarray, target: np.ndarray, cell: np.ndarray, weight: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """Error after each iteration, of each inner fold by trees fitted on the others."""
        import lightgbm

        for held in np.unique(cell):
            inside, outside = cell != held, cell == held
            of_inside, of_outside = (None if weight is None else weight[at] for at in (inside, outside))
            data = lightgbm.Dataset(X[inside], target[inside], weight=of_inside)
            errors: dict[str, Any] = {}
            lightgbm.train(
                self._params(X[inside], 0),
                data,
                self.n_estimators,
                valid_sets=[data.create_valid(X[outside], target[outside], of_outside)],
                callbacks=[
                    lightgbm.record_evaluation(errors),
                    lightgbm.early_stopping(self.patience, verbose=False),
                ],
            )
            yield np.array(errors["valid_0"]["l1"])

    def _params(self, X: np.ndarray, bag: int) -> dict[str, Any]:
        return {
            "objective": "huber",
            "alpha": self.huber_bend,
            "metric": "l1",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "max_bin": self.max_bin,
            "feature_fraction": self.colsample_bytree,
            "bagging_fraction": max(self.subsample, min(1.5 / len(X), 1.0)),
            "bagging_freq": 1,
            "lambda_l2": self.reg_lambda,
            "seed": self.random_state + bag,
            "num_threads": n_cores(self.n_jobs),
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }


def _start(below: np.ndarray) -> np.ndarray:
    """Where the trees start from: the mean of the level below, 0 without one, shape (n_rows,)."""
    return np.asarray(below.sum(axis=1) / max(below.shape[1], 1))


def _without_categories(rows: Rows) -> Rows:
    fields = rows.fields
    return replace(rows, fields=FieldTable(fields.names, fields.X, {}))
