"""`catboost`: CatBoost's boosted trees, which take categories as they are, on components of vectors and fields."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.blocks import with_bare_numbers
from heads.features.rows import Rows
from heads.folds.nested import inner_cells
from heads.folds.parallel import n_cores
from heads.params import MOST_SEED, param
from heads.trees.columns import ComponentColumns
from store.weights import weighted_median

STOPPING_CELLS = 8  # one in so many groups is set aside to stop early
LEAST_ROWS = 20  # on which iterations are searched
SHORT = 100  # iterations where there are fewer


@dataclass(kw_only=True, eq=False)
class CatBoost(Head):
    """CatBoost on log price, on principal components of vectors, fields and categories.

    Statistics of categories are CatBoost's own, taken in random orders of the training rows. Iterations are found on
    an inner split of the rows fitted on, groups whole. Test rows: a refit on all training rows with the mean of the
    folds' iterations.
    """

    name: ClassVar[str] = "catboost"
    summary: ClassVar[str] = "CatBoost on components, fields and categories, stopped early inside folds"
    texts: ClassVar[tuple[str, ...]] = ("name",)
    extra: ClassVar[str | None] = "catboost"
    libraries: ClassVar[tuple[str, ...]] = ("catboost",)
    side_by_side: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    components: int = param(32, low=1, high=65_536)  # principal components of each vector set
    learning_rate: float = param(0.05, low=1e-9, high=1)
    n_estimators: int = param(2000, low=1, high=1_000_000)  # trees, at most
    patience: int = param(50, low=1, high=1_000_000)  # iterations without a better inner error
    max_depth: int = param(6, low=1, high=16)
    huber_bend: float = param(0.3, low=1e-6, high=1e6)  # where the loss turns linear, in log price
    max_bin: int = param(128, low=1, high=65_535)
    colsample_bylevel: float = param(0.5, low=1e-9, high=1)  # share of columns that each level of a tree uses
    subsample: float = param(0.8, low=1e-9, high=1)
    reg_lambda: float = param(3.0, low=0, high=1e9)
    random_state: int = param(0, low=0, high=MOST_SEED)
    n_jobs: int = param(0, low=0, high=4096)  # cores, 0: all

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        rows = with_bare_numbers(rows)
        self.columns_ = ComponentColumns(self.components).fit(rows)
        self.middle_ = weighted_median(log_price, rows.weight)
        target = log_price - self.middle_
        given: int | None = vars(self).get("given_")
        self.iterations_ = given or self._search(rows, target)
        self.model_ = self._trained(rows, target, self.iterations_)

    def _predict(self, rows: Rows) -> np.ndarray:
        if self.model_ is None:
            return np.full(len(rows), self.middle_)
        pool = self._pool(with_bare_numbers(rows))
        return np.asarray(self.model_.predict(pool, thread_count=n_cores(self.n_jobs))) + self.middle_

    def learned(self) -> dict[str, Any]:
        return {"iterations": self.iterations_}

    def for_refit(self, learned: list[dict[str, Any]]) -> "CatBoost":
        """The mean of the folds' iterations; none are searched again."""
        head = self.clone()
        vars(head)["given_"] = round(float(np.mean([chosen["iterations"] for chosen in learned])))
        return head

    # ---- parts -----------------------------------------------------------------------------------

    def _search(self, rows: Rows, target: np.ndarray) -> int:
        """Iterations of the least mean absolute error on groups set aside."""
        aside = inner_cells(rows.group, STOPPING_CELLS) == 0
        few = min(SHORT, self.n_estimators)
        if len(rows) < LEAST_ROWS or not aside.any():
            return few
        stopper = self._pool(rows.subset(aside), target[aside])
        model = self._trained(rows.subset(~aside), target[~aside], self.n_estimators, stopper)
        return few if model is None else int(model.get_best_iteration() or 0) + 1

    def _trained(self, rows: Rows, target: np.ndarray, iterations: int, stopper: Any = None) -> Any:
        """A CatBoostRegressor; None where nothing tells the rows apart, which CatBoost refuses."""
        catboost = self.library("catboost")
        X = self.columns_.values(rows, slice(None))
        if np.ptp(target) == 0 or not _differ(X).any():
            return None
        sampling: dict[str, Any] = {"bootstrap_type": "No"}
        if (
            LEAST_ROWS <= self.subsample * len(target) < len(target)
        ):  # CatBoost refuses shares that may be empty
            sampling = {"bootstrap_type": "Bernoulli", "subsample": self.subsample}
        model = catboost.CatBoostRegressor(
            iterations=iterations,
            learning_rate=self.learning_rate,
            depth=self.max_depth,
            loss_function=f"Huber:delta={self.huber_bend}",
            eval_metric="MAE",
            border_count=self.max_bin,
            rsm=self.colsample_bylevel,
            **sampling,
            l2_leaf_reg=self.reg_lambda,
            random_seed=self.random_state,
            thread_count=n_cores(self.n_jobs),
            allow_writing_files=False,
            logging_level="Silent",
        )
        stopping = {} if stopper is None else {"eval_set": stopper, "early_stopping_rounds": self.patience}
        return model.fit(self._pool(rows, target), **stopping)

    def _pool(self, rows: Rows, target: np.ndarray | None = None) -> Any:
        """Numbers as float32, categories as the numbers of their levels, in CatBoost's own container."""
        catboost = self.library("catboost")
        X, categories = self.columns_.values(rows, slice(None)), self.columns_.categorical
        codes = np.where(np.isnan(X[:, categories]), -1, X[:, categories]).astype(np.int64)
        numbers = np.ascontiguousarray(np.delete(X, categories, axis=1), np.float32)
        held = {"num_feature_data": numbers} if numbers.shape[1] else {}
        if categories:
            held["cat_feature_data"] = codes.astype("S20").astype(object)
        return catboost.Pool(catboost.FeaturesData(**held), label=target, weight=rows.weight)


def _differ(X: np.ndarray) -> np.ndarray:
    """Columns of which two rows hold different values, missing being one, shape (n_columns,) bool."""
    return np.asarray(((X[:1] != X) & ~(np.isnan(X) & np.isnan(X[:1]))).any(axis=0))
