"""What the commands print, for people and for machines."""

from typing import Any

from embed.encoders.recipes import recipe_of
from embed.job.plan import EncoderPlan, SetPlan
from embed.job.run import EmbedOutcome
from embed.job.verify import FolderReport, ImageReport
from store.rooms import size_text

TOLD_MEMORY = 2e9  # bytes of weights that a plan speaks of


def duration(seconds: float) -> str:
    """`3 h 20 min`, `4 min`, `12 s`."""
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def plan_lines(plan: EncoderPlan) -> list[str]:
    """The work, then a line per vector set and what decides the vectors."""
    if plan.has_nothing_to_embed:
        return [f"{plan.spec.name}: skipped, the catalogue has no {_content(plan)} at all"]
    lines = [_work_line(plan), *(line for one in plan.sets for line in _set_lines(one, _content(plan)))]
    recipe = recipe_of(plan.spec)
    lines.append(
        f"  {', '.join(f'{what} {recipe[what]}' for what in ('prompt', 'pooling') if what in recipe)}"
    )
    if plan.resolved.memory_bytes >= TOLD_MEMORY:
        gigabytes = plan.resolved.memory_bytes / 1e9
        lines.append(
            f"  its weights take {gigabytes:.1f} GB of memory ({_loaded_as(plan)}), besides what a batch takes"
        )
    if plan.changed_recipe:
        lines.append(f"  {plan.changed_recipe}")
    return [*lines, *(f"  {reason}" for reason in plan.damaged.values())]


def _work_line(plan: EncoderPlan) -> str:
    others = f", {plan.n_elsewhere:,} more fall to other shares" if plan.n_elsewhere else ""
    if not len(plan.missing):
        return f"{plan.spec.name}: nothing to do{others}"
    time = (
        f"about {duration(plan.seconds)}"
        if plan.seconds is not None
        else "time unknown, never run on this machine"
    )
    size = size_text(plan.bytes_to_write)
    return f"{plan.spec.name}: {len(plan.missing):,} to embed, {size} to write, {time}{others}"


def outcome_lines(outcome: EmbedOutcome) -> list[str]:
    """What a run did for one encoder, and what rows go without a vector."""
    plan = outcome.plan
    if plan.has_nothing_to_embed:
        return plan_lines(plan)
    speed = (
        f" in {duration(outcome.seconds)} ({outcome.n_embedded / outcome.seconds:.1f} rows/s)"
        if outcome.seconds
        else ""
    )
    hits = plan.n_hits - outcome.n_embedded
    lines = [f"{plan.spec.name}: {outcome.n_embedded:,} embedded{speed}, {hits:,} there before"]
    for one in plan.sets:
        lines += _set_lines(one, _content(plan))
        if share := outcome.truncated.get(one.vector_set, 0.0):
            most = plan.spec.preprocessing.get("max_tokens")
            lines.append(
                f"    {share:.1%} of the texts were cut to {most} tokens"
                if plan.spec.modality != "image"
                else f"    {share:.1%} of the images lack the end of their file: they were embedded as far as it goes"
            )
    return lines


def verify_lines(report: FolderReport) -> list[str]:
    """One line per folder and damaged file."""
    duplicates = f", {report.n_duplicates:,} of them twice" if report.n_duplicates else ""
    state = "whole" if not report.damaged else f"{len(report.damaged)} damaged"
    shards = f"{report.n_shards:,} shard{'s' * (report.n_shards != 1)}"
    lines = [f"{report.folder}: {shards}, {report.n_vectors:,} vectors{duplicates}: {state}"]
    return lines + [f"  {reason}" for reason in report.damaged.values()]


def image_lines(report: ImageReport) -> list[str]:
    """One line for all images, one for each that is damaged."""
    if not report.n_images:
        return []
    state = "whole" if not report.damaged else f"{len(report.damaged)} damaged or gone"
    return [f"images: {report.n_images:,}: {state}", *(f"  {reason}" for reason in report.damaged.values())]


def plan_record(plan: EncoderPlan) -> dict[str, Any]:
    """A plan as JSON."""
    return {
        "encoder": plan.spec.name,
        "folder": plan.spec.folder,
        "wanted": plan.n_wanted,
        "hits": plan.n_hits,
        "failed": plan.n_failed,
        "missing": len(plan.missing),
        "elsewhere": plan.n_elsewhere,
        "bytes_to_write": plan.bytes_to_write,
        "seconds": plan.seconds,
        "damaged": sorted(plan.damaged),
        "recipe": recipe_of(plan.spec),
        "changed_recipe": plan.changed_recipe,
        "memory_bytes": plan.resolved.memory_bytes,
        "skipped": plan.has_nothing_to_embed,
        "sets": [
            {
                "vectors": one.vector_set,
                "distinct": one.n_distinct,
                "hits": one.n_hits,
                "failed": one.n_failed,
                "missing": one.n_missing,
                "splits": {
                    split: {"rows": c.n_rows, "empty": c.n_empty, "failed": c.n_failed}
                    for split, c in one.splits.items()
                },
            }
            for one in plan.sets
        ],
    }


def outcome_record(outcome: EmbedOutcome) -> dict[str, Any]:
    """An outcome as JSON."""
    return {
        **plan_record(outcome.plan),
        "embedded": outcome.n_embedded,
        "newly_failed": outcome.n_failed,
        "run_seconds": outcome.seconds,
        "truncated": outcome.truncated,
    }


def _set_lines(one: SetPlan, what: str) -> list[str]:
    rows = sum(c.n_rows for c in one.splits.values())
    empty = sum(c.n_empty for c in one.splits.values())
    failed = sum(c.n_failed for c in one.splits.values())
    lines = [
        f"  {one.vector_set}: {rows:,} rows, {one.n_distinct:,} distinct {what}s, {one.n_hits:,} with a vector, "
        f"{one.n_missing:,} missing"
    ]
    if empty or failed:
        lines.append(f"    rows without {what}: {empty:,}; rows whose {what} failed: {failed:,}")
    return lines


def _loaded_as(plan: EncoderPlan) -> str:
    packed = plan.spec.extra.get("quantized")
    as_stored = "" if packed or plan.resolved.loaded_as == "fp32" else ", as stored"
    return f"{packed or plan.resolved.loaded_as}{as_stored}"


def _content(plan: EncoderPlan) -> str:
    return {"image": "image", "text": "text", "joint": "content"}[plan.spec.modality]
