"""Finished predictions -> one blend on disk: `blend/<hash>/blend.json`, and what it says of unseen rows."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.inputs import Selection, TrainingRows, read_training_rows, select_predictions
from store.config import SubmissionConfig
from store.errors import ConfigError, WorkspaceError
from store.predictions import oof_predictions_table
from store.vectors.spec import digest
from store.workspace import Workspace

CODE_VERSION = 2  # raised when the same predictions make another blend, or blend.json changes
CURRENT_FILE = "blend/current.json"  # which blend `submit` takes: the one that was asked for last
INTERVAL_LEVEL = 0.95
PRICE_FLOOR = SubmissionConfig().price_floor


def blend_inputs(
    selection: Selection, seed: int, coverage: float, price_floor: float = PRICE_FLOOR
) -> dict[str, Any]:
    """All that a blend depends on; its digest names the folder."""
    floor = {} if price_floor == PRICE_FLOOR else {"price_floor": price_floor}
    return floor | {
        "heads": selection.folders,
        "folds_hash": selection.folds_hash,
        "catalog_digest": selection.catalog_digest,
        "seed": seed,
        "coverage": coverage,
        "code_version": CODE_VERSION,
    }


def run_blend(
    workspace: Workspace,
    asked: Sequence[str] = (),
    configured: Sequence[str] = (),
    seed: int = 42,
    coverage: float = 0.9,
    price_floor: float = PRICE_FLOOR,
) -> dict[str, Any]:
    """Blend the newest predictions of each head, or read the blend where it is up to date.

    Args:
        asked: heads to blend; none: every head with finished predictions.
        configured: heads of the run, see `select_predictions`.
        coverage: probability that a row's interval holds its price.
        price_floor: lowest price that is submitted, and scored.

    Returns:
        The content of blend.json, with `folder`, `up_to_date` and `notes`.

    Raises:
        HeadError, RowMismatchError, FoldMismatchError, CatalogError: see `ensemble.inputs`.
        ConfigError: coverage is not between 0.5 and 0.999.
    """
    if not 0.5 <= coverage <= 0.999:
        raise ConfigError(f"coverage must be between 0.5 and 0.999, got {coverage:g}")
    selection = select_predictions(workspace, asked, configured)
    inputs = blend_inputs(selection, seed, coverage, price_floor)
    folder = f"blend/{digest(inputs)}"
    up_to_date = workspace.exists(f"{folder}/blend.json")
    if not up_to_date:
        rows = read_training_rows(workspace, selection)
        record, nested_log_price = make_record(rows, inputs)
        table = oof_predictions_table(rows.sample_id, rows.fold, nested_log_price)
        workspace.publish_table(f"{folder}/oof.parquet", table, metadata={"folds_hash": selection.folds_hash})
        workspace.publish_json(f"{folder}/blend.json", record)
    record = workspace.read_json(f"{folder}/blend.json")
    if current_folder(workspace) != folder:
        workspace.publish_json(CURRENT_FILE, {"folder": folder})
    return record | {"folder": folder, "up_to_date": up_to_date, "notes": list(selection.notes)}


def current_folder(workspace: Workspace) -> str | None:
    """Folder of the blend that was asked for last; None before the first."""
    if not workspace.exists(CURRENT_FILE):
        return None
    return str(workspace.read_json(CURRENT_FILE)["folder"])


def read_current_blend(workspace: Workspace) -> dict[str, Any]:
    """blend.json of the blend that was asked for last, with its `folder`.

    Raises:
        WorkspaceError: nothing was blended yet, or by another version.
    """
    folder = current_folder(workspace)
    if folder is None or not workspace.exists(f"{folder}/blend.json"):
        raise WorkspaceError(
            f"no blend in {workspace.root}: run 'shelfprice ensemble blend -w {workspace.root}'"
        )
    record = dict(workspace.read_json(f"{folder}/blend.json"))
    if record["inputs"]["code_version"] != CODE_VERSION:
        raise WorkspaceError(
            f"{folder} was made by another version of shelfprice: run 'shelfprice ensemble blend -w {workspace.root}'"
        )
    return record | {"folder": folder}


def make_record(rows: TrainingRows, inputs: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """The content of blend.json, and every row's nested log price, shape (n_rows,)."""
    from ensemble.conformal import crossfitted_coverage, fit_intervals
    from ensemble.groups import bootstrap_interval, expected_interval
    from ensemble.honest import RULE, Maker
    from store.metric import smape_log, smape_rows

    started = time.perf_counter()
    maker = Maker(rows.log_prices, rows.log_actual, rows.fold, rows.group)
    blend, nested = maker.final(), maker.nested()
    lowest = np.log(inputs.get("price_floor", PRICE_FLOOR))
    nested_log_price = np.maximum(nested.log_price, lowest)
    average = np.maximum(rows.log_prices.mean(axis=1), lowest)
    of_heads = [smape_log(rows.log_actual, np.maximum(z, lowest)) for z in rows.log_prices.T]
    loss = smape_rows(rows.log_actual, nested_log_price)
    naive = smape_log(rows.log_actual, np.maximum(blend.log_price(rows.log_prices), lowest))
    over_average = smape_rows(rows.log_actual, average) - loss
    best = int(np.argmin(of_heads))
    over_best = smape_rows(rows.log_actual, np.maximum(rows.log_prices[:, best], lowest)) - loss
    seed, coverage = inputs["seed"], inputs["coverage"]
    measured, factor = crossfitted_coverage(nested_log_price, rows.log_actual, rows.fold, coverage)

    def interval(values: np.ndarray) -> list[float]:
        return list(bootstrap_interval(values, rows.group, seed, INTERVAL_LEVEL))

    record = {
        "inputs": inputs,
        "method": blend.mix.method,
        "mean": blend.mix.mean,
        "weights": dict(zip(rows.heads, map(float, blend.mix.weights), strict=True)),
        "calibration": blend.calibration.to_json(),
        "intervals": fit_intervals(nested_log_price, rows.log_actual, coverage).to_json()
        | {"measured_coverage": measured, "median_factor": factor},
        "rule": RULE,
        "inner": {"smape": blend.inner_smape, "gain": blend.gain, "gain_error": blend.gain_error},
        "scores": {
            "heads": dict(zip(rows.heads, of_heads, strict=True)),
            "naive": naive,
            "nested": float(loss.mean()),
            "nested_interval": interval(loss),
            "interval_level": INTERVAL_LEVEL,
            "test_interval": None
            if rows.n_test is None
            else list(expected_interval(loss, rows.group, rows.n_test, INTERVAL_LEVEL)),
            "optimism": float(loss.mean()) - naive,
            "average": smape_log(rows.log_actual, average),
            "gain_over_average": float(over_average.mean()),
            "gain_over_average_interval": interval(over_average),
            "best_head": rows.heads[best],
            "gain_over_best_head": float(over_best.mean()),
            "gain_over_best_head_interval": interval(over_best),
        },
        "folds": [
            {
                "method": b.mix.method,
                "weights": dict(zip(rows.heads, map(float, b.mix.weights), strict=True)),
                "calibration": b.calibration.kind,
            }
            for b in nested.blends
        ],
        "n_rows": len(rows.log_actual),
        "n_test": rows.n_test,
        "n_groups": len(np.unique(rows.group)),
        "n_folds": len(np.unique(rows.fold)),
        "seconds": round(time.perf_counter() - started, 2),
    }
    return record, nested_log_price
