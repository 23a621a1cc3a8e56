"""Ridge and LightGBM on vectors that lie in a file: peak memory of `shelfprice heads run --memory`, the whole process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.scale import made_catalog
from store.workspace import Workspace

ROWS = 1_000_000
DIM = 512
SHARD_ROWS = 65_536
MOST_GIGABYTES = 1.5
HEADS: dict[str, dict[str, Any]] = {"ridge": {}, "lightgbm": {"n_estimators": 20}}


def measure(data: Path, rows: int | None) -> list[Result]:
    """Two folds, to save time: the figure is for one fold."""
    from store.config import Config, FoldConfig, HeadConfig, save_config

    n_rows, results = rows or ROWS, []
    with scratch() as folder:
        workspace = Workspace(folder / "workspace")
        made_catalog(workspace, n_rows)
        _fill(workspace, n_rows)
        heads = HeadConfig(run=tuple(HEADS), vectors=("made@structured",), params=HEADS)
        save_config(workspace, Config(folds=FoldConfig(k=2), heads=heads))
        _peak([sys.executable, "-m", "store.cli", "catalog", "folds", "-w", workspace.root])
        for head in HEADS:
            command = [sys.executable, "-m", "store.cli", "heads", "run", "--head", head, "--memory", "500MB"]
            peak = _peak([*command, "-w", workspace.root], TMPDIR=str(folder))
            (found,) = workspace.names("predictions", f"{head}-")
            report = workspace.read_json(f"predictions/{found}/head.json")["report"]
            results.append(
                Result.at_most(
                    f"{head} out of memory on {n_rows:,} x {DIM}, gigabytes",
                    peak,
                    MOST_GIGABYTES,
                    "peak resident of the whole process; the vectors alone take 2 bytes a value",
                    smape=report["smape"],
                    seconds=report["seconds"],
                )
            )
    return results


def _fill(workspace: Workspace, n_rows: int) -> None:
    """Vectors whose first values tell the price."""
    import numpy as np

    from store.vectors.sets import VectorSet, iter_image_keys, publish_current
    from store.vectors.shard import publish_shard
    from store.vectors.spec import EncoderSpec

    spec = EncoderSpec("made", "text", "made", "made", "0" * 64, DIM, {}, "mean", False)
    publish_current(workspace, spec)
    random, start = np.random.default_rng(0), 0
    for ((batch, keys),) in iter_image_keys(workspace, VectorSet("made", "structured"), "train", SHARD_ROWS):
        X = random.standard_normal((len(keys), DIM), np.float32)
        X[:, 0] += np.arange(start, start + len(keys)) % 100 / 25
        publish_shard(workspace, spec.folder, keys, X, {})
        start += batch.num_rows


def _peak(command: list[str], **environment: str) -> float:
    child = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with code {child.returncode}")
    return usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main(measure)
