"""The printed and the JSON form of a plan and of a run."""

from typing import Any

from embed.finetune.job import FinetuneJob
from embed.finetune.plan import FinetunePlan
from embed.finetune.run import FinetuneOutcome
from embed.job.report import duration
from store.options import on_workspace
from store.rooms import size_text
from store.vectors.sets import TUNED


def plan_lines(plan: FinetunePlan) -> list[str]:
    """A plan for people."""
    n_folds, after = len(plan.folds), "in a time that is not known here"
    if plan.embedding_hours is not None:
        after = f"in about {duration(3600 * plan.embedding_hours)} for all folds"
    return [
        f"{plan.name}: {n_folds} fold{'s' * (n_folds > 1)} ({', '.join(map(str, plan.folds))})",
        f"  rows        {plan.n_trained:,} trained on in each, {plan.n_aside:,} more set aside for early stopping",
        f"  steps       at most {plan.steps:,} of {plan.batch_rows} rows in each fold, after a warm-up on cached vectors",
        f"  parameters  {plan.trained / 1e6:.1f} of {plan.parameters / 1e6:.1f} million are trained, in {plan.precision}",
        f"  speed       {plan.rows_per_second:.1f} rows/s, {plan.micro_rows} rows at once, measured on {plan.device}",
        f"  memory      {size_text(plan.memory_bytes)}",
        f"  disk        {size_text(plan.checkpoint_bytes)} for a checkpoint",
        f"  time        at most {duration(3600 * plan.hours)} for all folds",
        f"  vectors     {plan.n_embedded:,} inputs are embedded in each fold then, {after}",
    ]


def outcome_lines(job: FinetuneJob, outcome: FinetuneOutcome) -> list[str]:
    """A run for people."""
    lines = []
    for one in outcome.prices:
        lines.append(
            f"fold {one.fold}: SMAPE {one.smape:.2f} tuned, {one.frozen_smape:.2f} by the head on frozen vectors"
        )
    sets = ", ".join(str(tower.tuned) for tower in job.towers)
    if outcome.folder is None:
        folds = ", ".join(map(str, outcome.missing))
        lines.append(f"folds {folds} are not tuned yet: heads and the blend take {sets} once they are")
    else:
        lines.append(
            f"{TUNED}{job.name}: SMAPE {outcome.smape:.2f} out of fold ({outcome.frozen_smape:.2f} by the head on "
            f"frozen vectors), {outcome.folder}"
        )
        lines.append(f"heads take the tuned vectors by name: {sets}")
    lines.append(f"learning curves: {outcome.curve}")
    if outcome.folder is not None:
        lines.append(f"next: {on_workspace('shelfprice ensemble blend', job.workspace.root)}")
    return lines


def outcome_record(job: FinetuneJob, outcome: FinetuneOutcome) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "head": f"{TUNED}{job.name}",
        "folder": outcome.folder,
        "smape": outcome.smape,
        "frozen_smape": outcome.frozen_smape,
        "folds": [
            {"fold": one.fold, "smape": one.smape, "frozen_smape": one.frozen_smape} for one in outcome.prices
        ],
        "missing_folds": list(outcome.missing),
        "vectors": [str(tower.tuned) for tower in job.towers],
        "curve": outcome.curve,
    }
