"""The only fold loop: out-of-fold predictions of the training rows, and test predictions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from heads.base import MATRIX_CHECKS, MOST_BEYOND, FoldPredictions, Head, rows_of_matrix
from heads.features.rows import Rows
from heads.folds.parallel import each_in_memory
from heads.folds.tuning import Tuning
from store.cleaning import Cleaning
from store.errors import HeadError, RowMismatchError
from store.folds.assign import decide_folds
from store.target import as_log_price, warn_of_prices
from store.weights import relative_weights

BYTES_OF_VALUE = 8  # of a vector, in a fit: as it is cached, as a head computes with it, and a little more
LEAST_GROUPS = 3  # that a fold's model is fitted on: two to choose on, one to check the choice


def crossfit(
    head: Head,
    train: Rows,
    log_price: np.ndarray,
    fold: np.ndarray,
    test: Rows | None = None,
    on_fit: Callable[[], None] = lambda: None,
    cleaning: Cleaning | None = None,
    tuning: Tuning | None = None,
    looks_back: bool = False,
    keeps_model: bool = True,
) -> FoldPredictions:
    """Predict each fold by a head that never saw it, and the test rows as the head's `test_mode` says.

    Where rows have vectors of fine-tuned encoders, each fold's head is fitted on, and predicts, vectors of the model
    that never saw that fold; test rows are then the mean of the fold models, since no vectors suit a refit.

    Args:
        head: unfitted; clones of it are fitted.
        train: with weights, heads are fitted fold by fold.
        log_price: shape (n_train,).
        fold: shape (n_train,), which rows are held out together.
        on_fit: called after each fit, for progress.
        cleaning: what is done to the rows that a model is fitted on. Each fold's model sees rows and prices of its
            own then, so that folds are fitted one after the other.
        tuning: parameters of each fold's own, found without it; folds are fitted one after the other then.
        looks_back: folds follow one another in time, and each is predicted by a head fitted on earlier ones alone. The
            first fold has none: it is predicted by what follows, for no score to count. A head that averages its fold
            models predicts test rows by the last one.
        keeps_model: False where out-of-fold predictions are all that is wanted: heads that are fitted fold by fold are
            not fitted on all rows then, and the model is an unfitted one.

    Raises:
        HeadError: a parameter is out of its range, fewer than two folds hold rows, a group lies in several, a fold
            leaves too few groups to learn from, every price is the same, or a prediction is not finite.
    """
    head.check()
    if looks_back and train.folded:
        raise HeadError(
            f"{head.name}: folds are in order of time, and the fine-tuned encoders of {train.folded[0].name} have seen later "
            "rows: leave them out of heads.vectors, or ingest without --time-column"
        )
    train = replace(train, weight=relative_weights(train.weight))
    present = np.unique(fold)
    if len(present) < 2:
        raise HeadError(
            f"{head.name}: out-of-fold predictions need rows in at least 2 folds, got {len(present)}"
        )
    for held_out in present:
        inside = np.unique(train.group[fold != held_out])
        if np.isin(train.group[fold == held_out], inside).any():
            raise HeadError(
                f"{head.name}: fold {held_out} shares a group with other folds, so its rows would be predicted by "
                "models that saw them: run 'shelfprice catalog folds' to decide again"
            )
        if len(inside) < LEAST_GROUPS:
            raise HeadError(
                f"{head.name}: without fold {held_out} only {len(inside)} of the groups of rows are left to learn from, "
                f"at least {LEAST_GROUPS} are needed: ingest more rows"
            )
    if np.ptp(log_price) == 0:
        raise HeadError(
            f"{head.name}: all {len(log_price)} training prices are {np.exp(log_price[0]):g}: there is nothing to learn"
        )
    result = (
        None
        if cleaning or tuning or train.folded or looks_back or train.weight is not None
        else head.clone().fit_predict_folds(train, log_price, fold, test)
    )
    if result is None:
        result = _one_by_one(
            head, train, log_price, fold, test, on_fit, cleaning, tuning, looks_back, keeps_model
        )
    _check_finite(head.name, train, result.oof)
    if test is not None and result.test is not None:
        _check_finite(head.name, test, result.test)
    return _kept_in_range(result, log_price, fold, looks_back)


def learned_from(fold: np.ndarray, held_out: int, looks_back: bool) -> np.ndarray:
    """Rows that the model of a fold may learn from, shape (n_rows,) bool."""
    is_later = looks_back and held_out > fold.min()
    return np.asarray(fold < held_out if is_later else fold != held_out)


def scored_rows(fold: np.ndarray, looks_back: bool) -> np.ndarray:
    """Rows that a score counts, shape (n_rows,) bool: of folds in order of time not the first, which later ones predict."""
    return np.asarray(fold > fold.min() if looks_back else np.ones(len(fold), bool))


def cross_predict(
    head: Head, X: Any, y: Any, groups: Any = None, *, folds: Any = 5, seed: int = 42
) -> np.ndarray:
    """Out-of-fold predictions: each row's by a model that saw no row of its fold.

    As `sklearn.model_selection.cross_val_predict`, with the head's own batched passes over all folds, penalties and
    early stopping chosen inside each fold, and folds that are alike in price.

    >>> from heads import Ridge
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> price = np.exp(X[:, 0] + 2)
    >>> predicted = cross_predict(Ridge(target="price"), X, price, folds=3)
    >>> predicted.shape, bool(np.corrcoef(np.log(predicted), X[:, 0])[0, 1] > 0.99)
    ((60,), True)

    Args:
        head: unfitted; clones of it are fitted.
        X: shape (n_rows, n_columns), a row NaN throughout where there is no vector; or `Rows`.
        y: what `head.target` says, shape (n_rows,).
        groups: shape (n_rows,), labels of any kind: rows of one group, such as one product's, share a fold. None:
            each row is its own, or those of `Rows`.
        folds: how many, or the fold of each row, shape (n_rows,).
        seed: decides the folds.

    Returns:
        What `head.target` says, shape (n_rows,) float64, in the order of X.

    Raises:
        HeadError: a price is not > 0 or not finite, a group lies in several folds, or see `crossfit`.
        RowMismatchError: X, y, groups and folds differ in length.
        CatalogError: there are too few groups for so many folds.
    """
    from sklearn.utils.validation import check_array

    rows = X if isinstance(X, Rows) else rows_of_matrix(check_array(X, **MATRIX_CHECKS), head.name)
    log_price = as_log_price(y, head.target, head.name, rows.sample_id)
    if head.target == "log_price":
        warn_of_prices(log_price, head.name)
    if groups is not None:
        rows = replace(rows, group=np.unique(np.asarray(groups), return_inverse=True)[1])
    fold = decide_folds(log_price, rows.group, folds, seed) if np.ndim(folds) == 0 else np.asarray(folds)
    lengths = {"X": len(rows), "y": len(log_price), "groups": len(rows.group), "folds": len(fold)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise RowMismatchError(f"cross_predict needs one value of each for every row, got {found}")
    plain = head.clone().set_params(target="log_price")
    oof = crossfit(plain, rows, log_price, fold, keeps_model=False).oof
    return oof if head.target == "log_price" else np.exp(oof)


def _one_by_one(
    head: Head,
    train: Rows,
    log_price: np.ndarray,
    fold: np.ndarray,
    test: Rows | None,
    on_fit: Callable[[], None],
    cleaning: Cleaning | None,
    tuning: Tuning | None,
    looks_back: bool,
    keeps_model: bool,
) -> FoldPredictions:
    def fit(unfitted: Head, rows: Rows, inside: np.ndarray) -> Head:
        kept, target = inside, log_price[inside]
        if cleaning is not None:
            kept, target = cleaning.training_part(inside, log_price)
        return unfitted.fit(rows.subset(kept), target)

    train, test = head.prepared(train), None if test is None else head.prepared(test)
    folds = [int(held_out) for held_out in np.unique(fold)]
    averages = head.test_mode == "average" or bool(train.folded)

    def one_fold(held_out: int) -> _OneFold:
        inside = np.flatnonzero(learned_from(fold, held_out, looks_back))
        outside = np.flatnonzero(fold == held_out)
        matched = train.for_fold(held_out)
        unfitted = head.clone() if tuning is None else tuning.head_for_fold(head, held_out)
        model = fit(unfitted, matched, inside)
        predicted, evidence = model.explain(matched.subset(outside), "oof")
        prices_test = test is not None and averages and (not looks_back or held_out == folds[-1])
        of_test = model.predict(test.for_fold(held_out)) if test is not None and prices_test else None
        on_fit()
        return _OneFold(predicted, of_test, model.learned(), model if averages else head, evidence)

    if head.side_by_side:
        found = each_in_memory(one_fold, folds, BYTES_OF_VALUE * len(train) * train.n_columns)
    else:
        found = [one_fold(held) for held in folds]
    oof, learned = np.full(len(train), np.nan), [one.learned for one in found]
    evidence = [one.evidence for one in found]
    for held_out, one in zip(folds, found, strict=True):
        oof[fold == held_out] = one.oof
    if averages:
        of_test = [one.test for one in found if one.test is not None]
        mean = np.mean(of_test, axis=0) if of_test else None
        models = tuple(one.model for one in found if test is None or one.test is not None)
        return FoldPredictions(oof, mean, learned, models[-1], _joined(evidence), models)
    if test is None and not keeps_model:
        return FoldPredictions(oof, None, learned, head, _joined(evidence))
    last = head if tuning is None else head.clone().set_params(**tuning.refit)
    model = fit(last.for_refit(learned), train, np.arange(len(train)))
    on_fit()
    predicted, of_test_rows = (None, None) if test is None else model.explain(test, "test")
    return FoldPredictions(oof, predicted, learned, model, _joined([*evidence, of_test_rows]))


@dataclass(frozen=True)
class _OneFold:
    oof: np.ndarray  # log price of the rows held out
    test: np.ndarray | None  # (n_test,) log price
    learned: dict[str, Any]
    model: Head  # fitted, where it is the one to keep; else the unfitted head
    evidence: pa.Table | None  # of the rows held out


def _joined(tables: list[pa.Table | None]) -> pa.Table | None:
    present = [table for table in tables if table is not None]
    return pa.concat_tables(present) if present else None


def _kept_in_range(
    result: FoldPredictions, log_price: np.ndarray, fold: np.ndarray, looks_back: bool
) -> FoldPredictions:
    def kept(predicted: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.clip(predicted, known.min() - MOST_BEYOND, known.max() + MOST_BEYOND)

    oof = result.oof.copy()
    for held_out in np.unique(fold):
        outside = fold == held_out
        oof[outside] = kept(oof[outside], log_price[learned_from(fold, held_out, looks_back)])
    return replace(result, oof=oof, test=None if result.test is None else kept(result.test, log_price))


def _check_finite(name: str, rows: Rows, log_price: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(log_price))
    if len(bad):
        raise HeadError(
            f"{name} diverged: {len(bad)} of {len(log_price)} predictions are not finite "
            f"(first: {rows.sample_id[int(bad[0])]}); lower its learning rate or raise its penalty in shelfprice.toml"
        )
