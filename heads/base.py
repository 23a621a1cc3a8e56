"""The base of every head: a scikit-learn regressor from `Rows`, or a plain matrix, to log price or price.

A head is a keyword-only dataclass whose fields are its parameters, so its module imports nothing heavy:
libraries are imported inside `_fit` and `_predict`, which see log prices alone.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import numpy as np

from heads.features.rows import Rows
from heads.params import check_params, current_params, param, recorded_params
from store.errors import HeadError
from store.target import Target, as_log_price, warn_of_prices
from store.weights import relative_weights, repetitions

if TYPE_CHECKING:
    from types import ModuleType

    import pyarrow as pa

# Log price: a prediction further outside of the prices that it was learned from is an error caused by one odd row.
MOST_BEYOND = float(np.log(10.0))


@dataclass(frozen=True)
class FoldPredictions:
    """Out-of-fold predictions of the training rows, predictions of the test rows, and the model that is kept."""

    oof: np.ndarray  # (n_train,) log price
    test: np.ndarray | None  # (n_test,) log price; None: no test rows
    learned: list[dict[str, Any]]  # per fold: what was chosen inside it (penalty, iterations), JSON
    model: "Head"  # fitted on all training rows, or one of the fold models where those are averaged
    evidence: "pa.Table | None" = None  # what the prices were taken from, see `Head.explain`
    fold_models: "tuple[Head, ...]" = ()  # whose mean predicts the test rows; none: `model` does


@dataclass(kw_only=True, eq=False)
class Head:
    """Base of every head: parameters, input checks, and the hooks that the fold loop calls.

    `fit(X, y)` takes a matrix of shape (n_rows, n_features), in which a row that is NaN throughout has no vector, or
    `Rows`, whose groups stay together wherever a head splits rows inside a fit. y, shape (n_rows,), holds log prices,
    or prices > 0 with `target="price"`; `predict(X)` gives the same, float64, shape (n_rows,).

    >>> import numpy as np, heads
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> head = heads.Ridge(target="price").fit(X, np.exp(X[:, 0]))
    >>> head.predict(X[:2]).shape
    (2,)

    A subclass is decorated `@dataclass(kw_only=True, eq=False)`, has defaults for every field, declares what each may
    be by `heads.params.param`, and implements `_fit` and `_predict`. What it learns ends in an underscore.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for `shelfprice heads list`
    vectors: ClassVar[tuple[str, ...] | None] = None  # vector sets it reads; None: those of the configuration
    texts: ClassVar[tuple[str, ...]] = ()  # text compositions it reads
    extra: ClassVar[str | None] = None  # extra of setup.cfg without which it can't run
    libraries: ClassVar[tuple[str, ...]] = ()  # distributions whose versions the report names
    beyond_memory: ClassVar[bool] = False  # trains from vectors in a file, batch by batch
    # Its fit gives each row what `Rows.weight` says. False: it is fitted on rows repeated in proportion, without weights.
    takes_weights: ClassVar[bool] = False
    code_version: ClassVar[int] = 1  # raised when the same parameters yield other predictions
    # Test rows: a refit on all training rows, or the mean of the fold models (no further fit, less variance).
    test_mode: ClassVar[Literal["refit", "average"]] = "refit"
    # What lies above the error that remains falls as rows ** -learning_exponent; 0: as much with each doubling.
    learning_exponent: ClassVar[float] = 0.7
    # Folds are fitted in parallel, each on one core: for heads that gain less from several cores.
    side_by_side: ClassVar[bool] = False

    # What `fit` takes and `predict` gives; a run on a workspace keeps to log price.
    target: Target = param("log_price", one_of=get_args(Target), recorded=False)  # noqa: RUF009 - a field

    def __post_init__(self) -> None:
        self._set(self.get_params())

    # ---- to implement ----------------------------------------------------------------------------

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        raise NotImplementedError

    def _predict(self, rows: Rows) -> np.ndarray:
        raise NotImplementedError

    # ---- to override where it applies ------------------------------------------------------------

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions | None:
        """All folds in one batched pass; None (the default): the fold loop fits one after the other.

        Args:
            train: all training rows, in the order of log_price and fold, each of shape (n_train,).
            test: rows to predict after a refit on all training rows; None: there are none.
        """
        return None

    def predictions_version(self) -> int:
        """The version of the code that decides what these parameters predict; raised, predictions are made again.

        `code_version`, unless only some parameters yield other predictions than before.
        """
        return self.code_version

    def prepared(self, rows: Rows) -> Rows:
        """The rows with what is the same for every fold and takes long, for the fold loop; fits nothing."""
        return rows

    def explain(self, rows: Rows, split: str) -> "tuple[np.ndarray, pa.Table | None]":
        """Log price of each row, shape (n_rows,), and what it was taken from; None where a head can't say.

        Args:
            split: which rows these are, for a column of that name: "oof" or "test".
        """
        return self.predict(rows), None

    def library(self, name: str) -> "ModuleType":
        """The library of `extra`.

        Raises:
            HeadError: it is not installed; names the command.
        """
        try:
            return import_module(name)
        except ImportError as error:
            raise HeadError(
                f"{self.name} needs {error.name or name}, which is not installed: run 'pip install shelfprice[{self.extra}]'"
            ) from error

    def learned(self) -> dict[str, Any]:
        """What a fitted head chose from its training rows (penalty, iterations), as JSON."""
        return {}

    def for_refit(self, learned: list[dict[str, Any]]) -> "Head":
        """The unfitted head that is fitted on all training rows, given what each fold's head `learned`."""
        return self.clone()

    def files(self) -> dict[str, bytes]:
        """The fitted model as files, name -> content; never a pickle. Empty where that is not cheap."""
        return {}

    def fitted_state(self) -> dict[str, Any]:
        """What a fitted head learned, by attribute, for `heads.fitted`; without vectors of training rows.

        Values are plain ones, arrays, sparse matrices, boosters, and dataclasses of this package.
        """
        known = self.get_params()
        return {name: v for name, v in vars(self).items() if name not in known and not name.startswith("_")}

    def restore(self, state: dict[str, Any], rows: "Callable[[pa.Array], Rows]") -> None:
        """Take over what `fitted_state` gave.

        Args:
            rows: ids -> those training rows, for what is made of their vectors.
        """
        vars(self).update(state)

    def _check_together(self) -> None:
        """Raises HeadError for parameters that contradict one another, each being within its range."""

    # ---- scikit-learn's ways ---------------------------------------------------------------------

    def fit(self, X: Rows | np.ndarray, y: np.ndarray) -> Self:
        """Fit on rows (or a plain matrix, shape (n_rows, n_columns)) and their `target`, shape (n_rows,).

        A row of a matrix that is NaN throughout is a row without a vector.

        Raises:
            HeadError: a parameter is out of its range, lengths differ, no rows, a price is not > 0, or a log price is
                not finite.
        """
        self.check()
        if not isinstance(X, Rows):
            from sklearn.utils.validation import validate_data

            checked, y = validate_data(self, X, y, y_numeric=True, **MATRIX_CHECKS)
            X = rows_of_matrix(checked, self.name)
            if self.target == "log_price":
                warn_of_prices(y, self.name)
        assert not X.folded, "a fold must be chosen first"
        y = np.asarray(y, dtype=np.float64)
        if y.shape != (len(X),) or len(y) == 0:
            unit = self.target.replace("_", " ")
            raise HeadError(f"{self.name}: fit needs one {unit} a row, got {y.shape} for {len(X)} rows")
        log_price = as_log_price(y, self.target, self.name, X.sample_id)
        self._fit(*_weighed(X, log_price, self.takes_weights))
        self.range_ = float(log_price.min()), float(log_price.max())
        return self

    def predict(self, X: Rows | np.ndarray) -> np.ndarray:
        """The `target` of each row, shape (n_rows,) float64; a price is within ten times those learned from."""
        if not isinstance(X, Rows):
            from sklearn.utils.validation import check_is_fitted, validate_data

            check_is_fitted(self)
            X = rows_of_matrix(validate_data(self, X, reset=False, **MATRIX_CHECKS), self.name, seen=False)
        assert not X.folded, "a fold must be chosen first"
        log_price = np.asarray(self._predict(X), dtype=np.float64)
        if self.target == "log_price":
            return log_price
        low, high = self.range_
        return np.exp(np.clip(log_price, low - MOST_BEYOND, high + MOST_BEYOND))

    def score(self, X: Rows | np.ndarray, y: np.ndarray) -> float:
        """R2 of the target: of log price, or of price."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def recorded_params(self) -> dict[str, Any]:
        """Parameters that decide log prices, by the names that records on disk know them by.

        Raises:
            HeadError: the unit of the target is price, and predictions on disk are log prices.
        """
        if self.target != "log_price":
            raise HeadError(
                f"{self.name}: a run takes prices from the catalogue and predicts log prices: leave out target"
            )
        return recorded_params(type(self), self.get_params())

    def set_params(self, **params: Any) -> Self:
        """Change parameters in place; they are checked when the head is fitted.

        Raises:
            HeadError: a parameter is unknown; names the known ones.
        """
        self._set(current_params(type(self), params))
        return self

    def _set(self, params: dict[str, Any]) -> None:
        """Keep NumPy's numbers, such as those of a grid, as plain ones: libraries and JSON take no others."""
        for name, value in params.items():
            setattr(self, name, value.item() if isinstance(value, np.generic) else value)

    def check(self, label: str = "") -> None:
        """Check that every parameter is within its range.

        Args:
            label: the head as the user calls it, where that is not its name.

        Raises:
            HeadError: one is of another kind or out of range, or two contradict one another.
        """
        check_params(type(self), self.get_params(), label or self.name)
        self._check_together()

    def clone(self) -> Self:
        """An unfitted head with the same parameters."""
        return type(self)(**self.get_params())

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, positive_only=self.target == "price"),
            input_tags=InputTags(),
            regressor_tags=RegressorTags(),
        )


def _weighed(rows: Rows, log_price: np.ndarray, takes_weights: bool) -> tuple[Rows, np.ndarray]:
    """Rows as a head is fitted on them: with weights of mean 1 or, where it takes none, each repeated."""
    if rows.weight is None:
        return rows, log_price
    weight = relative_weights(rows.weight)
    if weight is None or takes_weights:
        return dataclasses.replace(rows, weight=weight), log_price
    index = np.repeat(np.arange(len(rows)), repetitions(weight))
    return dataclasses.replace(rows, weight=None).subset(index), log_price[index]


# How scikit-learn checks a plain matrix; `rows_of_matrix` looks at its NaN.
MATRIX_CHECKS: dict[str, Any] = {
    "dtype": [np.float64, np.float32, np.float16],
    "ensure_all_finite": "allow-nan",
}


def rows_of_matrix(X: np.ndarray, who: str, *, seen: bool = True) -> Rows:
    """See `Rows.from_array`; raises ValueError where a row is NaN in part, or infinite."""
    from sklearn.utils import assert_all_finite

    rows = Rows.from_array(X, seen=seen)
    assert_all_finite(X[rows.matrices[0].valid], estimator_name=who, input_name="X")
    return rows
