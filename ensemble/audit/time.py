"""Measures how much better the score looks with folds that mix early and late rows than with folds in order of time."""

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import TrainingEvidence, compress
from ensemble.audit.shuffled import N_COMPONENTS, SURE
from ensemble.groups import gain_and_error
from store.catalog.read import present_splits, read_split, split_path
from store.folds.assign import deal_by_time, decide_folds, read_folds
from store.metric import smape_rows
from store.schema import TIME
from store.workspace import Workspace

N_FOLDS = 5


def check_time(workspace: Workspace, rows: TrainingEvidence, seed: int) -> Check:
    """Ridge on the same later rows, learned from earlier rows alone, and from as many rows of any time."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with workspace.parquet(split_path("train")) as file:
        if TIME.name not in file.schema_arrow.names:
            return Check("time", "skipped", "No column of time was named (--time-column).")
    time = read_split(workspace, "train", [TIME.name])[TIME.name].to_numpy()[rows.position]
    if len(np.unique(time)) < N_FOLDS:
        return Check("time", "skipped", "The column of time holds too few times to part rows by.")
    block = deal_by_time(time, np.arange(len(time)), N_FOLDS)
    half = decide_folds(rows.log_actual, rows.group, 2, seed)
    draws = np.random.default_rng(seed)

    def predicted(inside: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        X = compress(list(rows.blocks.values()), inside, N_COMPONENTS, seed)
        model = make_pipeline(StandardScaler(), Ridge(30.0)).fit(X[inside], rows.log_actual[inside])
        return np.asarray(model.predict(X[wanted]))

    later = block > 0
    back, random = np.full(len(time), np.nan), np.full(len(time), np.nan)
    for k in range(1, N_FOLDS):
        back[block == k] = predicted(block < k, block == k)
        for part in (0, 1):
            here = (block == k) & (half == part)
            others = np.flatnonzero(~np.isin(rows.group, rows.group[here]))
            inside = np.zeros(len(time), bool)
            inside[draws.permutation(others)[: (block < k).sum()]] = True
            random[here] = predicted(inside, here)
    residual = rows.log_actual[later] - back[later]
    loss_back = smape_rows(rows.log_actual[later], back[later])
    flattery, error = gain_and_error(
        loss_back - smape_rows(rows.log_actual[later], random[later]), rows.group[later]
    )
    span = np.ptp(time) / (N_FOLDS - 1)
    slope = float(np.polyfit(time[later], residual, 1)[0]) if np.ptp(time[later]) > 0 else 0.0
    by_age = {f"block {k}": float(loss_back[block[later] == k].mean()) for k in range(1, N_FOLDS)}
    figures = {"flattery": flattery, "flattery_error": error, "level_drift": float(residual.mean()),
               "drift_per_block": slope * span, "smape_looking_back": by_age, "n_rows": len(time)}  # fmt: skip
    level = f"later prices are {np.expm1(residual.mean()):+.1%} off what earlier ones tell"
    if not (flattery > SURE * error and flattery > 0.01 * loss_back.mean()):
        return Check(
            "time",
            "ok",
            f"Early and late rows may be mixed ({flattery:+.2f} ± {error:.2f} SMAPE; {level}).",
            figures,
        )
    words = f"Learning from later rows makes the score look {flattery:.2f} ± {error:.2f} better ({level})"
    if read_folds(workspace).looks_back:
        return Check(
            "time", "ok", f"{words}; the folds look back only, so that the score is free of it.", figures
        )
    after = ""
    if "test" in present_splits(workspace):
        after = ", if the test rows are later ones"
    return Check(
        "time",
        "caution",
        f"{words}{after}: ingest with --time-column, which makes folds look back only.",
        figures,
    )
