"""The blend against AutoGluon Tabular, HistGradientBoosting and RidgeCV on the same vectors, on real catalogues.

Random folds (`exact`: only the same product stays together) and near-grouped ones. Peers are fitted on all folds
but the first, in log price, and scored on the first; so is the blend, by its honest prices of those rows. AutoGluon
runs on random folds, under the Python named by SHELFPRICE_AUTOGLUON_PYTHON, or is skipped: its needs and ours don't go
together.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.report import Result, main, scratch
from benchmarks.stages import Stages
from store.errors import MissingVectorsError
from store.metric import smape_log
from store.workspace import Workspace

LEAST_SHARE = 5.0  # AutoGluon's seconds over those of all default heads, all folds, and the blend
CATALOGUES = {"myntra": "train.csv", "amazon_in": "catalog.csv"}
GROUPINGS = ("exact", "near")
OPTIONS = (
    click.option(
        "--autogluon-seconds", type=click.IntRange(min=1), default=300, help="Time limit of AutoGluon."
    ),
)
EMBEDDED = "SHELFPRICE_BENCH_EMBEDDED"  # folder of embedded workspaces by catalogue, to spare the embedding

# Read by AutoGluon's Python: X and log price of both parts in an npz; prints its predictions.
SCRIPT = """
import json, sys
import numpy as np, pandas as pd
from autogluon.tabular import TabularPredictor
data = np.load(sys.argv[1])
frame = lambda X: pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
predictor = TabularPredictor(label="y", problem_type="regression", eval_metric="mean_absolute_error",
                             path=sys.argv[2], verbosity=0)
predictor.fit(frame(data["X"]).assign(y=data["y"]), presets="medium_quality", time_limit=float(sys.argv[3]))
print(json.dumps(predictor.predict(frame(data["new"])).astype(float).tolist()))
"""


@dataclass(frozen=True)
class Split:
    """Vectors side by side, a missing one as zeros; the first fold against the others."""

    X: np.ndarray  # (n_inside, n_columns) float32
    y: np.ndarray  # (n_inside,) log price
    new: np.ndarray  # (n_outside, n_columns)
    actual: np.ndarray  # (n_outside,)
    blend: np.ndarray  # (n_outside,) honest log price of the blend


def measure(data: Path, rows: int | None, autogluon_seconds: int) -> list[Result]:
    """Every catalogue and grouping; `rows` takes only so many training rows."""
    results: list[Result] = []
    for catalogue, file in CATALOGUES.items():
        if not (data / catalogue / file).is_file():
            results.append(Result.skipped(catalogue, f"{data / catalogue / file} is absent"))
            continue
        with scratch() as work:
            workspace = _embedded(data / catalogue, file, rows, work)
            for grouping in GROUPINGS:
                results += _compare(catalogue, grouping, workspace, work, autogluon_seconds)
    return results


def _embedded(folder: Path, file: str, rows: int | None, work: Path) -> Path:
    """A workspace of the catalogue with its vectors."""
    import shutil

    root = work / "workspace"
    ready = Path(os.environ.get(EMBEDDED, "")) / folder.name
    if os.environ.get(EMBEDDED) and ready.is_dir() and not rows:
        shutil.copytree(ready, root)
        return root
    stages, source = Stages(root), folder / file
    if rows:
        from benchmarks.workspaces import first_rows

        source = first_rows(source, rows, work / file)
    images = ["--images", str(folder / "images")] if (folder / "images").is_dir() else []
    stages.run("ingest", "catalog", "ingest", "--train", str(source), *images)
    for name in ["minilm@structured", *(["efficientnet-lite0-stages"] if images else [])]:
        stages.run("embed", "embed", "run", "-e", name)
    return root


def _compare(catalogue: str, grouping: str, root: Path, work: Path, limit: int) -> list[Result]:
    stages = Stages(root)
    stages.run("folds", "catalog", "folds", "--group", grouping)
    stages.run("heads", "heads", "run")
    record = stages.run("blend", "ensemble", "blend")
    scores, seconds = record["scores"], stages.seconds["heads"] + stages.seconds["blend"]
    split = _split(Workspace(str(root)), record["folder"])
    blend = smape_log(split.actual, split.blend)
    peers = {"hist_gradient_boosting": _hist_gradient_boosting, "ridge_cv": _ridge_cv}
    figures: dict[str, float] = {}
    for name, fit in peers.items():
        figures |= _timed(name, fit, split)
    where = f"{catalogue}, {grouping} folds"
    best = min(scores["heads"].values())
    results = [
        Result.at_most(
            f"blend over its best head, {where}",
            scores["nested"] / best,
            1.0,
            "honest, all folds",
            blend_smape=scores["nested"],
            **{f"{head}_smape": smape for head, smape in scores["heads"].items()},
        ),
        Result.at_most(
            f"blend over the better of HistGradientBoosting and RidgeCV, {where}",
            blend / min(figures[f"{name}_smape"] for name in peers),
            1.0,
            "first fold",
            blend_smape=blend,
            heads_and_blend_seconds=seconds,
            **figures,
        ),
    ]
    if grouping != GROUPINGS[0]:  # it knows no groups
        return results
    python = os.environ.get("SHELFPRICE_AUTOGLUON_PYTHON")
    if not python:
        reason = "SHELFPRICE_AUTOGLUON_PYTHON names no Python with autogluon.tabular"
        return [*results, Result.skipped(f"AutoGluon, {where}", reason)]
    found = _timed("autogluon", lambda s: _autogluon(python, s, work / f"autogluon-{grouping}", limit), split)
    note = f"first fold; `medium_quality`, at most {limit} s"
    return [
        *results,
        Result.at_most(
            f"blend over AutoGluon, {where}",
            blend / found["autogluon_smape"],
            1.0,
            note,
            blend_smape=blend,
            **found,
        ),
        Result.at_least(
            f"AutoGluon's seconds a fold over ours, {where}",
            found["autogluon_seconds"] / (seconds / record["n_folds"]),
            LEAST_SHARE,
            f"{note}; ours: all default heads and the blend, over the number of folds",
            heads_and_blend_seconds=seconds,
            **found,
        ),
    ]


def _split(workspace: Workspace, blend_folder: str) -> Split:
    from store.catalog.read import read_split
    from store.config import load_config
    from store.folds.assign import read_folds
    from store.vectors.matrix import load_matrix
    from store.vectors.sets import VectorSet, current_spec

    parts = []
    for name in load_config(workspace).heads.vectors:
        try:
            spec = current_spec(workspace, name.partition("@")[0])
        except MissingVectorsError:  # a catalogue without images
            continue
        vector_set = VectorSet.parse(name, spec.modality)
        parts.append(load_matrix(workspace, vector_set, "train").X.astype(np.float32))
    table = read_split(workspace, "train", ["sample_id", "price"])
    ids = table["sample_id"].combine_chunks()
    fold = read_folds(workspace).aligned(ids).fold
    prices = workspace.read_table(f"{blend_folder}/oof.parquet")
    by_id = dict(zip(prices["sample_id"].to_pylist(), prices["log_price"].to_pylist(), strict=True))
    X, y = np.concatenate(parts, axis=1), np.log(table["price"].to_numpy())
    outside = fold == 0
    blend = np.array([by_id[i] for i in ids.filter(outside).to_pylist()])
    return Split(X[~outside], y[~outside], X[outside], y[outside], blend)


def _timed(name: str, fit: Callable[[Split], np.ndarray], split: Split) -> dict[str, float]:
    started = time.perf_counter()
    predicted = fit(split)
    seconds = time.perf_counter() - started
    return {f"{name}_smape": smape_log(split.actual, predicted), f"{name}_seconds": seconds}


def _hist_gradient_boosting(split: Split) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(loss="absolute_error", early_stopping=True, random_state=0)
    predicted: np.ndarray = model.fit(split.X, split.y).predict(split.new)
    return predicted


def _ridge_cv(split: Split) -> np.ndarray:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.geomspace(1, 1e4, 9)))
    predicted: np.ndarray = model.fit(split.X, split.y).predict(split.new)
    return predicted


def _autogluon(python: str, split: Split, folder: Path, limit: int) -> np.ndarray:
    folder.mkdir()
    np.savez(folder / "split.npz", X=split.X, y=split.y, new=split.new)
    command = [python, "-c", SCRIPT, str(folder / "split.npz"), str(folder / "model"), str(limit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, check=True)
    values: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return np.array(values)


if __name__ == "__main__":
    main(measure, options=OPTIONS)
