"""All facts of the report as plain data: what the page shows and `--json` prints."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ensemble.report.costs import costs
from ensemble.report.curve import learning_curve
from ensemble.report.dimensions import dimensions_of
from ensemble.report.holdout import score_holdout
from ensemble.report.importance import importance
from ensemble.report.leaderboard import MEDIAN, duplicate_noise, leaderboard
from ensemble.report.nearest import find_near
from ensemble.report.refit import Progress
from ensemble.report.rows import ReportRows, expected_score, read_rows
from ensemble.report.slices import score_slices
from ensemble.report.worst import worst_positions, worst_rows
from ensemble.summary import KNOWN_GROUPS
from store.catalog.read import present_splits, read_split
from store.catalog.show.facts import against, coverage_of
from store.config import Config
from store.workspace import Workspace

CODE_VERSION = 2  # raised when what was kept of a blend's report is to be measured again
DENSITY_BINS = 44
AUDIT_ROWS = 3000  # of each split
CURVE_SHARE = 0.6  # of the seconds for training; the rest is for importance


def make_facts(
    workspace: Workspace,
    config: Config,
    *,
    folder: str | None = None,
    seconds: float = 10.0,
    progress: Progress = lambda said: None,
) -> dict[str, Any]:
    """All figures of the report of a blend.

    Learning curve, importance and audit are kept in the blend's folder and measured once.

    Args:
        folder: of a blend; None: the standing one.
        seconds: that training for the learning curve and for importance may take; 0: what was kept alone.
        progress: takes a line as each part begins.

    Raises:
        WorkspaceError: nothing was blended yet.
        FoldMismatchError, RowMismatchError: the blend is older than folds, catalogue or predictions.
    """
    progress("reading rows and predictions")
    rows = read_rows(workspace, folder)
    seed, training = config.seed, rows.training
    error = rows.log_price - training.log_actual
    inside = _inside(rows)
    progress("looking for near rows")
    near = find_near(
        workspace, config.heads.vectors, rows.position, training.fold, worst_positions(rows), seed
    )
    progress("scoring slices")
    dimensions = dimensions_of(rows, None if near is None else near.nearness(len(rows)))
    slices, findings = score_slices(
        dimensions, rows.loss, error, training.group, seed, inside, training.weight
    )
    progress("comparing heads")
    board = leaderboard(workspace, rows, seed)
    noise = duplicate_noise(rows)
    progress("looking at the worst rows")
    worst = worst_rows(rows, near)
    kept = _Kept(workspace, rows.record["folder"], progress)
    facts: dict[str, Any] = {
        "workspace": workspace.root,
        "blend": rows.record["folder"],
        "version": version("shelfprice"),
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime()),
        "n_rows": len(rows),
        "n_groups": len(np.unique(training.group)),
        "n_folds": len(np.unique(training.fold)),
        "n_test": training.n_test,
        "typical_price": float(np.exp(np.median(training.log_actual))),
        "score": _score(rows, board, noise),
        "holdout": score_holdout(workspace, rows, seed),
        "findings": [one.to_json() for one in findings],
        "leaderboard": board,
        "density": _density(training.log_actual, rows.log_price),
        "slices": [
            {
                "dimension": one.name,
                "is_tested": one.is_tested,
                "slices": [found.to_json() for found in slices[one.name]],
            }
            for one in dimensions
        ],
        "intervals": {
            "stated": rows.record["intervals"]["coverage"],
            "measured": rows.record["intervals"]["measured_coverage"],
        },
        "near_by": list(near.names) if near is not None else [],
        "worst": [one.to_json() for one in worst],
        "against": _against(workspace),
        "audit": kept.read("audit", AUDIT_ROWS, lambda: _audit(workspace, config)),
        "curve": kept.read(
            "curve",
            CURVE_SHARE * seconds,
            lambda: learning_curve(workspace, rows, CURVE_SHARE * seconds, seed, progress),
        ),
        "importance": kept.read(
            "importance",
            (1 - CURVE_SHARE) * seconds,
            lambda: importance(workspace, rows, (1 - CURVE_SHARE) * seconds, progress),
        ),
        "costs": costs(workspace, config, rows),
    }
    return facts


class _Kept:
    """What takes long, kept in the blend's folder: a blend's inputs never change, so neither does what is measured."""

    def __init__(self, workspace: Workspace, folder: str, progress: Progress) -> None:
        self._workspace, self._folder, self._progress = workspace, folder, progress

    def read(self, name: str, effort: float, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured with at least this effort, or what is measured now."""
        file = f"{self._folder}/report-{name}.json"
        if self._workspace.is_sound(file):
            record = self._workspace.read_json(file)
            is_enough = record["effort"] >= effort or not effort or record["found"].get("is_complete", False)
            if record["code_version"] == CODE_VERSION and is_enough:
                return dict(record["found"])
        self._progress(f"measuring: {name}")
        found = measure()
        if not found.get("skipped"):
            record = {"code_version": CODE_VERSION, "effort": effort, "found": found}
            self._workspace.publish_json(file, record)
        return found


def _audit(workspace: Workspace, config: Config) -> dict[str, Any]:
    from ensemble.audit.run import run_audit

    return run_audit(workspace, config.heads.vectors, config.seed, AUDIT_ROWS)


def _score(rows: ReportRows, board: list[dict[str, Any]], noise: dict[str, Any] | None) -> dict[str, Any]:
    """The score, the median's, the best head's and what duplicates imply, with the sentence that says so."""
    scores = rows.record["scores"]
    smape, (low, high) = expected_score(rows.record)
    n_test = rows.training.n_test
    median = next(entry for entry in board if entry["name"] == MEDIAN)
    heads = [entry for entry in board if entry["kind"] == "head"]
    best = heads[0]
    level = scores["interval_level"]
    known = scores.get("expected", {}).get("known_groups")
    what = f"the {n_test:,} test rows" if n_test else "new rows like these"
    sentence = (
        f"On {what if known is None else 'rows of new groups'}, expect a SMAPE of {smape:.2f} "
        f"({level:.0%} interval {low:.2f} to {high:.2f}). Out of fold the blend has {scores['nested']:.2f}, the best "
        f"single head, {best['name']}, {best['smape']:.2f}, and the median price for every row {median['smape']:.1f}."
    )
    if known is not None:
        sentence += f" {KNOWN_GROUPS.format(known)}"
    if noise is not None:
        sentence += (
            f" {noise['n_rows']:,} rows share their text with one of another price: one price for each text "
            f"can't do better than {noise['floor']:.1f} on these; the blend has {noise['smape']:.1f}."
        )
    return {
        "sentence": sentence,
        "smape": smape,
        "interval": [low, high],
        "interval_level": level,
        "nested": scores["nested"],
        "nested_interval": scores["nested_interval"],
        "median": median["smape"],
        "best_head": {"name": best["name"], "smape": best["smape"]},
        "method": rows.record["method"],
        "noise": noise,
    }


def _inside(rows: ReportRows) -> np.ndarray:
    """1 where a true price lies in an interval made without the row's fold, 0 where not, NaN where there is none; shape
    (n_rows,)."""
    from ensemble.conformal import crossfitted_intervals
    from ensemble.outlook import kinds_of, spread_heads

    training, coverage = rows.training, rows.record["intervals"]["coverage"]
    kinds = kinds_of(training, spread_heads(rows.record, training.heads))
    inside, half_width = crossfitted_intervals(
        rows.log_price, training.log_actual, training.fold, coverage, kinds, looks_back=training.looks_back
    )
    return np.where(np.isfinite(half_width), inside, np.nan)


def _density(log_actual: np.ndarray, log_price: np.ndarray) -> dict[str, Any]:
    """Rows in cells of true and predicted log price: `edges` (prices), `cells` [x, y, rows] of those with any."""
    both = np.concatenate([log_actual, log_price])
    low, high = np.quantile(both, [0.0005, 0.9995])
    low, high = (low - 0.5, high + 0.5) if high - low < 0.1 else (low, high)
    edges = np.linspace(low, high, DENSITY_BINS + 1)
    x, y = (
        np.clip(np.searchsorted(edges, z, side="right") - 1, 0, DENSITY_BINS - 1)
        for z in (log_actual, log_price)
    )
    place, count = np.unique(x * DENSITY_BINS + y, return_counts=True)
    cells = np.stack([place // DENSITY_BINS, place % DENSITY_BINS, count], axis=1)
    return {"edges": np.exp(edges).tolist(), "cells": cells.tolist()}


def _against(workspace: Workspace) -> list[dict[str, Any]]:
    """Train and test side by side; empty without test rows."""
    if "test" not in present_splits(workspace):
        return []
    tables = {split: read_split(workspace, split) for split in ("train", "test")}
    lengths = {split: pc.utf8_length(table["text"]).to_numpy() for split, table in tables.items()}
    found = against(tables, lengths, coverage_of(tables))
    return [{"what": what, "train": train, "test": test} for what, train, test in found]
