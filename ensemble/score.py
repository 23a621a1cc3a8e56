"""The blend from Python: of a workspace, or of plain arrays of out-of-fold predictions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.blend import COVERAGE, make_record, read_honest, run_blend
from ensemble.inputs import TrainingRows, check_fold_sizes, read_training_rows, select_predictions
from ensemble.means import CURVES
from ensemble.simplex import best_counts
from ensemble.submission import expected_smape, submit
from ensemble.summary import score_lines
from ensemble.surface import Surface
from heads.defaults import configured_heads
from store.config import load_config
from store.errors import RowMismatchError, WorkspaceError
from store.target import Target, as_log_price, warn_of_prices
from store.workspace import Workspace


@dataclass(frozen=True)
class BlendScore:
    """A blend, and an honest estimate of its SMAPE on new rows; printed, it is a table."""

    smape: float  # of rows that took no part in any choice, percent 0 to 200
    interval: tuple[float, float]  # of that, 95%, over groups
    naive: float  # of the same rows that the blend was fitted on
    method: str
    weights: dict[str, float]  # by head
    heads: dict[str, float]  # SMAPE of each head alone
    log_price: np.ndarray  # (n_rows,) of each row, by a blend that saw no row of its fold
    record: dict[str, Any]  # everything, as `blend.json` has it

    def __str__(self) -> str:
        return "\n".join(score_lines(self.record))

    @property
    def expected(self) -> float:
        """SMAPE that is expected of the test rows by the model of all rows, percent; see docs/score.md."""
        return expected_smape(self.record)

    @property
    def optimism(self) -> float:
        """How much better the naive score looks than the honest one, percent points."""
        return self.smape - self.naive

    @classmethod
    def of(cls, record: dict[str, Any], log_price: np.ndarray) -> "BlendScore":
        """From the content of blend.json and every row's nested log price."""
        scores = record["scores"]
        low, high = scores["nested_interval"]
        return cls(
            scores["nested"], (low, high), scores["naive"], record["method"], record["weights"], scores["heads"],
            log_price, record,
        )  # fmt: skip


def make_blend(
    workspace: Workspace | str | os.PathLike[str],
    heads: Sequence[str] = (),
    *,
    coverage: float = COVERAGE,
    standing: bool = False,
) -> BlendScore:
    """Blend the heads of a workspace: `shelfprice ensemble blend` as a function.

    >>> from ensemble import make_blend
    >>> blend = make_blend("run")  # doctest: +SKIP
    >>> round(blend.smape, 2), blend.weights  # doctest: +SKIP
    (29.54, {'additive': 0.53, 'kernel-ridge': 0.17, 'neighbours': 0.03, 'reranked-neighbours': 0.27})

    Args:
        workspace: one whose heads were trained, or its path or address.
        heads: names of heads to blend, as a trial; none: those of the configuration.
        coverage: probability that a row's interval holds its price.
        standing: make a blend of chosen heads the one that `write_submission` takes.

    Returns:
        The blend with its honest score; printed, it is the table of the command.

    Raises:
        HeadError: no head has finished predictions.
        RowMismatchError, FoldMismatchError: predictions belong to other rows or folds; names the command.
    """
    workspace = Workspace.of(workspace)
    config = load_config(workspace)
    floor = config.submission.price_floor
    record = run_blend(
        workspace, heads, configured_heads(workspace, config), config.seed, coverage, floor, standing=standing
    )
    return BlendScore.of(record, read_honest(workspace, record))


def write_submission(
    workspace: Workspace | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    blend: BlendScore | None = None,
) -> dict[str, Any]:
    """Price the test rows: `shelfprice ensemble submit` as a function.

    Prices go to `submission.csv` and their ranges to `intervals.csv` of the workspace.

    >>> from ensemble import write_submission
    >>> written = write_submission("run")  # doctest: +SKIP
    >>> written["n_rows"], round(written["median_price"], 2)  # doctest: +SKIP
    (150, 24.5)

    Args:
        workspace: one with a blend, or its path or address.
        out: a further local file that gets the same content.
        blend: another than the standing one, whose prices go into its own folder and `out` alone.

    Returns:
        `file` (the submission), `n_rows`, `median_price`, `nested_smape` and more.

    Raises:
        WorkspaceError: nothing was blended yet, or `blend` is a score of which no blend was kept.
        CatalogError: there is no test catalogue.
        FoldMismatchError, RowMismatchError: the blend is older than the folds or the catalogue.
    """
    if blend is not None and "folder" not in blend.record:
        raise WorkspaceError("honest_score keeps no blend to price test rows by: use make_blend")
    workspace = Workspace.of(workspace)
    config = load_config(workspace)
    return submit(
        workspace,
        config.columns,
        None if out is None else Path(out),
        config.submission.price_floor,
        folder=None if blend is None else blend.record["folder"],
    )


def honest_score(
    predictions: Any,
    actual: Any = None,
    folds: Any = None,
    groups: Any = None,
    *,
    target: Target = "log_price",
    seed: int = 42,
) -> BlendScore:
    """Blend out-of-fold predictions and estimate the blend's SMAPE on rows that took no part in it.

    Each fold is priced by a blend that was chosen on the other folds: method, weights and calibration. Nothing is
    written.

    >>> draw = np.random.default_rng(0)
    >>> price = np.exp(draw.normal(3, 1, 200))
    >>> heads = {name: price * np.exp(draw.normal(0, 0.2, 200)) for name in ("one", "other")}
    >>> score = honest_score(heads, price, np.arange(200) % 5, target="price")
    >>> score.smape < min(score.heads.values())  # errors that are independent cancel
    True

    Args:
        predictions: out-of-fold predictions of several heads: head -> shape (n_rows,), a data frame with a column a
            head, or shape (n_rows, n_heads). Or a workspace, whose heads, prices and folds are taken.
        actual: true prices, or log prices, shape (n_rows,).
        folds: the fold of each row that the predictions were made without, shape (n_rows,).
        groups: shape (n_rows,), labels of any kind: rows of one group are one draw. None: each row is its own.
        target: unit of `predictions` and `actual`.
        seed: of the random draws for the intervals.

    Returns:
        SMAPE in percent with its interval, weights, and the blended log price of each row; printed, it is a table.

    Raises:
        RowMismatchError: lengths differ, or a fold has fewer than two groups.
        PriceError: a price is not finite and > 0.
    """
    if isinstance(predictions, (Workspace, str, os.PathLike)):
        workspace = Workspace.of(predictions)
        config = load_config(workspace)
        rows = read_training_rows(
            workspace, select_predictions(workspace, (), configured_heads(workspace, config))
        )
        inputs = {"seed": config.seed, "price_floor": config.submission.price_floor}
    elif actual is None or folds is None:
        raise RowMismatchError("a score of arrays needs the actual prices and the folds, or give a workspace")
    else:
        rows = _rows(predictions, actual, folds, groups, target)
        inputs = {"seed": seed, "price_floor": float(np.finfo(np.float64).tiny)}
    record, log_price = make_record(rows, inputs | {"coverage": COVERAGE})
    return BlendScore.of(record, log_price)


def best_weights(predictions: Any, actual: Any, *, target: Target = "log_price") -> dict[str, float]:
    """Weights on a grid of 0.01 whose mean of log prices has the lowest SMAPE on these rows.

    >>> price = np.array([10.0, 20.0, 40.0, 80.0])
    >>> best_weights({"close": price * 1.01, "far": price * 3}, price, target="price")
    {'close': 1.0, 'far': 0.0}

    Args:
        predictions, actual, target: see `honest_score`, which says what such weights are worth on new rows.

    Returns:
        Head -> weight, >= 0, sum 1.

    Raises:
        RowMismatchError: lengths differ.
        PriceError: a price is not finite and > 0.
    """
    rows = _rows(predictions, actual, None, None, target)
    part = np.zeros(len(rows.log_actual), np.int64)
    surface = Surface(CURVES["geometric"], rows.log_prices, rows.log_actual, part)
    return dict(zip(rows.heads, best_counts(surface, [0]).weights.tolist(), strict=True))


def _rows(predictions: Any, actual: Any, folds: Any, groups: Any, target: Target) -> TrainingRows:
    log_actual = as_log_price(actual, target, "actual")
    if target == "log_price":
        warn_of_prices(log_actual, "actual", stacklevel=4)
    n_rows = len(log_actual)
    columns = _columns(predictions)
    index = np.arange(n_rows)
    groups = index if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    lengths = {
        "actual": n_rows,
        **{head: len(column) for head, column in columns.items()},
        "groups": len(groups),
    }
    if folds is not None:
        folds = np.asarray(folds)
        lengths["folds"] = len(folds)
    wrong = [f"{count} of {name}" for name, count in lengths.items() if count != n_rows]
    if wrong or not columns:
        raise RowMismatchError(
            f"a blend needs one value of each for every row, got {n_rows} of actual and {', '.join(wrong) or 'no predictions'}"
        )
    if folds is not None:
        check_fold_sizes(folds, groups)
    log_prices = [as_log_price(column, target, f"predictions of {head}") for head, column in columns.items()]
    return TrainingRows(
        pa.array(index), tuple(columns), np.stack(log_prices, axis=1), log_actual,
        index if folds is None else folds, groups, None,
    )  # fmt: skip


def _columns(predictions: Any) -> dict[str, np.ndarray]:
    """Head -> shape (n_rows,)."""
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        predictions = {name: predictions[name] for name in predictions.columns}
    if isinstance(predictions, Mapping):
        return {str(head): np.asarray(column, dtype=np.float64) for head, column in predictions.items()}
    matrix = np.asarray(predictions, dtype=np.float64)
    if matrix.ndim != 2:
        raise RowMismatchError(
            f"predictions need a column a head, shape (n_rows, n_heads), got {matrix.shape}"
        )
    return {f"head {i}": matrix[:, i] for i in range(matrix.shape[1])}
