"""Whether test rows come from the user's own groups (--group-column) that train has, while folds keep those apart."""

import numpy as np

from store.catalog.clean.duplicates import codes
from store.catalog.parse.levels import in_known_spelling
from store.catalog.read import present_splits, read_split, split_path
from store.folds.assign import Folds, read_folds
from store.folds.relatives import has_relative_before, has_relative_elsewhere
from store.schema import OWN_GROUP
from store.workspace import Workspace

MATERIAL = 0.1  # of the test rows: beyond what folds show, from which on the score is of other rows


def has_order_or_groups(workspace: Workspace) -> bool:
    """Whether folds follow one another in time, or the user named groups."""
    with workspace.parquet(split_path("train")) as file:
        return OWN_GROUP.name in file.schema_arrow.names or read_folds(workspace).looks_back


def known_own_groups(workspace: Workspace, folds: Folds) -> float | None:
    """Share of test rows whose group has training rows, where folds show far fewer such rows; None: they don't.

    Args:
        folds: in the order of the catalogue.
    """
    if "test" not in present_splits(workspace):
        return None
    parts = []
    for split in ("train", "test"):
        with workspace.parquet(split_path(split)) as file:
            if OWN_GROUP.name not in file.schema_arrow.names:
                return None
        parts.append(read_split(workspace, split, [OWN_GROUP.name])[OWN_GROUP.name].combine_chunks())
    train, test = parts
    of_train = set(train.drop_null().to_pylist())
    known = float(np.mean([one in of_train for one in in_known_spelling(test, of_train).to_pylist()]))
    group = codes(train)[0]
    elsewhere = has_relative_before if folds.looks_back else has_relative_elsewhere
    shown = elsewhere(group, folds.fold) & (group >= 0)
    return known if known - float(shown.mean()) > MATERIAL else None
