"""Can a classifier tell rows apart that should look alike: one fold from another, train from test?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import Evidence, TrainingEvidence, compress
from ensemble.groups import gain_and_error

SURE = 3.0  # standard errors
FOLD_SLACK = 0.02  # accuracy above chance that is no cause for alarm
ALIKE, APART = 0.55, 0.7  # AUC
N_SPLITS = 3
N_COMPONENTS = 48


def _trees(seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(100, min_samples_leaf=10, random_state=seed)


def check_folds_unknown(rows: TrainingEvidence, seed: int) -> Check:
    """Tell a row's fold from its vectors and fields, on groups that took no part in learning it."""
    from sklearn.model_selection import GroupKFold

    hit = np.zeros(len(rows.fold))
    n_splits = min(N_SPLITS, len(np.unique(rows.group)))
    splitter = GroupKFold(n_splits, shuffle=True, random_state=seed)
    for inside, outside in splitter.split(rows.fold, groups=rows.group):
        if len(np.unique(rows.fold[inside])) > 1:
            X = compress(list(rows.blocks.values()), _mask(inside, len(hit)), N_COMPONENTS, seed)
            told = _trees(seed).fit(X[inside], rows.fold[inside]).predict(X[outside])
            hit[outside] = told == rows.fold[outside]
    accuracy, error = gain_and_error(hit, rows.group)
    chance = float(np.bincount(rows.fold).max() / len(rows.fold))
    figures = {"accuracy": accuracy, "accuracy_error": error, "chance": chance, "n_rows": len(hit)}
    scores = f"accuracy {accuracy:.1%} ± {error:.1%}, chance {chance:.1%}"
    if accuracy > chance + max(SURE * error, FOLD_SLACK):
        return Check(
            "folds unknown",
            "fail",
            f"Features tell the fold ({scores}): something was fitted fold by fold, or folds follow a column. "
            "Decide folds again with 'shelfprice catalog folds', or drop the column that tells.",
            figures,
        )
    return Check("folds unknown", "ok", f"No feature knows the fold ({scores}).", figures)


def check_drift(train: TrainingEvidence, test: Evidence | None, seed: int) -> Check:
    """Tell test rows from training rows: by everything, by each block alone, and by each field where they differ."""
    if test is None:
        return Check("drift", "skipped", "No test catalogue: nothing to compare the training rows with.")
    if min(len(train.position), len(test.position)) < N_SPLITS:
        sizes = (
            f"{len(test.position)} test rows are too few to compare with {len(train.position)} training rows."
        )
        return Check("drift", "skipped", sizes)
    is_test = np.repeat([0, 1], [len(train.position), len(test.position)])
    pairs = {name: np.concatenate([block, test.blocks[name]]) for name, block in train.blocks.items()}
    of_block = {name: _auc([block], is_test, seed) for name, block in pairs.items()}
    auc, error = _auc(list(pairs.values()), is_test, seed)
    worst = max(of_block, key=lambda name: of_block[name][0])
    figures = {
        "auc": auc,
        "auc_error": error,
        "auc_of_block": {name: value for name, (value, _) in of_block.items()},
        "n_train": len(train.position),
        "n_test": len(test.position),
    }
    highest = max(auc, of_block[worst][0])
    is_alike = highest <= max(ALIKE, 0.5 + SURE * error)
    score = f"AUC {auc:.3f} ± {error:.3f}, 0.5 is alike; most by {worst}, {of_block[worst][0]:.3f}"
    if worst == "fields" and not is_alike:
        of_column = _of_each_column(pairs["fields"], train.fields, is_test, seed)
        moved = max(of_column, key=lambda name: of_column[name])
        figures["auc_of_column"] = of_column
        score += f", there by column {moved!r}, {of_column[moved]:.3f}"
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
        f"Test rows are other rows than the training rows ({score}): the honest score says little about them.",
        figures,
    )


def _of_each_column(
    block: np.ndarray, names: Sequence[str], is_test: np.ndarray, seed: int
) -> dict[str, float]:
    """Column -> AUC of what it says alone; columns without any value are left out."""
    return {
        name: _auc([block[:, [at]]], is_test, seed)[0]
        for at, name in enumerate(names)
        if np.isfinite(block[:, at]).any()
    }


def _auc(blocks: list[np.ndarray], label: np.ndarray, seed: int) -> tuple[float, float]:
    """Cross-fitted AUC and its standard error (Hanley and McNeil 1982)."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    n_few = int(min(label.sum(), len(label) - label.sum()))
    n_many = len(label) - n_few
    score = np.empty(len(label))
    for inside, outside in StratifiedKFold(N_SPLITS, shuffle=True, random_state=seed).split(label, label):
        X = compress(blocks, _mask(inside, len(label)), N_COMPONENTS, seed)
        score[outside] = _trees(seed).fit(X[inside], label[inside]).predict_proba(X[outside])[:, 1]
    auc = float(roc_auc_score(label, score))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n_few - 1) * (q1 - auc**2) + (n_many - 1) * (q2 - auc**2)) / (
        n_few * n_many
    )
    return auc, float(np.sqrt(variance))


def _mask(positions: np.ndarray, n_rows: int) -> np.ndarray:
    mask = np.zeros(n_rows, dtype=bool)
    mask[positions] = True
    return mask
