"""The demo catalogue, whose noise is known: how close the blend comes to the best reachable score, and whether its honest score was right.

The test prices lie in truth.csv, which no command reads.
"""

import csv
import json
from pathlib import Path

import numpy as np

from benchmarks.report import Result, main, scratch
from benchmarks.stages import Stages
from store.metric import smape

MOST_OVER_FLOOR = 3.0  # vectors of frozen encoders, a few thousand rows
ROWS = 2000


def measure(data: Path, rows: int | None) -> list[Result]:
    """Everything once, on `rows` training rows and a quarter as many test rows."""
    n_rows = rows or ROWS
    with scratch() as work:
        stages, demo = Stages(work / "workspace"), work / "demo"
        size = ["--train", str(n_rows), "--test", str(n_rows // 4)]
        _make(demo, size)
        files = ["--train", str(demo / "train.csv"), "--test", str(demo / "test.csv")]
        stages.run("ingest", "catalog", "ingest", *files, "--images", str(demo / "images"))
        stages.run("embed", "embed", "run")
        stages.run("heads", "heads", "run")
        record = stages.run("blend", "ensemble", "blend")
        stages.run("submit", "ensemble", "submit")
        floor = json.loads((demo / "catalogue.json").read_text())["smape_floor"]
        test = _test_smape(demo / "truth.csv", work / "workspace/submission.csv")
    scores = record["scores"]
    low, high = scores["test_interval"]
    heads = {f"{head}_smape": value for head, value in scores["heads"].items()}
    return [
        Result.at_most(
            "honest blend over the floor of the demo catalogue",
            scores["nested"] / floor["all_known"],
            MOST_OVER_FLOOR,
            f"floor: SMAPE {floor['all_known']:.2f} for who knows all but the noise, "
            f"{floor['without_images']:.2f} without a look at the images",
            blend_smape=scores["nested"],
            floor_smape=floor["all_known"],
            floor_without_images_smape=floor["without_images"],
            **heads,
        ),
        Result.at_most(
            "honest score against the hidden test prices",
            abs(test - scores["nested"]) / ((high - low) / 2),
            1.0,
            f"distance over half the interval that was stated, {low:.2f} to {high:.2f}",
            test_smape=test,
            blend_smape=scores["nested"],
        ),
    ]


def _make(folder: Path, size: list[str]) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "store.cli", "catalog", "demo", "--to", str(folder), *size]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _test_smape(truth: Path, submission: Path) -> float:
    prices = []
    for path in (truth, submission):
        with path.open(encoding="utf-8", newline="") as file:
            prices.append({row["sample_id"]: float(row["price"]) for row in csv.DictReader(file)})
    actual, predicted = prices
    return smape(np.array([actual[i] for i in predicted]), np.array(list(predicted.values())))


if __name__ == "__main__":
    main(measure)
