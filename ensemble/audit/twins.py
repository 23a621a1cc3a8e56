"""Compares near-duplicates across train and test with near-duplicates across folds."""

import numpy as np

from ensemble.audit.check import Check
from store.catalog.read import present_splits, read_split
from store.folds.assign import read_folds
from store.folds.own_groups import known_own_groups
from store.folds.relatives import expected_share as expected_share
from store.folds.relatives import expected_shares, has_relative_elsewhere, read_relatives
from store.workspace import Workspace

SLACK = 0.02  # difference of shares that is ignored
MATERIAL = 0.1  # difference of shares that changes the score noticeably


def share_with_twin_elsewhere(family: np.ndarray, place: np.ndarray) -> float:
    """Share of rows that have a row of their family in another place, both of shape (n_rows,)."""
    return float(has_relative_elsewhere(family, place).mean())


def check_twins(workspace: Workspace) -> Check:
    """Test rows with a near-duplicate in train, or of a known group, against training rows with one in another fold."""
    if "test" not in present_splits(workspace):
        return Check("twins", "skipped", "No test catalogue: which fold grouping fits it can't be told.")
    sample_id = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
    found, known = (
        _near_twins(workspace),
        known_own_groups(workspace, read_folds(workspace).aligned(sample_id)),
    )
    if known is None:
        return found
    words = (
        f"{known:.0%} of test rows are of groups (--group-column) that train has, and folds keep such groups apart: the "
        f"score is that of new groups, and these rows are easier. Ingest without --group-column. {found.words}"
    )
    return Check("twins", "caution", words, found.figures | {"test_share_of_known_groups": known})


def _near_twins(workspace: Workspace) -> Check:
    sample_id = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
    folds, relatives = read_folds(workspace).aligned(sample_id), read_relatives(workspace)
    test, train = relatives.of_test(), relatives.of_train(folds.fold, looks_back=folds.looks_back)
    if folds.looks_back:  # rows of the first fold are learned from alone
        train = train[folds.fold > folds.fold.min()]
    of_test, same_in_test = float((test >= 1).mean()), float((test == 2).mean())
    inside = float((train >= 1).mean())
    shares = expected_shares(relatives, folds.k)
    expected = {grouping: shares[grouping][1] for grouping in ("exact", "near", "none")}
    if_exact = expected["exact"]
    fits = min(expected, key=lambda grouping: abs(expected[grouping] - of_test))
    figures = {
        "test_share": of_test,
        "test_share_identical": same_in_test,
        "folds_share": inside,
        "folds_share_if_exact": if_exact,
        "folds_share_if_near": 0.0,
        "folds_share_if_none": expected["none"],
        "fits": fits,
    }
    said = (
        f"{of_test:.1%} of test rows have a near twin in train ({same_in_test:.1%} the very same product), "
        f"{inside:.1%} of training rows have one in another fold"
    )
    kind = "easier" if inside > of_test else "harder"
    off, best = abs(inside - of_test), abs(expected[fits] - of_test)
    if off <= SLACK:
        words = f"{said}: the present folds fit this test set."
        return Check("twins", "ok", words, figures)
    if off <= best + SLACK:
        better = "worse" if kind == "easier" else "better"
        words = (
            f"{said}: the folds are {kind} than the test set, and no grouping comes nearer: expect a {better} "
            "score than the out-of-fold one. What 'ensemble blend' expects allows for it."
        )
        return Check("twins", "caution" if off > MATERIAL else "ok", words, figures)
    words = (
        f"{said}: the folds are {kind} than the test set. Grouping 'none' would give {expected['none']:.1%}, 'exact' "
        f"{if_exact:.1%}, 'near' 0.0%: run 'shelfprice catalog folds --group {fits}', then heads and blend again."
    )
    return Check("twins", "caution", words, figures)
