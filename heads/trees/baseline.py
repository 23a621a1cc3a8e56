"""`xgboost-baseline`: the winning system's first model, as it was described."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from heads.base import FoldPredictions, Head
from heads.features.brands import BrandReader, ItemNames, find_brands, seen_brands
from heads.features.design import FieldBlock, VectorBlock
from heads.features.rows import FieldTable, Rows
from heads.folds.nested import inner_cells
from heads.params import MOST_SEED, param
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

# How the names of the numbers and categories taken in begin.
NUMBERS = ("log_value", "log_quantity:", "flag:", NUMERIC_PREFIX)
CATEGORIES = ("unit", "quantity_unit", CATEGORICAL_PREFIX)
LEAST_PRICE = 0.01
INNER_FOLDS = 5


@dataclass(kw_only=True, eq=False)
class XGBoostBaseline(Head):
    """The winning system's first model: XGBoost on MiniLM of the item name and parsed fields.

    Fields are value, unit, quantity, four flags, the brand and further columns. 1,000 trees on log(1 + price). A
    brand's target statistic is smoothed towards the mean; for the rows that the trees are fitted on it is taken out of
    fold, so that no row meets its own price in it. Test rows: the mean of the fold models, which spares one more fit
    of 1,000 trees.
    """

    name: ClassVar[str] = "xgboost-baseline"
    summary: ClassVar[str] = (
        "the winning system's baseline: MiniLM of the name, value, flags, brand; 1,000 trees"
    )
    vectors: ClassVar[tuple[str, ...]] = ("minilm@name",)
    texts: ClassVar[tuple[str, ...]] = ("name",)
    extra: ClassVar[str | None] = "starter"
    libraries: ClassVar[tuple[str, ...]] = ("xgboost",)
    code_version: ClassVar[int] = 2
    test_mode: ClassVar = "average"
    takes_weights: ClassVar[bool] = True

    n_estimators: int = param(1000, low=1, high=1_000_000)
    max_depth: int = param(7, low=1, high=30)
    learning_rate: float = param(0.05, low=1e-9, high=10)
    brands: bool = True  # find brands with spaCy; false: no brands
    smoothing: float = param(10.0, low=0, high=1e9)  # rows of the mean that a brand's statistic is mixed with
    random_state: int = param(0, low=0, high=MOST_SEED)
    n_jobs: int = param(0, low=0, high=4096)  # cores, 0: all

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        self.reader_ = BrandReader() if self.brands else None
        self._fit_named(rows, None if self.reader_ is None else self.reader_.read(rows), log_price)

    def _predict(self, rows: Rows) -> np.ndarray:
        return self._predict_named(rows, None if self.reader_ is None else self.reader_.read(rows))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`; spaCy reads each name once for all folds."""
        self.reader_ = BrandReader() if self.brands else None
        names = None if self.reader_ is None else self.reader_.read(train)
        test_names = None if self.reader_ is None or test is None else self.reader_.read(test)
        oof, models = np.empty(len(train)), []
        for held in np.unique(fold):
            inside, outside = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            model = self.clone()
            model.reader_ = self.reader_
            model._fit_named(train.subset(inside), names and names.subset(inside), log_price[inside])
            oof[outside] = model._predict_named(train.subset(outside), names and names.subset(outside))
            models.append(model)
        of_test = None
        if test is not None:
            of_test = np.mean([model._predict_named(test, test_names) for model in models], axis=0)
        return FoldPredictions(oof, of_test, [{}] * len(models), models[-1], fold_models=tuple(models))

    def files(self) -> dict[str, bytes]:
        """`model.ubj`: XGBoost's own format, of the last fold's model; `brands.json`: its brand statistics."""
        statistics = (
            {brand: list(values) for brand, values in self.statistics_.items()} if self.brands else {}
        )
        return {
            "model.ubj": bytes(self.booster_.save_raw("ubj")),
            "brands.json": json.dumps({"mean": self.mean_, "brands": statistics}).encode(),
        }

    def fitted_state(self) -> dict[str, Any]:
        """See `Head.fitted_state`; spaCy's parts are made anew from the brands."""
        state = super().fitted_state()
        return {name: value for name, value in state.items() if name not in ("reader_", "matcher_")}

    def restore(self, state: dict[str, Any], rows: "Callable[[pa.Array], Rows]") -> None:
        """See `Head.restore`."""
        super().restore(state, rows)
        self.reader_ = BrandReader() if self.brands else None
        if self.reader_ is not None:
            self.matcher_ = self.reader_.matcher(self.brands_)

    # ---- parts -----------------------------------------------------------------------------------

    def _fit_named(self, rows: Rows, names: ItemNames | None, log_price: np.ndarray) -> None:
        import xgboost

        target = np.log1p(np.exp(log_price))
        self.mean_ = float(np.average(target, weights=rows.weight))
        self.vectors_ = VectorBlock("none").fit(rows.matrices[0])
        self.fields_ = FieldBlock(fill=False).fit(_baseline_fields(rows))
        columns = [self._columns(rows)]
        if self.reader_ is not None and names is not None:
            self.brands_ = seen_brands(names)
            self.matcher_ = self.reader_.matcher(self.brands_)
            brands = find_brands(names, self.matcher_)
            columns.append(self._out_of_fold_statistics(brands, target, rows))
            self.statistics_ = _statistics(brands, target, rows.weight)
        data = xgboost.QuantileDMatrix(
            np.concatenate(columns, axis=1), label=target, weight=rows.weight, nthread=self.n_jobs
        )
        params = {
            "objective": "reg:squarederror",
            "max_depth": self.max_depth,
            "learning_rate": self.learning_rate,
            "tree_method": "hist",
            "seed": self.random_state,
            "nthread": self.n_jobs,
        }
        self.booster_ = xgboost.train(params, data, num_boost_round=self.n_estimators)

    def _predict_named(self, rows: Rows, names: ItemNames | None) -> np.ndarray:
        predicted = self.booster_.inplace_predict(self._values(rows, names)[0])
        return log_price_of(predicted)

    def _values(self, rows: Rows, names: ItemNames | None) -> tuple[np.ndarray, list[str]]:
        """What the trees see, shape (n_rows, n_columns), and the brand of each row; none without spaCy."""
        if self.reader_ is None or names is None:
            return self._columns(rows), []
        brands = find_brands(names, self.matcher_)
        statistics = self._statistic_columns(brands, self.statistics_, self.mean_)
        return np.concatenate([self._columns(rows), statistics], axis=1), brands

    def _columns(self, rows: Rows) -> np.ndarray:
        return np.concatenate(
            [self.vectors_.transform(rows.matrices[0]), self.fields_.transform(_baseline_fields(rows))],
            axis=1,
        )

    def _out_of_fold_statistics(self, brands: list[str], target: np.ndarray, rows: Rows) -> np.ndarray:
        cell, found = inner_cells(rows.group, INNER_FOLDS), np.empty((len(brands), 2), np.float32)
        for held in np.unique(cell):
            inside, outside = np.flatnonzero(cell != held), np.flatnonzero(cell == held)
            weight = None if rows.weight is None else rows.weight[inside]
            statistics = _statistics([brands[i] for i in inside], target[inside], weight)
            mean = float(np.average(target[inside], weights=weight)) if len(inside) else self.mean_
            found[outside] = self._statistic_columns([brands[i] for i in outside], statistics, mean)
        return found

    def _statistic_columns(
        self, brands: list[str], statistics: dict[str, tuple[float, float]], mean: float
    ) -> np.ndarray:
        """Smoothed mean of log(1 + price) and share of rows of each row's brand, shape (n_rows, 2)."""
        sums, counts = np.array([statistics.get(brand, (0.0, 0)) for brand in brands]).reshape(-1, 2).T
        n_rows = max(sum(count for _, count in statistics.values()), 1)
        smoothed = (sums + self.smoothing * mean) / (counts + self.smoothing)
        return np.column_stack([smoothed, counts / n_rows]).astype(np.float32)


def log_price_of(predicted: np.ndarray) -> np.ndarray:
    """Log price of what the trees predict, log(1 + price)."""
    return np.log(np.maximum(np.expm1(predicted.astype(np.float64)), LEAST_PRICE))


def _statistics(
    brands: list[str], target: np.ndarray, weight: np.ndarray | None
) -> dict[str, tuple[float, float]]:
    """Brand -> (sum of the target, rows), both weighted; rows without a brand count for none."""
    found: dict[str, tuple[float, float]] = {}
    counts = [1] * len(brands) if weight is None else weight.tolist()
    for brand, value, counted in zip(brands, target.tolist(), counts, strict=True):
        if brand:
            total, count = found.get(brand, (0.0, 0))
            found[brand] = total + counted * value, count + counted
    return found


def _baseline_fields(rows: Rows) -> Rows:
    """The rows with value, unit, quantity, flags and the further columns of the user's file as their only fields."""
    fields = rows.fields
    wanted = [i for i, name in enumerate(fields.names) if name.startswith(NUMBERS)]
    categories = {name: c for name, c in fields.categories.items() if name.startswith(CATEGORIES)}
    kept = FieldTable(tuple(fields.names[i] for i in wanted), fields.X[:, wanted], categories)
    return Rows(rows.sample_id, rows.matrices, kept, rows.texts, rows.group)
