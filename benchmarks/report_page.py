"""`shelfprice ensemble report` on 75,000 training and 75,000 test rows: seconds of the command, and size of the page.

The rows, their vectors and three heads' predictions are made up. The audit is made anew; learning curve and importance,
which have their own limit of seconds (`--seconds`), are left out.
"""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.report import Result, main, scratch
from store.workspace import Workspace

ROWS = 75_000
MOST_SECONDS = 60.0
MOST_MEGABYTES = 5.0
DIM, WORDS, LENGTH = 384, 4_000, 60
SPREADS = (0.4, 0.5, 0.45)  # of the heads' errors in log price


def measure(data: Path, rows: int | None) -> list[Result]:
    """One report of a fresh blend."""
    n_rows = rows or ROWS
    with scratch() as folder:
        workspace = _blended(Workspace(folder / "workspace"), n_rows)
        start = time.perf_counter()
        command = [sys.executable, "-m", "store.cli", "ensemble", "report", "--seconds", "0"]
        subprocess.run([*command, "-w", workspace.root], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        megabytes = len(workspace.read_bytes("report.html")) / 1e6
    return [
        Result.at_most("report, seconds", seconds, MOST_SECONDS, "a fresh audit in it", rows=n_rows),
        Result.at_most("report, megabytes", megabytes, MOST_MEGABYTES, rows=n_rows),
    ]


def _blended(workspace: Workspace, n_rows: int) -> Workspace:
    """A workspace with a blend of made-up predictions."""
    from ensemble.blend import run_blend
    from store.config import Config, HeadConfig, save_config
    from store.vectors.sets import VectorSet
    from tests.fakes import (
        catalog_table,
        publish_catalog,
        publish_fake_predictions,
        publish_folds,
        publish_vectors,
    )

    draws = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(WORDS)])
    X = (draws.normal(size=(2 * n_rows, 20)) @ draws.normal(size=(20, DIM))).astype(np.float32)
    X += draws.normal(0, 0.5, X.shape).astype(np.float32)
    log_price = X[:, 0] * 0.3 + draws.normal(0, 0.4, 2 * n_rows) + 3
    texts = [" ".join(row) for row in words[draws.integers(0, WORDS, (2 * n_rows, LENGTH))]]
    units = draws.choice(["ounce", "fl oz", "count", "gram"], 2 * n_rows)

    def row(i: int) -> dict[str, object]:
        return {
            "sample_id": i, "name": texts[i][:60], "text": texts[i], "price": float(np.exp(log_price[i])),
            "bullets": [f"Brand: b{i % 200}", f"Colour: c{i % 11}; Material: m{i % 7}"],
            "value": float(i % 30 + 1), "unit": str(units[i]),
            "categorical:shop": f"s{i % 50}", "numeric:rating": float(i % 5),
        }  # fmt: skip

    train, test = ([row(i) for i in part] for part in (range(n_rows), range(n_rows, 2 * n_rows)))
    publish_catalog(workspace, catalog_table(train), catalog_table(test, priced=False))
    publish_folds(workspace, np.arange(n_rows) % 5, np.arange(n_rows))
    publish_vectors(workspace, VectorSet("fake", "name"), {"train": X[:n_rows], "test": X[n_rows:]})
    heads = tuple("abc"[: len(SPREADS)])
    for head, spread in zip(heads, SPREADS, strict=True):
        said = log_price + draws.normal(0, spread, 2 * n_rows)
        publish_fake_predictions(workspace, head, said[:n_rows], said[n_rows:])
    save_config(workspace, replace(Config(), heads=HeadConfig(run=heads, vectors=("fake@name",))))
    run_blend(workspace)
    return workspace


if __name__ == "__main__":
    main(measure)
