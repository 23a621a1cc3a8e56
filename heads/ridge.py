"""`ridge`: the whole path of penalties for all folds from one pass over the data."""

import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import FoldPredictions, Head
from heads.gram import Layout, Path, Scaling, Sums, predict_paths, solve_path, sum_cells
from heads.rows import Rows
from store.errors import HeadError
from store.metric import smape_rows

Split = tuple[frozenset[int], int]  # (cells fitted on, cell scored)
INNER_FOLDS = 5


@dataclass(kw_only=True, eq=False)
class Ridge(Head):
    """Squared error in log price; the penalty is chosen by SMAPE on folds inside the training rows.

    For held-out fold k the penalty is scored on folds k-1 and k+1, each by a model fitted without k and
    without the fold that it scores. Sums over folds are shared by all of these models, so that costs one
    reduction of a Gram matrix a pair of folds, and nothing of fold k enters what predicts fold k. The
    penalty of the refit on all rows is the one with the best out-of-fold SMAPE.
    """

    name: ClassVar[str] = "ridge"
    summary: ClassVar[str] = "linear in vectors and fields; all folds and penalties from one pass"
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    n_penalties: int = 20
    low: float = 1e-6  # smallest penalty a row, where every block of columns has a total variance of 1
    high: float = 1.0  # largest
    scale: str = "block"  # vectors: "block" keeps the geometry, "column" gives each column unit variance
    fields: bool = True
    number_weight: float = 1.0  # scale of the numbers where a vector set has 1
    category_weight: float = 1.0  # scale of the categories where a vector set has 1
    min_count: int = 5  # training rows that must hold a category

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        cell = _inner_cells(rows.group, INNER_FOLDS)
        cells = frozenset(cell.tolist())
        self._prepare(rows, log_price, cell)
        if len(cells) == 1:
            self._finish(cells, self.penalties[len(self.penalties) // 2])
            return
        splits: list[Split] = [(cells - {scored}, scored) for scored in sorted(cells)]
        predicted = self._predict_splits(rows, cell, splits)
        errors = sum(_errors(log_price[cell == s[1]], predicted[s]).sum(axis=0) for s in splits)
        self._finish(cells, self._best(errors))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`; two passes over the rows, one to sum and one to predict."""
        folds = np.unique(fold).tolist()
        cell = fold.astype(np.int64)
        if len(folds) == 2:  # without either fold nothing is left: halve each, by group
            cell = 2 * cell + _inner_cells(train.group, 2)
        cells = frozenset(cell.tolist())
        self._prepare(train, log_price, cell)
        outer: dict[int, list[Split]] = {}
        inner: dict[int, list[Split]] = {}
        for at, held in enumerate(folds):
            mine = frozenset(cell[fold == held].tolist())
            outer[held] = [(cells - mine, scored) for scored in sorted(mine)]
            near = {folds[at - 1], folds[(at + 1) % len(folds)]}
            scored_cells = cells - mine if len(folds) == 2 else near
            inner[held] = [(cells - mine - {scored}, scored) for scored in sorted(scored_cells)]
        wanted = {split for splits in (*outer.values(), *inner.values()) for split in splits if split[0]}
        predicted = self._predict_splits(train, cell, sorted(wanted, key=lambda s: (s[1], sorted(s[0]))))

        oof, learned = np.empty(len(train)), []
        total = np.zeros(len(self.penalties))
        for held in folds:
            known = [split for split in inner[held] if split[0]]
            errors = sum(
                (_errors(log_price[cell == s[1]], predicted[s]).sum(axis=0) for s in known), 0 * total
            )
            chosen = int(np.argmin(errors))
            learned.append({"penalty": float(self.penalties[chosen])})
            for split in outer[held]:
                here = cell == split[1]
                oof[here] = predicted[split][:, chosen]
                total += _errors(log_price[here], predicted[split]).sum(axis=0)
        self._finish(cells, self._best(total))
        return FoldPredictions(oof, None if test is None else self.predict(test), learned, self)

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

    # ---- parts -----------------------------------------------------------------------------------

    @property
    def penalties(self) -> np.ndarray:
        """The path, shape (n_penalties,): scikit-learn's alpha over the number of rows fitted on."""
        return np.geomspace(self.low, self.high, self.n_penalties)

    def _prepare(self, rows: Rows, log_price: np.ndarray, cell: np.ndarray) -> None:
        if self.scale not in ("block", "column"):
            raise HeadError(f"ridge: scale must be 'block' or 'column', got {self.scale!r}")
        self.scaling_ = Scaling(self.scale, self.number_weight, self.category_weight, self.min_count)
        self.layout_ = Layout.of(rows, self.min_count, self.fields)
        self.sums_ = sum_cells(rows, log_price, cell, self.layout_)

    def _solve(self, cells: frozenset[int], penalties: np.ndarray) -> Path:
        return solve_path(
            Sums.joined([self.sums_[c] for c in sorted(cells)]), self.layout_, self.scaling_, penalties
        )

    def _predict_splits(self, rows: Rows, cell: np.ndarray, splits: list[Split]) -> dict[Split, np.ndarray]:
        """Predictions of each split's scored cell, each of shape (rows of the cell, n_penalties)."""
        paths = {fitted: self._solve(fitted, self.penalties) for fitted in {fitted for fitted, _ in splits}}
        predicted: dict[Split, np.ndarray] = {}
        for scored in {scored for _, scored in splits}:
            here = [split for split in splits if split[1] == scored]
            index = np.flatnonzero(cell == scored)
            found = predict_paths(self.layout_, rows, index, [paths[fitted] for fitted, _ in here])
            predicted |= dict(zip(here, found, strict=True))
        return predicted

    def _best(self, errors: np.ndarray) -> float:
        return float(self.penalties[int(np.argmin(errors))])

    def _finish(self, cells: frozenset[int], penalty: float) -> None:
        self.penalty_ = penalty
        self.path_ = self._solve(cells, np.array([penalty]))
        del self.sums_


def _errors(log_price: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """SMAPE of each row and penalty; a penalty too small to solve is never chosen."""
    return np.nan_to_num(smape_rows(log_price[:, None], predicted), nan=np.inf)


def _inner_cells(group: np.ndarray, k: int) -> np.ndarray:
    """Cells 0..k-1 of about equal size, groups whole, whatever the row order; shape (n_rows,)."""
    unique, inverse = np.unique(group, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(unique))
    return (order % k)[inverse]
