"""`xgboost`: boosted trees on wide vectors: few columns a tree, SMAPE as objective."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.components import ComponentFeatures
from heads.features.rows import Rows
from heads.folds.nested import inner_cells
from heads.params import MOST_SEED, param
from heads.trees.columns import TreeColumns
from heads.trees.objectives import DERIVATIVES, boosting_objective, weight_of
from store.metric import smape_log
from store.vectors.ondisk import scratch_folder
from store.weights import weighted_median

STOPPING_CELLS = 8  # one in so many groups is set aside to stop early
BATCH_ROWS = 4096
PAGE_ROWS = 65_536  # of the binned matrix, where it lies in a file

Values = Callable[[np.ndarray], np.ndarray]  # positions -> (n_chosen, n_columns) float32, NaN where missing


@dataclass(kw_only=True, eq=False)
class XGBoost(Head):
    """XGBoost on log price of vectors and fields.

    Each fold's iterations are found on an inner split of its own training rows, of which bin edges are quantiles too.
    With `components`, trees see principal components instead, fitted inside the fold. Test rows: a refit on all
    training rows with the mean of the iterations.
    """

    name: ClassVar[str] = "xgboost"
    summary: ClassVar[str] = "histogram trees on vectors and fields, with SMAPE as objective"
    libraries: ClassVar[tuple[str, ...]] = ("xgboost",)
    code_version: ClassVar[int] = 3
    beyond_memory: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    loss: str = param("smape", one_of=tuple(DERIVATIVES))
    learning_rate: float = param(0.1, low=1e-9, high=10)
    n_estimators: int = param(1000, low=1, high=1_000_000, was="rounds")  # trees, at most
    patience: int = param(40, low=1, high=1_000_000)  # iterations without a better inner score
    max_depth: int = param(7, low=1, high=30)
    min_child_weight: float = param(5.0, low=0, high=1e9)
    max_bin: int = param(64, low=2, high=65_535)
    colsample_bytree: float = param(
        0.2, low=1e-9, high=1, was="columns"
    )  # share of columns that each tree uses
    subsample: float = param(0.8, low=1e-9, high=1, was="rows")  # share of rows that each tree uses
    reg_lambda: float = param(2.0, low=0, high=1e9, was="l2")
    components: int = param(0, low=0, high=65_536)  # principal components of each vector set, 0: the vectors
    fields: bool = True  # use parsed fields
    random_state: int = param(42, low=0, high=MOST_SEED)
    n_jobs: int = param(0, low=0, high=4096)  # cores, 0: all

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        given: int | None = vars(self).get("given_")
        index = np.arange(len(rows))
        values = self._values_of(rows)
        whole = self._bins(values, index, log_price, None)
        self.iterations_ = given or self._iterations(values, index, rows.group, log_price, whole)
        self.booster_ = self._train(whole, log_price, self.iterations_)

    def for_refit(self, learned: list[dict[str, Any]]) -> "XGBoost":
        """The mean of the folds' iterations; none are searched again."""
        head = self.clone()
        vars(head)["given_"] = round(float(np.mean([chosen["iterations"] for chosen in learned])))
        return head

    def _predict(self, rows: Rows) -> np.ndarray:
        import xgboost

        predicted = np.empty(len(rows))
        for start in range(0, len(rows), BATCH_ROWS):
            part = np.arange(start, min(start + BATCH_ROWS, len(rows)))
            if self.components:
                values = self.features_.transform(rows.subset(part))
            else:
                values = self.columns_.values(rows, part)
            predicted[part] = self.booster_.predict(xgboost.DMatrix(values, nthread=self._threads))
        return predicted

    def learned(self) -> dict[str, Any]:
        return {"iterations": self.iterations_}

    def files(self) -> dict[str, bytes]:
        """`model.ubj`: XGBoost's own format."""
        return {"model.ubj": bytes(self.booster_.save_raw("ubj"))}

    # ---- parts -----------------------------------------------------------------------------------

    @property
    def _threads(self) -> int | None:
        return self.n_jobs or None

    def _values_of(self, rows: Rows) -> Values:
        self._scratch, self._weight = None, rows.weight
        if self.components:
            self.features_ = ComponentFeatures(self.components, self.fields).fit(rows)
            X = self.features_.transform(rows)
            return lambda index: X[index]
        self._scratch = scratch_folder() if rows.on_disk else None
        self.columns_ = TreeColumns.of(rows, fields=self.fields)
        return lambda index: self.columns_.values(rows, index)

    def _bins(self, values: Values, index: np.ndarray, log_price: np.ndarray, cuts: Any) -> Any:
        """A binned matrix of the rows at `index`, read in batches; with the edges of `cuts` where given."""
        import xgboost

        cache = None if self._scratch is None else f"{self._scratch.name}/{secrets.token_hex(4)}"
        weight = self._weight
        rows = BATCH_ROWS if cache is None else PAGE_ROWS

        class Batches(xgboost.DataIter):
            """Rows in batches, so that no float copy of the whole matrix is made."""

            def __init__(self) -> None:
                super().__init__(cache_prefix=cache)
                self.start = 0

            def next(self, input_data: Callable[..., None]) -> bool:
                if self.start >= len(index):
                    return False
                part = index[self.start : self.start + rows]
                given = {} if weight is None else {"weight": weight[part]}
                input_data(data=values(part), label=log_price[part], **given)
                self.start += rows
                return True

            def reset(self) -> None:
                self.start = 0

        kind = xgboost.QuantileDMatrix if cache is None else xgboost.ExtMemQuantileDMatrix
        return kind(Batches(), ref=cuts, max_bin=self.max_bin, nthread=self._threads)

    def _iterations(
        self, values: Values, index: np.ndarray, group: np.ndarray, log_price: np.ndarray, cuts: Any
    ) -> int:
        """Iterations that are best on an inner split of the rows at `index`, whose groups are `group`."""
        aside = inner_cells(group, STOPPING_CELLS) == 0
        if not aside.any() or aside.all():
            return min(100, self.n_estimators)
        seen = index[~aside]
        data = self._bins(values, seen, log_price, cuts)
        judged = self._bins(values, index[aside], log_price, data)
        booster = self._train(data, log_price[seen], self.n_estimators, judged)
        return int(booster.best_iteration) + 1

    def _train(self, data: Any, log_price: np.ndarray, iterations: int, judged: Any = None) -> Any:
        import xgboost

        params = {
            "tree_method": "hist",
            "eta": self.learning_rate,
            "max_depth": self.max_depth,
            "min_child_weight": float(np.float32(self.min_child_weight)),  # XGBoost refuses what underflows
            "max_bin": self.max_bin,
            "colsample_bytree": self.colsample_bytree,
            "subsample": self.subsample,
            "lambda": float(np.float32(self.reg_lambda)),
            "base_score": weighted_median(log_price, weight_of(data)),
            "seed": self.random_state,
            "disable_default_eval_metric": True,
        } | ({"nthread": self.n_jobs} if self.n_jobs else {})
        stopping = (
            {} if judged is None else {"early_stopping_rounds": self.patience, "evals": [(judged, "aside")]}
        )
        return xgboost.train(
            params,
            data,
            num_boost_round=iterations,
            obj=boosting_objective(self.loss, log_price),
            custom_metric=_smape,
            verbose_eval=False,
            **stopping,
        )


def _smape(predicted: np.ndarray, data: Any) -> tuple[str, float]:
    actual = data.get_label().astype(np.float64)
    return "smape", smape_log(actual, predicted.astype(np.float64), weight_of(data))
