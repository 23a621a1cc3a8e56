"""What a plan and a run tell people and machines."""

from typing import Any

from embed.finetune.job import FinetuneJob
from embed.finetune.plan import FinetunePlan
from embed.finetune.run import FinetuneOutcome
from store.vectors.sets import TUNED


def plan_lines(plan: FinetunePlan) -> list[str]:
    """A plan for people."""
    lines = [
        f"{plan.name}, folds {', '.join(map(str, plan.folds))}: {plan.n_trained:,} rows to train on each, {plan.n_aside:,} "
        "more set aside for early stopping",
        f"  warm-up off the cache, then at most {plan.steps:,} steps of {plan.batch_rows} rows a fold",
        f"  trained: {plan.trained / 1e6:.1f} of {plan.parameters / 1e6:.1f} million parameters, {plan.precision}",
        f"  measured: {plan.rows_per_second:.1f} rows/s, {plan.micro_rows} rows at once",
        f"  at most {plan.hours:.2f} hours for {len(plan.folds)} folds, vectors of {plan.n_embedded:,} inputs a fold on top",
        f"  memory: {plan.memory_bytes / 1e9:.2f} GB of the {plan.device}; each checkpoint {plan.checkpoint_bytes / 1e9:.2f} GB",
    ]
    return lines


def outcome_lines(job: FinetuneJob, outcome: FinetuneOutcome) -> list[str]:
    """A run for people."""
    lines = []
    for one in outcome.prices:
        lines.append(
            f"fold {one.fold}: SMAPE {one.smape:.3f} tuned, {one.frozen_smape:.3f} by the head on frozen vectors"
        )
    sets = ", ".join(str(tower.tuned) for tower in job.towers)
    if outcome.folder is None:
        folds = ", ".join(map(str, outcome.missing))
        lines.append(f"folds {folds} are not tuned yet: heads and the blend take {sets} once they are")
    else:
        lines.append(
            f"{TUNED}{job.name}: SMAPE {outcome.smape:.3f} out of fold ({outcome.frozen_smape:.3f} by the head on "
            f"frozen vectors), {outcome.folder}"
        )
        lines.append(f"heads take the tuned vectors by name: {sets}")
    lines.append(f"learning curves: {outcome.curve}")
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
