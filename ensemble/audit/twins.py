"""Near-duplicates: does the test set hold as many twins of training rows as the folds pretend?"""

import numpy as np
import pyarrow as pa

from ensemble.audit.check import Check
from store.catalog.clean.duplicates import group_rows
from store.catalog.images.links import further_row_images, known_links, row_images
from store.catalog.read import columns_of_images, present_splits, read_split
from store.folds.assign import read_folds
from store.workspace import Workspace

SLACK = 0.02  # difference of shares that is no difference
MATERIAL = 0.1  # difference of shares that a score feels


def share_with_twin_elsewhere(family: np.ndarray, place: np.ndarray) -> float:
    """Share of rows that have a row of their family in another place, both of shape (n_rows,)."""
    pairs = np.unique(np.stack([family, place]), axis=1)
    places_of_family = np.bincount(pairs[0], minlength=int(family.max()) + 1)
    return float((places_of_family[family] > 1).mean())


def expected_share(family: np.ndarray, group: np.ndarray, n_folds: int) -> float:
    """Share of rows with a relative in another fold if groups were dealt to folds at random."""
    pairs = np.unique(np.stack([family, group]), axis=1)
    groups_of_family = np.bincount(pairs[0], minlength=int(family.max()) + 1)[family]
    return float((1.0 - (1.0 / n_folds) ** (groups_of_family - 1)).mean())


def check_twins(workspace: Workspace) -> Check:
    """Test rows with a near-duplicate in train, against training rows with one in another fold."""
    if "test" not in present_splits(workspace):
        return Check("twins", "skipped", "No test catalogue: which fold grouping fits it can't be told.")
    tables = [
        read_split(workspace, split, ["sample_id", "text", *columns_of_images(workspace, split)])
        for split in ("train", "test")
    ]
    n_train = len(tables[0])
    folds = read_folds(workspace).aligned(tables[0]["sample_id"].combine_chunks())
    text = pa.chunked_array([c for t in tables for c in t["text"].chunks], pa.string())
    known = known_links(workspace)
    image = pa.concat_arrays([row_images(table["image"], known) for table in tables])
    further = pa.concat_arrays([further_row_images(table, known) for table in tables])
    family = group_rows(text, image, near=True, further=further)
    exact = group_rows(text, image, near=False, further=further)
    of_test = float(np.isin(family[n_train:], family[:n_train]).mean())
    same_in_test = float(np.isin(exact[n_train:], exact[:n_train]).mean())
    inside = share_with_twin_elsewhere(family[:n_train], folds.fold)
    if_exact = expected_share(family[:n_train], exact[:n_train], folds.k)
    expected = {"exact": if_exact, "near": 0.0}
    fits = min(expected, key=lambda grouping: abs(expected[grouping] - of_test))
    figures = {
        "test_share": of_test,
        "test_share_identical": same_in_test,
        "folds_share": inside,
        "folds_share_if_exact": if_exact,
        "folds_share_if_near": 0.0,
        "fits": fits,
    }
    shares = (
        f"{of_test:.1%} of test rows have a near twin in train ({same_in_test:.1%} the very same text or image), "
        f"{inside:.1%} of training rows have one in another fold"
    )
    kind = "easier" if inside > of_test else "harder"
    off, best = abs(inside - of_test), abs(expected[fits] - of_test)
    if off <= SLACK:
        words = f"{shares}: the present folds fit this test set."
        return Check("twins", "ok", words, figures)
    if off <= best + SLACK:
        better = "worse" if kind == "easier" else "better"
        words = f"{shares}: the folds are {kind} than the test set, and no grouping comes nearer: expect a {better} score than the honest one."
        return Check("twins", "caution" if off > MATERIAL else "ok", words, figures)
    words = (
        f"{shares}: the folds are {kind} than the test set. Grouping 'exact' would give {if_exact:.1%}, 'near' 0.0%: "
        f"run 'shelfprice catalog folds --group {fits}', then heads and blend again."
    )
    return Check("twins", "caution", words, figures)
