"""`lightgbm`: gradient boosted trees on components of vectors and fields, a fold a core."""

import io
import json
import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.rows import Rows
from heads.folds.nested import inner_cells
from heads.folds.parallel import n_cores
from heads.params import MOST_SEED, param
from heads.trees.columns import ComponentColumns, TreeColumns
from heads.trees.objectives import DERIVATIVES, boosting_objective, weight_of
from store.metric import smape_log
from store.weights import weighted_median

BIN_SAMPLE = 20_000  # rows whose quantiles are the bin edges
ONE_CORE_CELLS = 4_000_000  # rows times columns; below, cores wait for one another longer than they work
STOPPING_CELLS = 8  # one in so many groups is set aside to stop early
BUILT_IN = {"huber-log": "huber", "mae-log": "regression_l1", "mse-log": "regression"}


@dataclass(kw_only=True, eq=False)
class LightGBM(Head):
    """LightGBM on log price, on principal components of vectors and fields.

    Each fold's iterations are found on an inner split of its own training rows. Trees see principal components of each
    vector set, fitted inside the fold: a tenth of the columns, and a direction in which products differ is one column
    and not a little of each. With `components` 0 they see the vectors. Bin edges are quantiles of the fold's own
    training rows. Test rows: a refit on all training rows with the mean of the iterations.
    """

    name: ClassVar[str] = "lightgbm"
    summary: ClassVar[str] = "boosted trees on components of vectors and fields, stopped early inside folds"
    libraries: ClassVar[tuple[str, ...]] = ("lightgbm",)
    side_by_side: ClassVar[bool] = True
    beyond_memory: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    loss: str = param("huber-log", one_of=tuple(DERIVATIVES))
    huber_bend: float = param(0.3, low=1e-6, high=1e6)  # where huber-log turns linear, in log price
    components: int = param(64, low=0, high=65_536)  # principal components of each vector set, 0: the vectors
    fields: bool = True  # use parsed fields
    learning_rate: float = param(0.1, low=1e-9, high=10)
    n_estimators: int = param(1000, low=1, high=1_000_000)  # trees, at most
    patience: int = param(40, low=1, high=1_000_000)  # iterations without a better inner error
    num_leaves: int = param(31, low=2, high=131_072)
    min_data_in_leaf: int = param(10, low=0, high=1e9)
    max_bin: int = param(63, low=2, high=65_535)
    colsample_bytree: float = param(  # share of columns that each tree uses
        0.5, low=1e-9, high=1, was="feature_fraction"
    )
    subsample: float = param(
        0.8, low=1e-9, high=1, was="bagging_fraction"
    )  # share of rows that each tree uses
    reg_lambda: float = param(1.0, low=0, high=1e9, was="lambda_l2")
    cat_smooth: float = param(  # rows of the overall mean added to a category before ordering
        1.0, low=0, high=1e9
    )
    random_state: int = param(0, low=0, high=MOST_SEED)
    n_jobs: int = param(0, low=0, high=4096)  # cores, 0: all

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        given: int | None = vars(self).get("given_")
        binned, index = self._bin(rows), np.arange(len(rows))
        self.iterations_ = given or self._iterations(binned, index, rows.group, log_price)
        self._train(binned, index, log_price)

    def predictions_version(self) -> int:
        """See `Head.predictions_version`: without components, bins were once cut over the rows of all folds."""
        return self.code_version + (0 if self.components else 1)

    def for_refit(self, learned: list[dict[str, Any]]) -> "LightGBM":
        """The mean of the folds' iterations; none are searched again."""
        head = self.clone()
        vars(head)["given_"] = round(float(np.mean([chosen["iterations"] for chosen in learned])))
        return head

    def _predict(self, rows: Rows) -> np.ndarray:
        predicted = np.empty(len(rows))
        for start in range(0, len(rows), self.columns_.batch_rows):
            part = slice(start, start + self.columns_.batch_rows)
            values = self.columns_.values(rows, part)
            predicted[part] = self.booster_.predict(values, num_threads=n_cores(self.n_jobs))
        return predicted + self.middle_

    def learned(self) -> dict[str, Any]:
        return {"iterations": self.iterations_}

    def files(self) -> dict[str, bytes]:
        """`model.txt`: LightGBM's own text format, of log price less `middle` of `lightgbm.json`; `axes.npz`: of components."""
        files = {
            "model.txt": self.booster_.model_to_string().encode(),
            "lightgbm.json": json.dumps({"middle": self.middle_, "iterations": self.iterations_}).encode(),
        }
        if isinstance(self.columns_, ComponentColumns):
            content = io.BytesIO()
            np.savez(content, **self.columns_.arrays())  # type: ignore[arg-type]
            files["axes.npz"] = content.getvalue()
        return files

    # ---- parts -----------------------------------------------------------------------------------

    def _params(self) -> dict[str, Any]:
        return {
            "alpha": self.huber_bend,
            "metric": "None",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "max_bin": self.max_bin,
            "bin_construct_sample_cnt": BIN_SAMPLE,
            "feature_fraction": self.colsample_bytree,
            "bagging_fraction": self.subsample,
            "bagging_freq": 1,
            "lambda_l2": self.reg_lambda,
            "cat_smooth": self.cat_smooth,
            "cat_l2": self.cat_smooth,
            "min_data_per_group": 5,
            "seed": self.random_state,
            "num_threads": n_cores(self.n_jobs),
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }

    def _bin(self, rows: Rows) -> Any:
        """All rows binned; leaves what makes their columns in `columns_`."""
        import lightgbm

        lightgbm.register_logger(quiet_logger())
        self.columns_: TreeColumns | ComponentColumns
        if self.components:
            self.columns_ = ComponentColumns(self.components, self.fields).fit(rows)
        else:
            self.columns_ = TreeColumns.of(rows, fields=self.fields)
        columns = self.columns_

        class Batches(lightgbm.Sequence):
            """Rows in batches, so that no float64 copy of the whole matrix is made."""

            batch_size = columns.batch_rows

            def __getitem__(self, index: Any) -> np.ndarray:
                single = not isinstance(index, slice)
                found = columns.values(rows, np.atleast_1d(index) if single else index).astype(np.float64)
                return found[0] if single else found

            def __len__(self) -> int:
                return len(rows)

        few = self.components and not rows.on_disk
        whole = columns.values(rows, slice(None)) if few else Batches()
        binned = lightgbm.Dataset(
            whole,
            label=np.zeros(len(rows)),
            weight=rows.weight,
            categorical_feature=columns.categorical,
            params=self._params(),
        )
        return binned.construct()

    def _iterations(self, binned: Any, index: np.ndarray, group: np.ndarray, log_price: np.ndarray) -> int:
        """Iterations that are best on an inner split of the rows at `index`, whose groups are `group`."""
        import lightgbm

        aside = inner_cells(group, STOPPING_CELLS) == 0
        if not aside.any() or aside.all():
            return min(100, self.n_estimators)
        middle = _median_at(binned, log_price, index[~aside])
        stopper = _subset(binned, index[aside], log_price - middle)
        booster = self._boost(
            _subset(binned, index[~aside], log_price - middle),
            self.n_estimators,
            valid_sets=[stopper],
            feval=_smape,
            callbacks=[lightgbm.early_stopping(self.patience, verbose=False)],
        )
        return int(booster.best_iteration)

    def _train(self, binned: Any, index: np.ndarray, log_price: np.ndarray) -> None:
        self.middle_ = _median_at(binned, log_price, index)
        self.booster_ = self._boost(_subset(binned, index, log_price - self.middle_), self.iterations_)

    def _boost(self, data: Any, iterations: int, **stopping: Any) -> Any:
        import lightgbm

        objective = BUILT_IN.get(self.loss) or boosting_objective(self.loss, data.get_label())
        threads = threads_of(data.num_data() * data.num_feature(), self.n_jobs)
        least = 1.5 / data.num_data()  # of a share of the rows that holds one
        params = {**self._params(), "objective": objective, "num_threads": threads}
        params["bagging_fraction"] = max(self.subsample, min(least, 1.0))
        return lightgbm.train(params, data, num_boost_round=iterations, **stopping)


def threads_of(n_cells: int, wanted: int = 0) -> int:
    """Cores that a fit of so many rows times columns is given, `wanted` of them or for 0 all."""
    return 1 if n_cells < ONE_CORE_CELLS else n_cores(wanted)


def _subset(binned: Any, index: np.ndarray, target: np.ndarray) -> Any:
    """The rows at `index`, ascending, with their weights, and their target of shape (n_binned,)."""
    part = binned.subset(index).construct().set_label(target[index])
    weight = weight_of(binned)
    return part if weight is None else part.set_weight(weight[index])


def _median_at(binned: Any, log_price: np.ndarray, index: np.ndarray) -> float:
    weight = weight_of(binned)
    return weighted_median(log_price[index], None if weight is None else weight[index])


def _smape(predicted: np.ndarray, data: Any) -> tuple[str, float, bool]:
    return "smape", smape_log(data.get_label().astype(np.float64), predicted, weight_of(data)), False


def quiet_logger() -> logging.Logger:
    """LightGBM prints warnings to stdout, where results belong; here only errors are shown, on stderr."""
    logger = logging.getLogger("lightgbm")
    logger.setLevel(logging.ERROR)
    return logger
