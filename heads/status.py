"""Which heads stand, which must be trained again and why: read from the plans that `shelfprice heads run` uses."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heads.defaults import configured_heads
from heads.folds.search import STORAGE
from heads.folds.tuning import TUNING, TUNING_LOCK, tuning_basis
from heads.params import current_params
from heads.plan import HeadPlan, plan_heads
from heads.registry import head_class
from store.catalog.read import catalog_digest
from store.config import Config
from store.errors import HeadError, ShelfpriceError
from store.folds.assign import read_folds
from store.freshness import present_rows, why_changed
from store.inventory import folds_holding
from store.predictions import finished_folders
from store.rooms import YOUNG_SECONDS, Leftover, Room, Section
from store.standing import PREDICTIONS, PREDICTIONS_LOCK, read_standing, standing_file
from store.vectors.folded import folders_of
from store.vectors.sets import TUNED, current_encoders, current_spec
from store.workspace import Workspace

Plans = Mapping[str, HeadPlan | ShelfpriceError]


@dataclass(frozen=True)
class HeadHolding:
    """One finished run of a head."""

    head: str
    folder: str
    smape: float | None  # out of fold, percent
    stale: tuple[str, ...]  # why it must be trained again; empty: it stands
    is_superseded: bool  # another run stands for the head
    is_configured: bool  # `heads.run` names the head, or it is fine-tuned: part of the blend


def read_plans(workspace: Workspace, config: Config, names: Iterable[str]) -> Plans:
    """What `heads run` would train each head on now, or the error that it would end with; decides no folds.

    Raises:
        CatalogError: nothing was ingested.
        WorkspaceError: there are no folds yet.
    """
    return dict(plan_heads(workspace, config, names, read_folds(workspace), catalog_digest(workspace)))


def head_holdings(workspace: Workspace, config: Config) -> list[HeadHolding]:
    """Every finished run: heads in the order of the configuration, then others by name; what stands comes first."""
    standing = read_standing(workspace)
    rows = present_rows(workspace) | {"seed": config.seed}
    records = {folder: workspace.read_json(f"{folder}/head.json") for folder in finished_folders(workspace)}
    heads = {record["head"] for record in records.values()}
    order = {head: at for at, head in enumerate(configured_heads(workspace, config))}
    there = rows["catalog_digest"] and rows["folds_hash"]
    plans = read_plans(workspace, config, _planned(heads)) if there else {}
    folds = folds_holding(workspace, config)
    holdings = []
    for folder, record in records.items():
        head = record["head"]
        is_superseded = head not in standing.unclear and standing.folders.get(head) != folder
        reasons: list[str] = []
        if head in standing.unclear:
            reasons.append(standing.unclear[head])
        elif not is_superseded:
            reasons = _why_stale(workspace, folder, record["inputs"], plans.get(head), rows)
            if folds is not None and folds.stale:
                reasons.append(f"folds will be decided again: {folds.stale}")
        is_configured = head in order or head.startswith(TUNED)
        smape = record["report"].get("smape")
        holdings.append(HeadHolding(head, folder, smape, tuple(reasons), is_superseded, is_configured))
    return sorted(
        holdings, key=lambda one: (order.get(one.head, len(order)), one.head, one.is_superseded, one.folder)
    )


def _planned(heads: Iterable[str]) -> list[str]:
    """Heads that are trained here; others are tuned along with their encoders."""
    return sorted(head for head in heads if not head.startswith(TUNED))


def _why_stale(
    workspace: Workspace,
    folder: str,
    inputs: Mapping[str, Any],
    plan: HeadPlan | ShelfpriceError | None,
    rows: Mapping[str, Any],
) -> list[str]:
    """Why predictions that stand for a head are not those that would be made now."""
    if isinstance(plan, HeadPlan):
        if plan.folder == folder:
            return [] if plan.exists else ["one of its tables is damaged or gone"]
        known = ": predictions for that are there, 'heads run' makes them current" if plan.exists else ""
        reasons = why_changed(*(_with_present_names(plan, one) for one in (inputs, plan.inputs)))
        return [*reasons[:-1], reasons[-1] + known]
    vectors, gone, encoders = [], [], set(current_encoders(workspace))
    for name, fingerprint, *rest in inputs.get("vectors", ()):
        encoder = name.partition("@")[0]
        if encoder in encoders:
            fingerprint = current_spec(workspace, encoder).fingerprint
        else:
            gone.append(f"vectors of {name} are gone")
        vectors.append([name, fingerprint, *rest])
    reasons = why_changed(inputs, {**rows, "vectors": vectors})
    return [*reasons, *gone, *([str(plan)] if plan else [])]


def _with_present_names(plan: HeadPlan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs whose parameters have the names that the configuration gives them; records keep older ones."""
    try:
        return {**inputs, "params": current_params(type(plan.head), inputs["params"], warn=False)}
    except (HeadError, KeyError):
        return dict(inputs)


# ---- as `status` and `prune` ask for it ----------------------------------------------------------


def sections(workspace: Workspace, config: Config) -> Iterator[Section]:
    """Every finished run, and heads of the configuration that were never trained."""
    holdings = head_holdings(workspace, config)
    fresh = {one.head for one in holdings if not one.stale and not one.is_superseded}
    there = {one.head for one in holdings}
    untrained = [head for head in configured_heads(workspace, config) if head not in fresh]
    lines = [*map(_line, holdings), *(f"{head:<18} not trained" for head in untrained if head not in there)]
    step = None
    if untrained:
        said = [f"{head} is {'stale' if head in there else 'not trained'}" for head in untrained]
        step = "shelfprice heads run", ", ".join(said)
    yield Section(50, "heads", tuple(lines), {"heads": holdings, "untrained": untrained}, step)


def _line(one: HeadHolding) -> str:
    if one.stale:
        state = f"stale: {'; '.join(one.stale)}"
    elif one.is_superseded:
        state = "older run"
    else:
        state = "up to date" if one.is_configured else "up to date, not in heads.run"
    smape = f"{one.smape:7.2f}" if one.smape is not None else " " * 7
    return f"{one.head:<18} SMAPE{smape}  {state}"


def leftovers(workspace: Workspace, config: Config) -> Iterator[Leftover]:
    """Runs that are superseded, unfinished or of heads that the configuration doesn't name, and their tuning."""
    standing = read_standing(workspace)
    named = {*configured_heads(workspace, config), *config.heads.params}
    plans = _plans_if_any(workspace, config, named)
    kept = {*standing.folders.values(), *(plan.folder for plan in plans.values())}
    for folder in (f"{PREDICTIONS}/{name}" for name in workspace.names(PREDICTIONS)):
        record, first = f"{folder}/head.json", ()
        if folder.endswith(".json"):
            continue
        if not workspace.is_sound(record):
            if not _is_quiet(workspace, folder):
                continue
            why = "never finished" if not workspace.exists(record) else "its record is damaged"
        else:
            head = workspace.read_json(record)["head"]
            is_named = head in named or head.startswith(TUNED)
            # While a record can't be read, nothing is known to be superseded.
            if standing.notes or head in standing.unclear or (folder in kept and is_named):
                continue
            stands = standing.folders.get(head) == folder
            why = f"the configuration does not name {head}" if stands else f"a superseded run of {head}"
            first = (*((standing_file(head),) if stands else ()), record)
        yield Leftover(folder, workspace.folder_bytes(folder), why, (PREDICTIONS_LOCK,), first)
    yield from _old_tuning(workspace, named, plans)


def _old_tuning(workspace: Workspace, named: set[str], plans: Mapping[str, HeadPlan]) -> Iterator[Leftover]:
    found = {f"{TUNING}/{name}" for name in workspace.names(TUNING, suffix=".json")}
    used = set()
    for path in sorted(found):
        record = workspace.read_json(path)
        head = record["head"]
        why = "" if head in named else f"the configuration does not name {head}"
        if head in plans and record["bound_to"] != tuning_basis(plans[head].inputs):
            why = f"parameters of {head} found on another catalogue, vectors or folds"
        if why:
            yield Leftover(path, workspace.size(path), why, (TUNING_LOCK,))
        else:
            used.add(path)
    if not used and workspace.exists(STORAGE):
        why = "trials of searches whose parameters are not used"
        yield Leftover(STORAGE, workspace.size(STORAGE), why, (TUNING_LOCK,))


def _plans_if_any(workspace: Workspace, config: Config, names: Iterable[str]) -> dict[str, HeadPlan]:
    try:
        plans = read_plans(workspace, config, names)
    except ShelfpriceError:
        return {}
    return {name: plan for name, plan in plans.items() if isinstance(plan, HeadPlan)}


def _is_quiet(workspace: Workspace, folder: str) -> bool:
    """Whether nothing was written there for so long that no run can be at work."""
    files = [f"{folder}/{name}" for name in workspace.names(folder)]
    return all(time.time() - workspace.modified(file) > YOUNG_SECONDS for file in files)


def disk(workspace: Workspace) -> dict[str, int]:
    return {"predictions": workspace.folder_bytes(PREDICTIONS), "tuning": workspace.folder_bytes(TUNING)}


def needs(workspace: Workspace, config: Config) -> Iterator[str]:
    """Vectors that heads of the configuration read whatever `heads.vectors` says."""
    current = {name: current_spec(workspace, name) for name in current_encoders(workspace)}
    for head in {*configured_heads(workspace, config), *config.heads.params}:
        try:
            sets = head_class(head).vectors or ()
        except ShelfpriceError:
            continue
        for encoder in (name.partition("@")[0] for name in sets):
            if encoder in current:
                yield from folders_of(current[encoder])


room = Room(sections, leftovers, disk, needs)
