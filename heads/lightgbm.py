"""`lightgbm`: gradient boosted trees on vectors and fields, binned once for all folds."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import FoldPredictions, Head
from heads.design import TreeColumns
from heads.nested import inner_cells
from heads.rows import Rows

BIN_SAMPLE = 20_000  # rows whose quantiles are the bin edges
STOPPING_CELLS = 8  # one in so many groups is set aside to stop early


@dataclass(kw_only=True, eq=False)
class LightGBM(Head):
    """Trees on log price; each fold's iterations are found on an inner split of its own training rows.

    Bin edges are quantiles of features over all training rows (no price enters), so that rows are binned
    once and folds are subsets. Test rows: a refit on all training rows with the mean of the iterations.
    """

    name: ClassVar[str] = "lightgbm"
    summary: ClassVar[str] = "boosted trees on vectors and fields, binned once, stopped early inside folds"
    libraries: ClassVar[tuple[str, ...]] = ("lightgbm",)
    beyond_memory: ClassVar[bool] = True

    objective: str = "huber"  # in log price: "huber", "regression_l1", "regression"
    huber_alpha: float = 0.3  # where Huber's loss turns linear, in log price
    learning_rate: float = 0.08
    n_estimators: int = 1500  # at most
    patience: int = 50  # iterations without a better inner error
    num_leaves: int = 31
    min_data_in_leaf: int = 10
    max_bin: int = 63
    feature_fraction: float = 0.2  # columns a tree sees
    bagging_fraction: float = 0.8  # rows a tree sees
    lambda_l2: float = 1.0
    random_state: int = 0
    n_jobs: int = 0  # threads, 0: all cores

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        self.columns_ = TreeColumns.of(rows)
        binned = self._bin(rows, log_price)
        index = np.arange(len(rows))
        self.iterations_ = self._iterations(binned, index, rows.group)
        self.booster_ = self._train(binned, index, self.iterations_)

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`."""
        self.columns_ = TreeColumns.of(train)
        binned = self._bin(train, log_price)
        oof, learned = np.empty(len(train)), []
        for held in np.unique(fold):
            inside = np.flatnonzero(fold != held)
            self.iterations_ = self._iterations(binned, inside, train.group[inside])
            self.booster_ = self._train(binned, inside, self.iterations_)
            outside = np.flatnonzero(fold == held)
            oof[outside] = self._predict(train.subset(outside))
            learned.append(self.learned())
        self.iterations_ = round(float(np.mean([found["iterations"] for found in learned])))
        self.booster_ = self._train(binned, np.arange(len(train)), self.iterations_)
        return FoldPredictions(oof, None if test is None else self.predict(test), learned, self)

    def _predict(self, rows: Rows) -> np.ndarray:
        predicted = np.empty(len(rows))
        for start in range(0, len(rows), self.columns_.batch_rows):
            part = slice(start, start + self.columns_.batch_rows)
            predicted[part] = self.booster_.predict(self.columns_.values(rows, part), num_threads=self.n_jobs)
        return predicted

    def learned(self) -> dict[str, Any]:
        return {"iterations": self.iterations_}

    def files(self) -> dict[str, bytes]:
        """`model.txt`: LightGBM's own text format."""
        return {"model.txt": self.booster_.model_to_string().encode()}

    def _params(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "alpha": self.huber_alpha,
            "metric": "l1",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "max_bin": self.max_bin,
            "bin_construct_sample_cnt": BIN_SAMPLE,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.lambda_l2,
            "seed": self.random_state,
            "num_threads": self.n_jobs,
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }

    def _bin(self, rows: Rows, log_price: np.ndarray) -> Any:
        import lightgbm

        lightgbm.register_logger(_quiet_logger())
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

        binned = lightgbm.Dataset(
            Batches(), label=log_price, categorical_feature=columns.categorical, params=self._params()
        )
        return binned.construct()

    def _iterations(self, binned: Any, index: np.ndarray, group: np.ndarray) -> int:
        """Iterations that are best on an inner split of the rows at `index`."""
        import lightgbm

        aside = inner_cells(group, STOPPING_CELLS) == 0
        if not aside.any() or aside.all():
            return min(100, self.n_estimators)
        inner = binned.subset(np.sort(index[~aside]))
        stopper = binned.subset(np.sort(index[aside]))
        booster = lightgbm.train(
            self._params(),
            inner,
            num_boost_round=self.n_estimators,
            valid_sets=[stopper],
            callbacks=[lightgbm.early_stopping(self.patience, verbose=False)],
        )
        return int(booster.best_iteration)

    def _train(self, binned: Any, index: np.ndarray, iterations: int) -> Any:
        import lightgbm

        return lightgbm.train(self._params(), binned.subset(index), num_boost_round=iterations)


def _quiet_logger() -> logging.Logger:
    """LightGBM prints warnings to stdout, where results belong; here only errors are shown, on stderr."""
    logger = logging.getLogger("lightgbm")
    logger.setLevel(logging.ERROR)
    return logger
