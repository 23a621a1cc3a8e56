"""Fine-tuning on Myntra: `fusion` on tuned EfficientNet-Lite0 and MiniLM against `fusion` on frozen ones, and the blend.

Long, so two of the five folds are tuned; every figure is of the rows of those two. The blend of the default heads and
`fusion` is made with the tuned model and without it: each fold's rows are priced by what was made on the other fold's.
SHELFPRICE_BENCH_EMBEDDED may name a folder whose `myntra` is a workspace to go on from; `--rows` makes it short.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Result, main, scratch
from benchmarks.stages import Stages
from benchmarks.tabular import EMBEDDED
from benchmarks.workspaces import first_rows
from store.metric import smape_log
from store.workspace import Workspace

ENCODERS = ("efficientnet-lite0", "minilm?max_tokens=96@structured")
NAME = "myntra"
RECIPE = {
    "head": "fusion",
    "last_blocks": 4,
    "epochs": 12,
    "patience": 12,
    "warmup_epochs": 6,
    "average": 0.995,
    "layer_decay": 0.9,
    "image_rate": 1e-4,
    "text_rate": 1e-4,
    "head_rate": 3e-4,
}
FOLDS = (0, 1)
MINUTES = 60.0


def measure(data: Path, rows: int | None) -> list[Result]:
    """Everything once; `rows` takes only so many training rows."""
    folder = data / "myntra"
    if not (folder / "train.csv").is_file():
        return [Result.skipped("finetune on Myntra", f"{folder} is absent")]
    with scratch() as work:
        root, ready = work / "workspace", Path(os.environ.get(EMBEDDED, "")) / "myntra"
        if os.environ.get(EMBEDDED) and ready.is_dir() and not rows:
            shutil.copytree(ready, root)
        train = first_rows(folder / "train.csv", rows, work / "train.csv") if rows else folder / "train.csv"
        stages = Stages(root)
        files = [
            "--train",
            str(train),
            "--test",
            str(folder / "test.csv"),
            "--images",
            str(folder / "images"),
        ]
        stages.run("ingest", "catalog", "ingest", *files)
        stages.run("embed", "embed", "run")
        stages.run("embed short texts", "embed", "run", "-e", ENCODERS[1])
        stages.run("heads", "heads", "run")
        stages.run("fusion", "heads", "run", "--head", "fusion")
        options = [f"--{key.replace('_', '-')}={value}" for key, value in {"name": NAME, **RECIPE}.items()]
        folds = [part for fold in FOLDS for part in ("--fold", str(fold))]
        stages.run("finetune", "embed", "finetune", *ENCODERS, *options, *folds)
        return _compare(Workspace(str(root)), stages.seconds["finetune"])


def _compare(workspace: Workspace, seconds: float) -> list[Result]:
    from ensemble.honest import Maker
    from ensemble.inputs import read_training_rows, select_predictions

    rows = read_training_rows(workspace, select_predictions(workspace))
    tuned, frozen = _tuned(workspace, len(rows.fold))
    here = np.isfinite(tuned)
    actual = rows.log_actual[here]
    smape = {
        head: smape_log(actual, rows.log_prices[here, at])
        for at, head in enumerate(rows.heads)
        if not head.startswith("finetuned:")
    }
    others = rows.log_prices[here][:, [rows.heads.index(head) for head in smape]]
    blend = {
        name: smape_log(actual, Maker(prices, actual, rows.fold[here], rows.group[here]).nested().log_price)
        for name, prices in (("without", others), ("with", np.column_stack([others, tuned[here]])))
    }
    of_tuned, of_frozen = smape_log(actual, tuned[here]), smape_log(actual, frozen[here])
    trained = [workspace.read_json(f"finetune/{NAME}/fold-{fold}/fold.json") for fold in FOLDS]
    minutes = (
        max(seconds, sum(one["seconds"] for one in trained)) / 60
    )  # of a run that went on: its whole training
    return [
        Result.at_most(
            "fusion tuned over fusion on frozen vectors",
            of_tuned / smape["fusion"],
            1.0,
            "frozen ones at full length, two networks averaged",
            tuned=of_tuned,
            frozen=smape["fusion"],
            **{f"best_epoch_{one['fold']}": one["best_epoch"] for one in trained},
        ),
        Result.at_most(
            "fusion tuned over the same network while frozen", of_tuned / of_frozen, 1.0, frozen=of_frozen
        ),
        Result.at_most(
            "blend with the tuned model over without",
            blend["with"] / blend["without"],
            1.0,
            with_=blend["with"],
            without=blend["without"],
            **{f"{head}_smape": value for head, value in smape.items()},
        ),
        Result.at_most("fine-tuning two folds, minutes", minutes, MINUTES),
    ]


def _tuned(workspace: Workspace, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Log prices by the tuned models and by their heads before, of the rows they never saw; NaN for other folds."""
    from embed.encoders.base import Sources
    from embed.finetune.checkpoint import read_tensors
    from embed.finetune.job import prepare_job
    from embed.finetune.predictions import predict_fold
    from embed.finetune.recipe import recipe_for
    from embed.finetune.warmup import WARM
    from store.config import load_config

    given: dict[str, Any] = dict(RECIPE)
    recipe, config = recipe_for(ENCODERS, given), load_config(workspace)
    job = prepare_job(
        workspace, config, ENCODERS, NAME, recipe, Sources(), lambda line: print(line, file=sys.stderr)
    )
    tuned, frozen = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
    for fold in FOLDS:
        held_out = job.inputs.fold == fold
        tuned[held_out] = predict_fold(job, fold).oof
        tensors, _ = read_tensors(workspace, f"{job.fold_folder(fold)}/{WARM}")
        frozen[held_out] = tensors["frozen_oof"].numpy()
    return tuned, frozen


if __name__ == "__main__":
    main(measure)
