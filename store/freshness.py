"""Compares the inputs of predictions with the present ones, and says in words why predictions are stale."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from store.catalog.read import SPLITS, catalog_digest, split_path
from store.cleaning import decided_digest
from store.folds.assign import FOLDS_FILE, read_folds
from store.vectors.spec import canonical_json
from store.workspace import Workspace

WORDS = {  # inputs whose values are digests: only the fact of a change is printed
    "catalog_digest": "the catalogue has changed",
    "folds_hash": "folds have changed",
    "cleaning": "decisions of 'catalog clean' have changed",
    "columns": "further columns are read in another way",
    "tuned": "parameters found by tuning have changed",
}
GONE = {"catalog_digest": "there is no catalogue", "folds_hash": "there are no folds"}


def present_rows(workspace: Workspace) -> dict[str, Any]:
    """The inputs of predictions that say which rows they are of, as they are now; None for what is not there."""
    has_catalog = any(workspace.exists(split_path(split)) for split in SPLITS)
    return {
        "catalog_digest": catalog_digest(workspace) if has_catalog else None,
        "folds_hash": read_folds(workspace).hash if workspace.exists(FOLDS_FILE) else None,
        "cleaning": decided_digest(workspace),
    }


def why_changed(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, why predictions of some inputs are not those of others; empty where they are.

    Args:
        found: inputs of the predictions, see `Predictions.inputs`.
        wanted: all that they must be; or a part, those of `present_rows` at least, and the rest does not matter.
    """
    wanted = json.loads(canonical_json(wanted))  # as it comes back from disk: tuples are lists
    is_whole = "params" in wanted
    names = list({**wanted, **found} if is_whole else wanted)
    reasons = [
        GONE[name] if name in GONE and wanted.get(name) is None else words
        for name, words in WORDS.items()
        if name in names and found.get(name) != wanted.get(name)
    ]
    if "vectors" in names:
        same_rows = found.get("catalog_digest") == wanted["catalog_digest"]
        reasons += _why_other_vectors(found.get("vectors", ()), wanted.get("vectors", ()), same_rows)
    told = (*WORDS, "vectors", "params")
    reasons += [line for _, line in _changes(found, wanted, [name for name in names if name not in told])]
    if is_whole:
        before, after = found.get("params", {}), wanted["params"]
        seeds = found.get("seed"), wanted.get("seed")  # a parameter that is the seed was told by it
        changes = _changes(before, after, sorted({*before, *after}))
        reasons += [line for values, line in changes if values != seeds]
    return reasons


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[tuple[Any, Any], str]]:
    """Both values of each name for which they differ, and the same in words."""
    values = {name: (before.get(name), after.get(name)) for name in names}
    return [((old, new), f"{name} {old} became {new}") for name, (old, new) in values.items() if old != new]


def _why_other_vectors(
    found: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]], same_rows: bool
) -> list[str]:
    """Each is a list of (vector set, fingerprint, digest over rows and keys)."""
    before, after = ({name: rest for name, *rest in sets} for sets in (found, wanted))
    reasons = [f"vectors of {name} are no longer read" for name in before if name not in after]
    for name, rest in after.items():
        if name not in before:
            reasons.append(f"vectors of {name} are new")
        elif rest[0] != before[name][0]:
            reasons.append(f"vectors of {name} have changed, {before[name][0]} became {rest[0]}")
        elif same_rows and rest != before[name]:
            reasons.append(f"other rows have a vector of {name}")
    if before.keys() == after.keys() and list(before) != list(after):
        reasons.append(f"vectors are read in another order: {', '.join(after)}")
    return reasons
