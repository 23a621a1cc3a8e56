"""Records of fine-tuning: `run.json` has the configuration of a run, `fold.json` marks a fold as tuned.

Read by `shelfprice status` and `prune` too, so nothing here imports torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from store.catalog.read import recorded_digest
from store.cleaning import cleaning_digest
from store.config import Config
from store.errors import ShelfpriceError
from store.folds.assign import FOLDS_FILE, read_folds
from store.rooms import Leftover, Room, Section
from store.standing import read_standing
from store.vectors.folded import folders_of
from store.vectors.sets import TUNED, VECTORS, current_encoders, current_spec
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

CODE_VERSION = 3  # raised when the same configuration tunes other weights
RUNS = "finetune"
RUN_FILE = "run.json"
DONE = "fold.json"
PREFIX, SUFFIX = "step-", ".safetensors"  # of checkpoints


@dataclass(frozen=True)
class FinetuneHolding:
    """One fine-tuning run."""

    name: str
    folds_done: tuple[int, ...]
    n_folds: int | None  # None: no folds are decided
    stale: tuple[str, ...]  # why it can't go on; empty: it can, or is done
    encoders: tuple[str, ...]  # vector sets that it begins from
    is_published: bool  # its predictions stand


def run_lock(name: str) -> str:
    """Held by a run of this name as long as it lasts."""
    return f"{RUNS}/.{name}.lock"


def bound_parts(workspace: Workspace, config: Config, folds_hash: str) -> dict[str, Any]:
    """The parts of a run's configuration that the workspace decides; a run goes on only while they are as it began.

    Raises:
        CatalogError: there is no train catalogue, or decisions about doubtful rows no longer fit.
    """
    return {
        "seed": config.seed,
        "train_digest": recorded_digest(workspace, "train"),
        "folds_hash": folds_hash,
        "cleaning": cleaning_digest(workspace, folds_hash, config.clean),
        "code_version": CODE_VERSION,
    }


def differences(found: Any, wanted: Any, where: str = "") -> list[str]:
    """What differs between two configurations, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted(found.keys() | wanted.keys())
            for line in differences(found.get(key), wanted.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if found == wanted else [f"{where} was {found} and is {wanted}"]


def finetune_holdings(workspace: Workspace, config: Config) -> list[FinetuneHolding]:
    """Every run that was begun, by name."""
    folds = read_folds(workspace) if workspace.exists(FOLDS_FILE) else None
    standing = read_standing(workspace).folders
    holdings = []
    for name in _runs(workspace):
        found = workspace.read_json(f"{RUNS}/{name}/{RUN_FILE}")
        try:
            wanted = bound_parts(workspace, config, folds.hash if folds else "")
            wanted["encoders"] = [
                [vector_set, current_spec(workspace, vector_set.partition("@")[0]).fingerprint]
                for vector_set, _ in found["encoders"]
            ]
            stale = differences({key: found.get(key) for key in wanted}, wanted)
        except ShelfpriceError as error:
            stale = [str(error)]
        done = tuple(int(fold.removeprefix("fold-")) for fold in _done_folds(workspace, name))
        encoders = tuple(vector_set for vector_set, _ in found["encoders"])
        folder = standing.get(f"{TUNED}{name}")
        published = folder and workspace.read_json(f"{folder}/head.json")["inputs"]["params"]
        n_folds = folds.k if folds else None
        holdings.append(
            FinetuneHolding(name, done, n_folds, tuple(stale), encoders, is_published=published == found)
        )
    return holdings


def _runs(workspace: Workspace) -> list[str]:
    return [name for name in workspace.names(RUNS) if workspace.exists(f"{RUNS}/{name}/{RUN_FILE}")]


def _done_folds(workspace: Workspace, name: str) -> list[str]:
    folds = workspace.names(f"{RUNS}/{name}", "fold-")
    return [fold for fold in folds if workspace.exists(f"{RUNS}/{name}/{fold}/{DONE}")]


# ---- as `status` and `prune` ask for it ----------------------------------------------------------


def sections(workspace: Workspace, config: Config) -> Iterator[Section]:
    """Runs, if there is any; their predictions are reported by the package `heads`."""
    runs = finetune_holdings(workspace, config)
    if runs:
        yield Section(25, "fine-tuning", tuple(map(_line, runs)), {"finetune": runs})


def _line(run: FinetuneHolding) -> str:
    of = "" if run.n_folds is None else f" of {run.n_folds}"
    stale = f"; stale: {'; '.join(run.stale)}" if run.stale else ""
    return f"{run.name}  {len(run.folds_done)}{of} folds tuned{stale}"


def leftovers(workspace: Workspace, config: Config) -> Iterator[Leftover]:
    """Checkpoints of folds that are tuned to the end."""
    for name in _runs(workspace):
        for fold in _done_folds(workspace, name):
            for checkpoint in workspace.names(f"{RUNS}/{name}/{fold}", PREFIX, SUFFIX):
                path = f"{RUNS}/{name}/{fold}/{checkpoint}"
                why = "a checkpoint of a fold that is tuned to the end"
                yield Leftover(path, workspace.size(path), why, (run_lock(name),))


def disk(workspace: Workspace) -> dict[str, int]:
    return {"fine-tuning": workspace.folder_bytes(RUNS)}


def needs(workspace: Workspace, config: Config) -> Iterator[str]:
    """Cached vectors that runs begin from, and those that they made."""
    current = {name: current_spec(workspace, name) for name in current_encoders(workspace)}
    runs = finetune_holdings(workspace, config)
    begun_from = {vector_set.partition("@")[0] for run in runs for vector_set in run.encoders}
    made = tuple(f"{TUNED}{run.name}." for run in runs)
    for name, spec in current.items():
        if name in begun_from or name.startswith(made):
            yield from folders_of(spec)
    unfinished = tuple(f"{TUNED}{run.name}." for run in runs if not run.is_published)
    for folder in (f"{VECTORS}/{name}" for name in workspace.names(VECTORS)) if unfinished else ():
        if workspace.exists(f"{folder}/encoder.json"):
            name = EncoderSpec.from_json(workspace.read_json(f"{folder}/encoder.json")).name
            if name.startswith(unfinished):
                yield folder


room = Room(sections, leftovers, disk, needs)
