"""What the folds on disk look like, and deciding them on request."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from store.catalog.read import read_split
from store.config import Grouping, keep_settings, load_config, save_config
from store.errors import FoldMismatchError
from store.folds.assign import (
    FOLDS_FILE,
    Folds,
    FoldsRecord,
    decide,
    publish_folds,
    read_folds,
    read_record,
    wanted_record,
    why_stale,
)
from store.folds.relatives import fitting_grouping
from store.workspace import Workspace


def decide_and_describe(
    workspace: Workspace,
    k: int | None = None,
    group: Grouping | None = None,
    seed: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Keep or decide folds for these options, save the options, and describe the outcome.

    Args:
        k, group, seed: None keeps what the configuration says.
        log: takes a line for each setting that is another than when something was last made.

    Raises:
        CatalogError: no train catalogue, or rows that can't be split as asked; nothing is changed then.
    """
    before = load_config(workspace)
    config = replace(
        before,
        seed=before.seed if seed is None else seed,
        folds=replace(
            before.folds,
            k=before.folds.k if k is None else k,
            group=before.folds.group if group is None else group,
        ),
    )
    wanted = wanted_record(workspace, config)
    if group == "auto":  # asked for by name, it is found out again: there may be other test rows than before
        wanted = replace(wanted, grouping=cast(Grouping, fitting_grouping(workspace, wanted.k)))
    asked = any(option is not None for option in (k, group, seed))
    status, reason = _status(workspace, wanted, asked)
    if status == "decided":
        decided = decide(workspace, wanted)
        keep_settings(workspace, log)
        if config != before:
            save_config(workspace, config)
            keep_settings(workspace, lambda line: None)  # these were asked for just now
        publish_folds(workspace, *decided)
    return describe(workspace, read_folds(workspace)) | {
        "status": status,
        "reason": reason,
        "config_written": config != before,
    }


def _status(workspace: Workspace, wanted: FoldsRecord, asked: bool) -> tuple[str, str | None]:
    """Whether folds are "kept" or "decided", and why."""
    if not workspace.exists(FOLDS_FILE):
        return "decided", None
    if not workspace.is_sound(FOLDS_FILE):
        return "decided", f"{FOLDS_FILE} was damaged"
    found = read_record(workspace)
    if found is not None:
        reason = why_stale(found, wanted)
        return ("kept", None) if reason is None else ("decided", reason)
    if asked:
        return "decided", f"{FOLDS_FILE} was brought along and had other options"
    try:
        read_folds(workspace).aligned(_train_column(workspace, "sample_id"))
    except FoldMismatchError:
        return "decided", f"{FOLDS_FILE} was brought along and is of other rows"
    return "kept", f"{FOLDS_FILE} was brought along"


def _train_column(workspace: Workspace, name: str) -> Any:
    return read_split(workspace, "train", [name])[name].combine_chunks()


def describe(workspace: Workspace, folds: Folds) -> dict[str, Any]:
    """Sizes, groups and median prices of folds over the ingested training rows."""
    folds = folds.aligned(_train_column(workspace, "sample_id"))
    price = _train_column(workspace, "price").to_numpy()
    _, size = np.unique(folds.group, return_counts=True)
    return {
        "hash": folds.hash,
        "k": folds.k,
        "rows": len(folds.fold),
        "groups": len(size),
        "rows_in_groups": int(size[size > 1].sum()),
        "largest_group": int(size.max()),
        "folds": [
            {
                "fold": fold,
                "rows": int((folds.fold == fold).sum()),
                "groups": len(np.unique(folds.group[folds.fold == fold])),
                "median_price": float(np.median(price[folds.fold == fold])),
            }
            for fold in np.unique(folds.fold).tolist()
        ],
    }
