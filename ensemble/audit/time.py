"""Measures how much better the score looks with folds that mix early and late rows than with folds in order of time."""

from dataclasses import replace
from typing import Any

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import TrainingEvidence, compress
from ensemble.audit.shuffled import N_COMPONENTS, SURE
from ensemble.groups import gain_and_error
from store.catalog.read import present_splits, read_split, split_path
from store.folds.assign import deal_by_time, decide_folds, read_folds
from store.metric import smape_rows
from store.schema import NUMERIC_PREFIX, TIME
from store.workspace import Workspace

N_FOLDS = 5
LEAST_ROWS = 10 * N_FOLDS
MOST_LATE = (
    0.3  # share of test rows later than nine tenths of the training rows, from which on they are later ones
)
_AGE = " (age in days)"


def check_time(workspace: Workspace, rows: TrainingEvidence, seed: int) -> Check:
    """Ridge on the same later rows, learned from earlier rows alone, and from as many rows of any time.

    By the column of time, or by each column of dates where none was named.
    """
    columns = _time_columns(workspace)
    if not columns:
        return Check("time", "skipped", "No column of time was named (--time-column), and none holds dates.")
    found = [_by_column(workspace, rows, column, seed) for column in columns]
    measured = [one for one in found if one.verdict != "skipped"]
    if len(found) == 1 or not measured:
        return found[0]
    worst = max(measured, key=lambda one: (one.verdict == "caution", one.figures["flattery"]))
    return replace(worst, words=" ".join(one.words for one in measured))


def _time_columns(workspace: Workspace) -> list[str]:
    """Column of time of the catalogue, else the ages of its columns of dates."""
    with workspace.parquet(split_path("train")) as file:
        names = file.schema_arrow.names
    ages = [name for name in names if name.startswith(NUMERIC_PREFIX) and name.endswith(_AGE)]
    return [TIME.name] if TIME.name in names else ages


def _by_column(workspace: Workspace, rows: TrainingEvidence, column: str, seed: int) -> Check:
    is_named = column == TIME.name
    name = column.removeprefix(NUMERIC_PREFIX).removesuffix(_AGE)
    time = _times(workspace, "train", column)[rows.position]
    here = np.isfinite(time)
    if len(np.unique(time[here])) < N_FOLDS or here.sum() < LEAST_ROWS:
        of = "column of time" if is_named else f"column of dates {name!r}"
        return Check("time", "skipped", f"The {of} holds too few times to part rows by.")
    figures = {"column": name} | _measured(rows, time, here, seed)
    flattery, error, off = figures["flattery"], figures["flattery_error"], figures["level_drift"]
    level = f"later prices are {np.expm1(off):+.1%} off what earlier ones tell"
    by = "" if is_named else f" by {name!r}"
    late = _share_of_late(time[here], _times(workspace, "test", column))
    figures["late_test_share"] = late
    how = (
        "" if late is None else f"{late:.0%} of the test rows are later than nine tenths of the training rows"
    )
    option = "--time-column" if is_named else f"--time-column {name!r}"
    if not (flattery > SURE * error and flattery > 0.01 * figures["smape_of_later"]):
        words = f"Early and late rows{by} may be mixed ({flattery:+.2f} ± {error:.2f} SMAPE; {level})."
        if late is not None and late > MOST_LATE and not is_named:
            words = f"{words} {how}: with {option} folds look back only."
        return Check("time", "ok", words, figures)
    words = f"Learning from later rows{by} makes the score look {flattery:.2f} ± {error:.2f} better ({level})"
    if read_folds(workspace).looks_back:
        words = f"{words}; the folds look back only, so that the score is free of it."
        return Check("time", "ok", words, figures)
    advice = f"ingest with {option}, which makes folds look back only."
    if "test" not in present_splits(workspace):
        return Check("time", "caution", f"{words}. If rows to be priced are later ones: {advice}", figures)
    if late is not None and late > MOST_LATE:
        return Check("time", "caution", f"{words}, and {how}: {advice}", figures)
    if late is None or is_named:
        return Check("time", "caution", f"{words}, if the test rows are later ones: {advice}", figures)
    words = f"{words}. Test rows are no later than training rows, which random folds fit; for later ones: {advice}"
    return Check("time", "ok", words, figures)


def _times(workspace: Workspace, split: str, column: str) -> np.ndarray:
    """Of each row, later ones higher, NaN where unknown, shape (n_rows,); no row where there is no such split."""
    if split not in present_splits(workspace):
        return np.empty(0)
    with workspace.parquet(split_path(split)) as file:
        is_there = column in file.schema_arrow.names
    rows = read_split(workspace, split, [column if is_there else "sample_id"])
    if not is_there:
        return np.full(len(rows), np.nan)
    values = np.asarray(rows[column].to_numpy(zero_copy_only=False), np.float64)
    return values if column == TIME.name else -values


def _share_of_late(train: np.ndarray, test: np.ndarray) -> float | None:
    """Share of test rows that are later than nine tenths of the training rows; None: their times are unknown."""
    known = test[np.isfinite(test)]
    return float((known > np.quantile(train, 0.9)).mean()) if len(known) else None


def _measured(rows: TrainingEvidence, time: np.ndarray, here: np.ndarray, seed: int) -> dict[str, Any]:
    """Figures of the check, of the rows whose time is known; `time` and `here` of shape (n_rows,)."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    time, log_actual, group = time[here], rows.log_actual[here], rows.group[here]
    blocks = [block[here] for block in rows.blocks.values()]
    block = deal_by_time(time, np.arange(len(time)), N_FOLDS)
    half = decide_folds(log_actual, group, 2, seed)
    draws = np.random.default_rng(seed)

    def predicted(inside: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        X = compress(blocks, inside, N_COMPONENTS, seed)
        model = make_pipeline(StandardScaler(), Ridge(30.0)).fit(X[inside], log_actual[inside])
        return np.asarray(model.predict(X[wanted]))

    later = block > 0
    back, random = np.full(len(time), np.nan), np.full(len(time), np.nan)
    for k in range(1, N_FOLDS):
        back[block == k] = predicted(block < k, block == k)
        for part in (0, 1):
            wanted = (block == k) & (half == part)
            if not wanted.any():  # few rows are of these times
                continue
            others = np.flatnonzero(~np.isin(group, group[wanted]))
            inside = np.zeros(len(time), bool)
            inside[draws.permutation(others)[: (block < k).sum()]] = True
            random[wanted] = predicted(inside, wanted)
    residual = log_actual[later] - back[later]
    loss_back = smape_rows(log_actual[later], back[later])
    flattery, error = gain_and_error(loss_back - smape_rows(log_actual[later], random[later]), group[later])
    span = np.ptp(time) / (N_FOLDS - 1)
    slope = float(np.polyfit(time[later], residual, 1)[0]) if np.ptp(time[later]) > 0 else 0.0
    by_age = {f"block {k}": float(loss_back[block[later] == k].mean()) for k in range(1, N_FOLDS)}
    return {
        "flattery": flattery,
        "flattery_error": error,
        "level_drift": float(residual.mean()),
        "drift_per_block": slope * span,
        "smape_looking_back": by_age,
        "smape_of_later": float(loss_back.mean()),
        "n_rows": len(time),
    }
