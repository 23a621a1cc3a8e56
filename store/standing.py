"""Which predictions stand for which head, that is, are its current ones.

`predictions/<head>.json` names the folder that stands for a head. A run that trains the head, or finds its predictions
present, writes it. Nothing else decides which predictions are current, not even the times of files. There is a file for
each head, since runs of several heads may write at the same time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from store.config import load_config
from store.errors import CorruptFileError
from store.freshness import present_rows, why_changed
from store.names import file_name
from store.workspace import Workspace

PREDICTIONS = "predictions"
# Held while this record changes, so that predictions are not pruned while they become current.
PREDICTIONS_LOCK = f"{PREDICTIONS}/.lock"


@dataclass(frozen=True)
class Standing:
    """Which predictions stand for each head."""

    folders: dict[str, str]  # head -> folder of its predictions, finished
    unclear: dict[str, str]  # head -> why nothing says which of its finished runs stands
    notes: tuple[str, ...] = ()  # about records that can't be read


def standing_file(head: str) -> str:
    """The record of which predictions stand for a head."""
    return f"{PREDICTIONS}/{file_name(head, 'a head')}.json"


def let_stand(
    workspace: Workspace, head: str, folder: str, log: Callable[[str], None] = lambda line: None
) -> bool:
    """Record that the predictions in `folder` stand for a head; False where they are there no more.

    Args:
        log: takes a line where a damaged record is written anew.
    """
    file, record = standing_file(head), {"head": head, "folder": folder}
    try:
        found = workspace.read_json(file) if workspace.exists(file) else None
    except CorruptFileError:
        found = None
        log(f"{workspace.path(file)} was damaged and is written anew")
    if found == record:
        return workspace.exists(f"{folder}/head.json")
    with workspace.lock(PREDICTIONS_LOCK):
        if not workspace.exists(f"{folder}/head.json"):
            return False
        workspace.publish_json(file, record)
    return True


def read_standing(workspace: Workspace) -> Standing:
    """What stands for every head that has finished predictions.

    Version 0.1.0 kept no record. For a head without one its only finished run stands; of several the one that is of
    the present catalogue and folds, and of the configuration's seed and parameters; if that leaves several, none.
    """
    folders: dict[str, str] = {}
    notes, recorded = [], set()
    names = workspace.names(PREDICTIONS)
    files = [name for name in names if name.endswith(".json")]
    for name in files:
        try:
            record = workspace.read_json(f"{PREDICTIONS}/{name}")
            head, folder = str(record["head"]), str(record["folder"])
        except (CorruptFileError, KeyError, TypeError):
            path = workspace.path(f"{PREDICTIONS}/{name}")
            notes.append(f"{path} is damaged: 'shelfprice heads run' writes it anew, or delete it")
            continue
        recorded.add(name.removesuffix(".json"))
        if workspace.exists(f"{folder}/head.json"):
            folders[head] = folder
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for name in names:
        folder = f"{PREDICTIONS}/{name}"
        is_recorded = name in files or name.rpartition("-")[0] in recorded
        if not is_recorded and workspace.is_sound(f"{folder}/head.json"):
            record = workspace.read_json(f"{folder}/head.json")
            runs.setdefault(record["head"], {})[folder] = record["inputs"]
    unclear = {}
    for head, inputs in runs.items():
        fitting = _fitting(workspace, head, inputs)
        if len(fitting) == 1:
            folders[head] = fitting[0]
        else:
            unclear[head] = (
                f"{head} has {len(inputs)} finished runs and nothing says which of them is current"
            )
    return Standing(folders, unclear, tuple(notes))


def _fitting(workspace: Workspace, head: str, runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of several runs without a record that may stand."""
    if len(runs) == 1:
        return list(runs)
    config = load_config(workspace)
    wanted = present_rows(workspace) | {"seed": config.seed}
    given = config.heads.params.get(head, {})
    params = {name: value for name, value in given.items() if name not in ("vectors", "tuned")}
    return [
        folder
        for folder, inputs in runs.items()
        if not why_changed(inputs, wanted)
        and all(inputs.get("params", {}).get(k) == v for k, v in params.items())
    ]
