"""Checks that a classifier can't tell apart one fold from another, or train from test."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import Evidence, TrainingEvidence, compress
from ensemble.audit.forest import column_shares, forest_shares
from ensemble.groups import gain_and_error

SURE = 3.0  # standard errors
FOLD_SLACK = 0.02  # accuracy above chance that is tolerated
ALIKE, APART = 0.55, 0.7  # AUC
N_SPLITS = 3
N_COMPONENTS = 48


def check_folds_unknown(rows: TrainingEvidence, seed: int) -> Check:
    """Tell a row's fold from its vectors and fields, on groups that took no part in learning it."""
    from sklearn.model_selection import GroupKFold

    if rows.looks_back:
        words = (
            "Folds follow one another in time (--time-column): features that change with time tell the fold."
        )
        return Check("folds unknown", "skipped", words)
    hit = np.zeros(len(rows.fold))
    columns = named_columns(rows.fields, rows.blocks["fields"])
    hit_of = {name: np.zeros(len(rows.fold)) for name, _ in columns}
    n_splits, n_folds = min(N_SPLITS, len(np.unique(rows.group))), int(rows.fold.max()) + 1
    X = _compressed(rows.blocks, seed)
    splitter = GroupKFold(n_splits, shuffle=True, random_state=seed)
    for inside, outside in splitter.split(rows.fold, groups=rows.group):
        if len(np.unique(rows.fold[inside])) > 1:
            shares = forest_shares(
                np.concatenate(list(X.values()), axis=1), rows.fold, inside, outside, n_folds, seed
            )
            hit[outside] = shares.argmax(axis=1) == rows.fold[outside]
            for name, values in columns:
                shares = column_shares(values, rows.fold, inside, outside, n_folds)
                hit_of[name][outside] = shares.argmax(axis=1) == rows.fold[outside]
    accuracy, error = gain_and_error(hit, rows.group)
    chance = float(np.bincount(rows.fold).max() / len(rows.fold))
    figures: dict[str, Any] = {
        "accuracy": accuracy,
        "accuracy_error": error,
        "chance": chance,
        "n_rows": len(hit),
    }
    scores = f"accuracy {accuracy:.1%} ± {error:.1%}, chance {chance:.1%}"
    if (telling := _missing_by_fold(rows)) is not None:
        figures["missing_by_fold"] = telling
        return Check(
            "folds unknown",
            "fail",
            f"Column {telling!r} is missing in some folds more than in others: it was filled, joined or computed fold by "
            f"fold ({scores}). Drop it, or compute it again for all rows alike.",
            figures,
        )
    if accuracy > chance + max(SURE * error, FOLD_SLACK):
        of_column = {name: float(found.mean()) for name, found in hit_of.items()}
        figures["accuracy_of_column"] = of_column
        most = max(of_column, key=lambda name: of_column[name], default=None)
        which = "the column that tells"
        if most is not None and of_column[most] > chance + FOLD_SLACK:
            which = f"column {most!r}, which alone has accuracy {of_column[most]:.1%}"
        return Check(
            "folds unknown",
            "fail",
            f"Features tell the fold ({scores}): something was fitted fold by fold, or folds follow a column. "
            f"Decide folds again with 'shelfprice catalog folds', or drop {which}.",
            figures,
        )
    return Check("folds unknown", "ok", f"No feature tells the fold ({scores}).", figures)


def _missing_by_fold(rows: TrainingEvidence) -> str | None:
    """The field whose missing values hang most on the fold, where that is beyond chance over all fields."""
    from scipy.stats import chi2_contingency

    found: dict[str, float] = {}
    if "fields" not in rows.blocks:
        return None
    block = rows.blocks["fields"]
    for at, name in enumerate(rows.fields):
        missing = np.isnan(block[:, at])
        table = np.stack(
            [np.bincount(rows.fold, of, minlength=rows.fold.max() + 1) for of in (missing, ~missing)]
        )
        if (table.sum(axis=1) > 0).all():
            found[name] = float(chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)
    if not found:
        return None
    name = min(found, key=lambda one: found[one])
    return name if found[name] * len(found) < 1e-4 else None


def check_drift(train: TrainingEvidence, test: Evidence | None, seed: int) -> Check:
    """Tell test rows from training rows: by everything, by each block alone, and by each column."""
    if test is None:
        return Check("drift", "skipped", "No test catalogue: nothing to compare the training rows with.")
    if min(len(train.position), len(test.position)) < N_SPLITS:
        sizes = (
            f"{len(test.position)} test rows are too few to compare with {len(train.position)} training rows."
        )
        return Check("drift", "skipped", sizes)
    is_test = np.repeat([0, 1], [len(train.position), len(test.position)])
    pairs = {name: np.concatenate([block, test.blocks[name]]) for name, block in train.blocks.items()}
    X = _compressed(pairs, seed)
    of_block = {name: _auc(block, is_test, seed)[0] for name, block in X.items()}
    auc, error = _auc(np.concatenate(list(X.values()), axis=1), is_test, seed)
    worst = max(of_block, key=lambda name: of_block[name])
    of_column = {
        name: _auc_of(partial(column_shares, values, is_test, n_classes=2), is_test, seed)[0]
        for name, values in named_columns(train.fields, pairs["fields"])
    }
    figures = {
        "auc": auc,
        "auc_error": error,
        "auc_of_block": of_block,
        "auc_of_column": of_column,
        "n_train": len(train.position),
        "n_test": len(test.position),
    }
    highest = max(auc, of_block[worst])
    is_alike = highest <= max(ALIKE, 0.5 + SURE * error)
    most = f"vectors {worst}, {of_block[worst]:.3f}"
    if worst == "fields":
        moved = max(of_column, key=lambda name: of_column[name], default=None)
        most = f"column {moved!r}, {of_column[moved]:.3f} alone" if moved is not None else "the columns"
    score = f"AUC {auc:.3f} ± {error:.3f}, 0.5 is alike; most by {most}"
    if is_alike:
        return Check("drift", "ok", f"Test rows look like training rows ({score}).", figures)
    if highest <= APART:
        return Check(
            "drift",
            "caution",
            f"Test rows differ somewhat from training rows ({score}): the test score may miss the interval.",
            figures,
        )
    return Check(
        "drift",
        "fail",
        f"Test rows differ from the training rows ({score}): the honest score says little about them.",
        figures,
    )


def named_columns(names: Sequence[str], block: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Each column by name, of a block of shape (n_rows, n_columns); those without any value are left out."""
    return [(name, block[:, at]) for at, name in enumerate(names) if np.isfinite(block[:, at]).any()]


def _compressed(blocks: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Components of each block, over all rows: no label enters, so none is told by them."""
    everything = np.ones(len(next(iter(blocks.values()))), bool)
    return {name: compress([block], everything, N_COMPONENTS, seed) for name, block in blocks.items()}


def _auc(X: np.ndarray, label: np.ndarray, seed: int) -> tuple[float, float]:
    """Cross-fitted AUC of random trees and its standard error."""
    return _auc_of(lambda i, o: forest_shares(X, label, i, o, 2, seed), label, seed)


def _auc_of(
    shares: Callable[[np.ndarray, np.ndarray], np.ndarray], label: np.ndarray, seed: int
) -> tuple[float, float]:
    """Cross-fitted AUC and its standard error (Hanley and McNeil 1982).

    Args:
        shares: rows to learn from and rows to tell -> share of each class, shape (n_told, 2).
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    n_few = int(min(label.sum(), len(label) - label.sum()))
    n_many = len(label) - n_few
    score = np.empty(len(label))
    for inside, outside in StratifiedKFold(N_SPLITS, shuffle=True, random_state=seed).split(label, label):
        score[outside] = shares(inside, outside)[:, 1]
    auc = float(roc_auc_score(label, score))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n_few - 1) * (q1 - auc**2) + (n_many - 1) * (q2 - auc**2)) / (
        n_few * n_many
    )
    return auc, float(np.sqrt(variance))
