"""What was trained, blended and submitted, and why it no longer stands where it does not."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from store.cleaning import decided_digest, why_decide_again
from store.config import Config
from store.inventory import CatalogHolding, FoldsHolding, VectorHolding
from store.predictions import finished_folders
from store.workspace import Workspace

CURRENT_BLEND = "blend/current.json"
SUBMISSION_FILE = "submission.csv"


@dataclass(frozen=True)
class HeadHolding:
    """One finished run of a head."""

    head: str
    folder: str
    smape: float | None  # out of fold, percent
    modified: float  # seconds since 1970
    stale: tuple[str, ...]  # why it must be trained again; empty: it stands
    is_superseded: bool  # a newer run of the head stands as well


@dataclass(frozen=True)
class BlendHolding:
    """The blend that was asked for last."""

    folder: str
    weights: dict[str, float]
    nested: float | None  # honest estimate, SMAPE in percent
    stale: tuple[str, ...]


@dataclass(frozen=True)
class SubmissionHolding:
    """submission.csv."""

    n_bytes: int
    stale: tuple[str, ...]


@dataclass(frozen=True)
class CleaningHolding:
    """Decisions about doubtful rows that training goes by."""

    policies: dict[str, str]  # finding -> policy, of shelfprice.toml, without those that are 'keep'
    digest: str | None  # of the decisions on disk; None: none of them changes a fit
    stale: str | None  # why they must be taken again


@dataclass(frozen=True)
class Present:
    """What results must belong to."""

    catalog: CatalogHolding | None
    folds: FoldsHolding | None
    vectors: tuple[VectorHolding, ...]
    fingerprints: dict[str, str]  # encoder -> fingerprint of its vectors
    config: Config
    cleaning: str | None = None  # digest of the decisions that training goes by; None: there are none


def head_holdings(workspace: Workspace, present: Present) -> list[HeadHolding]:
    """Every finished run: heads by name, the newest of each first."""
    found = []
    for folder in finished_folders(workspace):
        record = workspace.read_json(f"{folder}/head.json")
        smape = record["report"].get("smape")
        reasons = _why_head(record["head"], record["inputs"], present)
        modified = workspace.modified(f"{folder}/head.json")
        found.append(HeadHolding(record["head"], folder, smape, modified, reasons, False))
    found.sort(key=lambda one: (one.head, bool(one.stale), -one.modified))
    standing: set[str] = set()
    holdings = []
    for one in found:
        is_superseded = not one.stale and one.head in standing
        holdings.append(HeadHolding(one.head, one.folder, one.smape, one.modified, one.stale, is_superseded))
        if not one.stale:
            standing.add(one.head)
    return holdings


def cleaning_holding(workspace: Workspace, config: Config, folds: FoldsHolding | None) -> CleaningHolding:
    """What 'shelfprice catalog clean' decided, if it was asked to decide anything."""
    policies = {name: policy for name, policy in asdict(config.clean).items() if policy != "keep"}
    stale = why_decide_again(workspace, folds.hash if folds else "", config.clean)
    digest = decided_digest(workspace)
    if stale is None and digest is not None and folds is not None and folds.stale is not None:
        stale = f"folds will be decided again: {folds.stale}"
    return CleaningHolding(policies, digest, stale)


def _why_head(head: str, inputs: Mapping[str, Any], present: Present) -> tuple[str, ...]:
    reasons = _why_rows(inputs, present)
    if inputs.get("cleaning") != present.cleaning:
        reasons.append("decisions of 'catalog clean' have changed")
    missing = {holding.name: holding.missing for holding in present.vectors}
    for name, fingerprint, *_ in inputs.get("vectors", ()):
        found = present.fingerprints.get(name.partition("@")[0])
        if found is None:
            reasons.append(f"vectors of {name} are gone")
        elif found != fingerprint:
            reasons.append(f"vectors of {name} have changed, {fingerprint} became {found}")
        elif missing.get(name):
            reasons.append(f"{name} lacks vectors of {missing[name]:,} rows")
    reasons.extend(_changes({"seed": present.config.seed}, inputs))
    params = dict(present.config.heads.params.get(head, {}))
    params.pop("vectors", None)
    reasons.extend(_changes(params, inputs.get("params", {})))
    return tuple(reasons)


def _why_rows(inputs: Mapping[str, Any], present: Present) -> list[str]:
    """Why results of these inputs are not of the catalogue and the folds."""
    reasons = []
    if present.catalog is None or inputs.get("catalog_digest") != present.catalog.digest:
        reasons.append("the catalogue has changed")
    if present.folds is None:
        reasons.append("there are no folds")
    elif inputs.get("folds_hash") != present.folds.hash:
        reasons.append("folds have changed")
    elif present.folds.stale is not None:
        reasons.append(f"folds will be decided again: {present.folds.stale}")
    return reasons


def _changes(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {found[key]} became {value}"
        for key, value in wanted.items()
        if key in found and found[key] != value
    ]


def blend_holding(workspace: Workspace, present: Present, heads: list[HeadHolding]) -> BlendHolding | None:
    """None where nothing was blended yet."""
    if not workspace.exists(CURRENT_BLEND):
        return None
    folder = str(workspace.read_json(CURRENT_BLEND)["folder"])
    if not workspace.exists(f"{folder}/blend.json"):
        return None
    record = workspace.read_json(f"{folder}/blend.json")
    reasons = _why_rows(record["inputs"], present)
    newest = {one.head: one for one in heads if not one.stale and not one.is_superseded}
    blended = workspace.modified(f"{folder}/blend.json")
    for head, used in record["inputs"]["heads"].items():
        if head not in newest:
            reasons.append(f"{head} does not stand any more")
        elif newest[head].folder != used:
            reasons.append(f"{head} was trained again")
    for head, one in newest.items():
        if head not in record["inputs"]["heads"] and one.modified > blended:
            reasons.append(f"{head} was trained since")
    reasons.extend(_changes({"seed": present.config.seed}, record["inputs"]))
    return BlendHolding(folder, record["weights"], record["scores"].get("nested"), tuple(reasons))


def submission_holding(workspace: Workspace, blend: BlendHolding | None) -> SubmissionHolding | None:
    """None where none was written."""
    if not workspace.exists(SUBMISSION_FILE):
        return None
    reasons = []
    if blend is None:
        reasons.append("there is no blend")
    else:
        own = f"{blend.folder}/{SUBMISSION_FILE}"
        if not workspace.exists(own) or workspace.read_bytes(own) != workspace.read_bytes(SUBMISSION_FILE):
            reasons.append("it is of another blend")
        if blend.stale:
            reasons.append("its blend is stale")
    return SubmissionHolding(workspace.size(SUBMISSION_FILE), tuple(reasons))
