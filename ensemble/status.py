"""Whether the standing blend and its submission are up to date, and which blends are superseded."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ensemble.blend import BLEND_LOCK, BLENDS, COVERAGE, PRICE_FLOOR, plan_blend, standing_blend
from ensemble.model.folder import FITS, IN_USE, MODEL_LOCK
from ensemble.submission import SUBMISSION_FILE
from heads.defaults import configured_heads
from store.catalog.read import split_path
from store.config import Config
from store.errors import ShelfpriceError
from store.freshness import present_rows, why_changed
from store.inventory import folds_holding
from store.rooms import YOUNG_SECONDS, Leftover, Room, Section, size_text
from store.standing import read_standing
from store.workspace import Workspace


@dataclass(frozen=True)
class BlendHolding:
    """The standing blend."""

    folder: str
    asked: tuple[str, ...]  # heads chosen for it; none: those of the configuration
    weights: dict[str, float]
    nested: float | None  # honest estimate, SMAPE in percent
    stale: tuple[str, ...]


@dataclass(frozen=True)
class SubmissionHolding:
    """submission.csv."""

    n_bytes: int
    stale: tuple[str, ...]


def blend_holding(workspace: Workspace, config: Config) -> BlendHolding | None:
    """None where no blend stands yet."""
    standing = standing_blend(workspace)
    if standing is None or not workspace.exists(f"{standing.folder}/blend.json"):
        return None
    record = workspace.read_json(f"{standing.folder}/blend.json")
    inputs, rows = record["inputs"], present_rows(workspace)
    reasons = why_changed({**inputs, "cleaning": rows["cleaning"]}, rows)
    folds = folds_holding(workspace, config)
    if folds is not None and folds.stale:
        reasons.append(f"folds will be decided again: {folds.stale}")
    if not reasons:
        coverage, floor = inputs.get("coverage", COVERAGE), config.submission.price_floor
        try:
            plan = plan_blend(
                workspace, standing.asked, configured_heads(workspace, config), config.seed, coverage, floor
            )
        except ShelfpriceError as error:
            reasons.append(str(error))
        else:
            if plan.folder != standing.folder:
                reasons = _changes(workspace, inputs, plan.inputs)
    scores = record["scores"]
    return BlendHolding(
        standing.folder, standing.asked, record["weights"], scores.get("nested"), tuple(reasons)
    )


def _changes(workspace: Workspace, found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    there = read_standing(workspace).folders
    reasons = []
    for head, folder in found["heads"].items():
        if head not in wanted["heads"]:
            is_there = there.get(head) == folder
            reasons.append(f"{head} {'is not in heads.run' if is_there else 'is no longer current'}")
        elif wanted["heads"][head] != folder:
            reasons.append(f"{head} was trained again")
    reasons += [f"{head} was trained since" for head in wanted["heads"] if head not in found["heads"]]
    for name, default in (("seed", None), ("price_floor", PRICE_FLOOR), ("code_version", None)):
        before, after = found.get(name, default), wanted.get(name, default)
        if before != after:
            reasons.append(f"{name} {before} became {after}")
    return reasons


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
            is_of_blend = not workspace.exists(own)  # else that blend was priced, and this file is another
            reasons.append("it is of another blend" if is_of_blend else f"it is not what {own} holds")
        if blend.stale:
            reasons.append("its blend is stale")
    return SubmissionHolding(workspace.size(SUBMISSION_FILE), tuple(reasons))


# ---- as `status` and `prune` ask for it ----------------------------------------------------------


def sections(workspace: Workspace, config: Config) -> Iterator[Section]:
    """The standing blend and the submission."""
    blend = blend_holding(workspace, config)
    step = None
    if blend is None or blend.stale:
        step = "shelfprice ensemble blend", "; ".join(blend.stale) if blend else "nothing was blended yet"
        if blend is not None and blend.asked:
            chosen = " ".join(f"--head {head}" for head in blend.asked)
            step = f"shelfprice ensemble blend {chosen} --standing", step[1]
    yield Section(60, "blend", tuple(_blend_lines(blend)), {"blend": blend}, step)
    submission = submission_holding(workspace, blend)
    step = None
    if workspace.exists(split_path("test")) and (submission is None or submission.stale):
        why = "; ".join(submission.stale) if submission else f"there is no {SUBMISSION_FILE}"
        step = "shelfprice ensemble submit", why
    yield Section(70, "submission", (_submission_line(submission),), {"submission": submission}, step)


def _blend_lines(blend: BlendHolding | None) -> Iterator[str]:
    if blend is None:
        return
    score = f"honest SMAPE {blend.nested:.2f}, " if blend.nested is not None else ""
    yield f"{score}{'stale: ' + '; '.join(blend.stale) if blend.stale else 'up to date'}"
    weights = sorted(blend.weights.items(), key=lambda one: -one[1])
    told = ", ".join(f"{head} {weight:.2f}" for head, weight in weights if weight >= 0.005)
    yield f"weights: {told}{' (heads chosen by --head)' if blend.asked else ''}"


def _submission_line(submission: SubmissionHolding | None) -> str:
    if submission is None:
        return "none"
    state = f"stale: {'; '.join(submission.stale)}" if submission.stale else "up to date"
    return f"{SUBMISSION_FILE}, {size_text(submission.n_bytes)}; {state}"


def leftovers(workspace: Workspace, config: Config) -> Iterator[Leftover]:
    """Superseded blends, and models that `PriceModel.fit` left."""
    for name in workspace.names(FITS, prefix=IN_USE.rstrip("-")):
        folder = f"{FITS}/{name}"
        locks = (f"{folder}/{MODEL_LOCK}",) if name.startswith(IN_USE) else ()
        why = "a model that a killed process left, or that is in use" if locks else "of an earlier version"
        yield Leftover(folder, workspace.folder_bytes(folder), why, locks)
    standing = standing_blend(workspace)
    for name in workspace.names(BLENDS):
        folder = f"{BLENDS}/{name}"
        if name.endswith(".json") or (standing is not None and folder == standing.folder):
            continue
        record = f"{folder}/blend.json"
        is_done = workspace.exists(record)
        oof = f"{folder}/oof.parquet"
        if not is_done and workspace.exists(oof) and time.time() - workspace.modified(oof) < YOUNG_SECONDS:
            continue
        why = "a superseded blend" if is_done else "never finished"
        yield Leftover(folder, workspace.folder_bytes(folder), why, (BLEND_LOCK,), (record,))


def disk(workspace: Workspace) -> dict[str, int]:
    return {"blends": workspace.folder_bytes(BLENDS)}


def needs(workspace: Workspace, config: Config) -> Iterator[str]:
    """Predictions that the standing blend was made of, which `submit` reads."""
    standing = standing_blend(workspace)
    if standing is not None and workspace.exists(f"{standing.folder}/blend.json"):
        yield from workspace.read_json(f"{standing.folder}/blend.json")["inputs"]["heads"].values()


def measure_blend(n_heads: int) -> Iterator[tuple[int, float]]:
    """See `Room`; on 500 and 2,000 rows that are made up, since most heads have no predictions yet."""
    import numpy as np
    import pyarrow as pa

    from ensemble.blend import make_record
    from ensemble.inputs import TrainingRows

    generator = np.random.default_rng(0)
    for n_rows in (500, 2000):
        log_actual, index = generator.normal(3, 1, n_rows), np.arange(n_rows)
        log_prices = log_actual[:, None] + generator.normal(0, 0.5, (n_rows, n_heads))
        names = tuple(f"head {at}" for at in range(n_heads))
        rows = TrainingRows(pa.array(index), names, log_prices, log_actual, index % 5, index, n_rows)
        record, _ = make_record(rows, {"seed": 0, "coverage": COVERAGE})
        yield n_rows * n_heads, record["seconds"]


room = Room(sections, leftovers, disk, needs, measure_blend)
