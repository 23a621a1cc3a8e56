"""Fine-tuning on Myntra: `fusion` on tuned EfficientNet-Lite0 and MiniLM against `fusion` on frozen ones, and the blend.

Long: every fold is tuned, since only then is there a blend with it. `--rows` makes it short.
"""

from pathlib import Path

from benchmarks.report import Result, main, scratch
from benchmarks.stages import Stages
from benchmarks.workspaces import first_rows

ENCODERS = ("efficientnet-lite0?size=160", "minilm?max_tokens=64@structured")
RECIPE = (
    "--name=myntra",
    "--head=fusion",
    "--last-blocks=4",
    "--epochs=6",
    "--warmup-epochs=6",
    "--average=0.99",
    "--layer-decay=0.9",
    "--image-rate=2e-5",
    "--text-rate=6e-5",
    "--head-rate=2e-4",
)
FOLDS = 5
MINUTES = 60.0  # of two folds


def measure(data: Path, rows: int | None) -> list[Result]:
    """Everything once; `rows` takes only so many training rows."""
    folder = data / "myntra"
    if not (folder / "train.csv").is_file():
        return [Result.skipped("finetune on Myntra", f"{folder} is absent")]
    with scratch() as work:
        stages = Stages(work / "workspace")
        train = first_rows(folder / "train.csv", rows, work / "train.csv") if rows else folder / "train.csv"
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
        stages.run("embed small", "embed", "run", *(part for one in ENCODERS for part in ("-e", one)))
        stages.run("heads", "heads", "run")
        frozen = stages.run("fusion", "heads", "run", "--head", "fusion")["heads"][0]
        without = stages.run("blend without", "ensemble", "blend")
        tuned = stages.run("finetune", "embed", "finetune", *ENCODERS, *RECIPE)
        blended = stages.run("blend with", "ensemble", "blend")
    minutes = stages.seconds["finetune"] / 60 * 2 / FOLDS
    nested = [one["scores"]["nested"] for one in (blended, without)]
    return [
        Result.at_most(
            "fusion tuned over fusion on frozen vectors",
            tuned["smape"] / frozen["smape"],
            1.0,
            "frozen ones at full size and length, two networks averaged",
            tuned=tuned["smape"],
            frozen=frozen["smape"],
            **{f"tuned_fold_{one['fold']}": one["smape"] for one in tuned["folds"]},
        ),
        Result.at_most(
            "blend with it over without", nested[0] / nested[1], 1.0, with_=nested[0], without=nested[1]
        ),
        Result.at_most(
            "fine-tuning two folds, minutes", minutes, MINUTES, all_seconds=stages.seconds["finetune"]
        ),
    ]


if __name__ == "__main__":
    main(measure)
