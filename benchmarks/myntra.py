"""The whole way on the Myntra catalogue: ingest, embed, default heads, blend; SMAPE of each, seconds of each stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.stages import Stages
from benchmarks.workspaces import first_rows

HEADS_MINUTES = 5.0  # all default heads and the blend
BEST_BLEND = 12.0  # SMAPE
BASELINE = "xgboost-baseline"
# Vectors of the parts that `ridge` must beat together; fields are left out, so that vectors decide.
PARTS = {
    "ridge:both": ["minilm@structured", "efficientnet-lite0-stages"],
    "ridge:text": ["minilm@structured"],
    "ridge:image": ["efficientnet-lite0-stages"],
}


def measure(data: Path, rows: int | None) -> list[Result]:
    """Everything once; `rows` takes only so many training rows."""
    folder = data / "myntra"
    if not (folder / "train.csv").is_file():
        return [Result.skipped("myntra", f"{folder} is absent")]
    with scratch() as work:
        stages = Stages(work / "workspace")
        train = first_rows(folder / "train.csv", rows, work / "train.csv") if rows else folder / "train.csv"
        images = ["--images", str(folder / "images")]
        stages.run(
            "ingest", "catalog", "ingest", "--train", str(train), "--test", str(folder / "test.csv"), *images
        )
        stages.run("embed", "embed", "run")
        heads = {head["head"]: head for head in stages.run("heads", "heads", "run")["heads"]}
        blend = stages.run("blend", "ensemble", "blend")
        parts = _smape_of_parts(stages)
        stages.run("embed its vectors", "embed", "run", "-e", "minilm@name")
        baseline = stages.run(BASELINE, "heads", "run", "--head", BASELINE)["heads"][0]
    return _results(heads, blend, parts, baseline, stages.seconds)


def _results(
    heads: dict[str, Any],
    blend: dict[str, Any],
    parts: dict[str, float],
    baseline: dict[str, Any],
    took: dict[str, float],
) -> list[Result]:
    scores = blend["scores"]
    smape = {f"{name}_smape": head["smape"] for name, head in heads.items()}
    seconds = {f"{name}_seconds": head["seconds"] for name, head in heads.items()}
    stages = {f"{stage}_seconds": value for stage, value in took.items()}
    best = min(scores["heads"].values())
    low, high = scores["nested_interval"]
    interval = f"nested, interval {low:.2f} to {high:.2f}"
    return [
        Result.at_most("blend SMAPE on Myntra", scores["nested"], BEST_BLEND, interval, **smape),
        Result.at_most(
            "blend over the best head", scores["nested"] / best, 1.0, blend=scores["nested"], best_head=best
        ),
        Result.at_most(
            "ridge on text and image over the better alone",
            parts["ridge:both"] / min(parts["ridge:text"], parts["ridge:image"]),
            1.0,
            "vectors alone, without fields",
            **parts,
        ),
        Result.at_most(
            "blend over the winning baseline",
            scores["nested"] / baseline["smape"],
            1.0,
            baseline=baseline["smape"],
        ),
        Result.at_most(
            "heads and blend, minutes",
            (took["heads"] + took["blend"]) / 60,
            HEADS_MINUTES,
            **stages,
            **seconds,
        ),
    ]


def _smape_of_parts(stages: Stages) -> dict[str, float]:
    from store.config import Config, HeadConfig, save_config
    from store.workspace import Workspace

    params = {name: {"vectors": sets, "fields": False} for name, sets in PARTS.items()}
    save_config(Workspace(stages.workspace), Config(heads=HeadConfig(params=params)))
    names = [argument for name in PARTS for argument in ("--head", name)]
    found: Sequence[dict[str, Any]] = stages.run("parts", "heads", "run", *names)["heads"]
    return {head["head"]: head["smape"] for head in found}


if __name__ == "__main__":
    main(measure)
