"""Finished predictions -> one blend on disk: `blend/<hash>/blend.json`, and what it says of unseen rows."""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.expected import UNSCORED
from ensemble.inputs import Selection, TrainingRows, curves_of, read_training_rows, select_predictions
from heads.base import MOST_BEYOND
from heads.registry import learning_exponent
from store.catalog.read import present_splits, read_split
from store.config import SubmissionConfig
from store.errors import ConfigError, CorruptFileError, WorkspaceError
from store.folds.assign import read_record
from store.folds.own_groups import has_order_or_groups
from store.folds.relatives import read_relatives
from store.predictions import oof_predictions_table
from store.vectors.spec import digest
from store.workspace import Workspace

CODE_VERSION = 2  # raised when the same predictions make another blend, or blend.json changes
BLENDS = "blend"
CURRENT_FILE = f"{BLENDS}/current.json"  # the standing blend, which `submit` takes, and the heads asked for
BLEND_LOCK = f"{BLENDS}/.lock"  # held while this record changes, so that a blend is not pruned while it becomes the standing one
INTERVAL_LEVEL = 0.95
PRICE_FLOOR = SubmissionConfig().price_floor
# Raised when folds in order of time, or by the user's own groups, make another blend.json.
TIME_AND_GROUPS = 2
COVERAGE = 0.9  # of a row's interval, where nothing else is asked for


@dataclass(frozen=True)
class BlendPlan:
    """A blend and all that it depends on; making the plan reads no prediction."""

    selection: Selection
    inputs: dict[str, Any]
    folder: str


@dataclass(frozen=True)
class StandingBlend:
    """The blend that `submit` takes."""

    folder: str
    asked: tuple[str, ...]  # heads that were chosen for it; none: those of the configuration


def plan_blend(
    workspace: Workspace,
    asked: Sequence[str] = (),
    configured: Sequence[str] | None = None,
    seed: int = 42,
    coverage: float = COVERAGE,
    price_floor: float = PRICE_FLOOR,
) -> BlendPlan:
    """What `run_blend` would blend now; the one place that decides whether a blend is up to date.

    Raises:
        HeadError, RowMismatchError, FoldMismatchError, WorkspaceError: see `ensemble.inputs.select_predictions`.
    """
    selection = select_predictions(workspace, asked, configured)
    floor = {} if price_floor == PRICE_FLOOR else {"price_floor": price_floor}
    curves = curves_of(workspace, selection.folders)
    inputs = (
        floor
        | ({"time_and_groups": TIME_AND_GROUPS} if has_order_or_groups(workspace) else {})
        | (
            {"learning_curves": curves, "curve_exponents": list(map(learning_exponent, curves))}
            if curves
            else {}
        )
        | {
            "heads": selection.folders,
            "folds_hash": selection.folds_hash,
            "catalog_digest": selection.catalog_digest,
            "seed": seed,
            "coverage": coverage,
            "code_version": CODE_VERSION,
        }
    )
    return BlendPlan(selection, inputs, f"{BLENDS}/{digest(inputs)}")


def run_blend(
    workspace: Workspace,
    asked: Sequence[str] = (),
    configured: Sequence[str] | None = None,
    seed: int = 42,
    coverage: float = COVERAGE,
    price_floor: float = PRICE_FLOOR,
    *,
    standing: bool = False,
) -> dict[str, Any]:
    """Blend the predictions that stand for each head, or read the blend where it is up to date.

    Args:
        asked: heads to blend; none: those of the configuration and those tuned along with their encoders. A blend of
            chosen heads is a trial: the standing blend stays what it is.
        configured: heads of the run, see `select_predictions`; None: every head with finished predictions.
        coverage: probability that a row's interval holds its price.
        price_floor: lowest price that is submitted, and scored.
        standing: make a blend of chosen heads the standing one, which `submit` takes.

    Returns:
        The content of blend.json, with `folder`, `up_to_date`, `standing` and `notes`.

    Raises:
        HeadError, RowMismatchError, FoldMismatchError, CatalogError: see `ensemble.inputs`.
        ConfigError: coverage is not between 0.5 and 0.999.
    """
    if not 0.5 <= coverage <= 0.999:
        raise ConfigError(f"coverage must be between 0.5 and 0.999, got {coverage:g}")
    plan = plan_blend(workspace, asked, configured, seed, coverage, price_floor)
    workspace.sweep("blend", plan.folder)
    file, folds_hash = f"{plan.folder}/blend.json", plan.selection.folds_hash
    wanted = StandingBlend(plan.folder, tuple(sorted(set(asked)))) if standing or not asked else None
    up_to_date = workspace.is_sound(file) and workspace.is_sound(f"{plan.folder}/oof.parquet")
    made = None if up_to_date else _make(workspace, plan)
    before = _recorded(workspace)
    if not up_to_date or (wanted is not None and _recorded(workspace) != wanted):
        with workspace.lock(BLEND_LOCK):
            if made or not workspace.is_sound(file):
                record, table = made or _make(workspace, plan)  # it was pruned a moment ago
                workspace.publish_table(f"{plan.folder}/oof.parquet", table, {"folds_hash": folds_hash})
                workspace.publish_json(file, record)
            if wanted is not None:
                workspace.publish_json(CURRENT_FILE, dataclasses.asdict(wanted))
    stands, record = _recorded(workspace), workspace.read_json(file)
    notes = [*plan.selection.notes, *_of_folds(workspace, record)]
    if before is not None and stands == wanted and workspace.is_sound(f"{before.folder}/blend.json"):
        notes += _changes(workspace.read_json(f"{before.folder}/blend.json"), record)
    return record | {
        "folder": plan.folder,
        "up_to_date": up_to_date,
        "standing": stands is not None and stands.folder == plan.folder,
        "notes": notes,
    }


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What became of the honest score where another blend stands now, in words."""
    if before["inputs"] == now["inputs"] or "nested" not in before["scores"]:
        return []
    (then, n_then), (here, n_here) = ((one["scores"]["nested"], one["n_rows"]) for one in (before, now))
    return [
        f"the standing blend scored {then:.2f} on {n_then:,} rows before, and scores {here:.2f} on {n_here:,} now"
    ]


def _of_folds(workspace: Workspace, record: dict[str, Any]) -> list[str]:
    """Where folds that the user chose score too few of the rows that the test set has, what to try."""
    expected, folds = record["scores"].get("expected"), read_record(workspace)
    if folds is None or folds.asked in ("", "auto") or expected is None:
        return []
    if expected["test"]["unscored"] <= UNSCORED:
        return []
    return ["folds that score such test rows may come from 'shelfprice catalog folds --group auto'"]


def _recorded(workspace: Workspace) -> StandingBlend | None:
    """As `standing_blend`; None as well where the record is damaged and is written anew."""
    try:
        return standing_blend(workspace)
    except CorruptFileError:
        return None


def _make(workspace: Workspace, plan: BlendPlan) -> tuple[dict[str, Any], pa.Table]:
    read_relatives(workspace, keep=True)
    rows = read_training_rows(workspace, plan.selection)
    record, nested_log_price = make_record(rows, plan.inputs)
    return record, oof_predictions_table(rows.sample_id, rows.fold, nested_log_price)


def standing_blend(workspace: Workspace) -> StandingBlend | None:
    """The blend that stands; None before the first.

    Raises:
        CorruptFileError: the record of it is damaged; names the command that writes it anew.
    """
    if not workspace.exists(CURRENT_FILE):
        return None
    record = workspace.read_json(CURRENT_FILE)
    return StandingBlend(str(record["folder"]), tuple(record.get("asked", ())))


def read_honest(workspace: Workspace, record: dict[str, Any]) -> np.ndarray:
    """The nested log price of each row that was scored, in the order that the catalogue has now, shape (n_rows,).

    Args:
        record: what `read_blend` returns.
    """
    table = workspace.read_table(f"{record['folder']}/oof.parquet").combine_chunks()
    sample_id = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
    position = pc.index_in(sample_id, value_set=table["sample_id"].combine_chunks()).drop_null()
    return np.asarray(table["log_price"].to_numpy()[position.to_numpy()])


def read_blend(workspace: Workspace, folder: str | None = None) -> dict[str, Any]:
    """blend.json of a blend, with its `folder`; None: of the standing one.

    Raises:
        CatalogError: there is no catalogue.
        WorkspaceError: there is no such blend, or it was made by another version.
    """
    standing = standing_blend(workspace)
    found = folder or (standing.folder if standing else None)
    if found is None or not workspace.exists(f"{found}/blend.json"):
        present_splits(workspace)  # raises where nothing was ingested
        what = f"blend {folder}" if folder else "standing blend"
        raise WorkspaceError(
            f"no {what} in {workspace.root}: run 'shelfprice ensemble blend -w {workspace.root}' (with --standing for "
            "heads chosen by --head)"
        )
    record = dict(workspace.read_json(f"{found}/blend.json"))
    if record["inputs"]["code_version"] != CODE_VERSION:
        raise WorkspaceError(
            f"{found} was made by another version of shelfprice: run 'shelfprice ensemble blend -w {workspace.root}'"
        )
    return record | {"folder": found}


def apply_blend(record: dict[str, Any], heads: Sequence[str], log_prices: np.ndarray) -> np.ndarray:
    """The blend's log price of rows, shape (n_rows,).

    Args:
        record: the content of blend.json.
        heads: of the columns of log_prices, shape (n_rows, n_heads); those of weight 0 may be left out.
    """
    from ensemble.calibrate import Calibration
    from ensemble.means import combine

    weights = np.array([record["weights"][head] for head in heads])
    return Calibration.from_json(record["calibration"]).apply(combine(record["mean"], log_prices, weights))


def as_prices(log_price: np.ndarray, price_floor: float) -> np.ndarray:
    """Log prices, of any shape, as they are submitted: rounded, and no lower than the lowest price."""
    decimals = max(4, 2 + math.ceil(-math.log10(price_floor)))
    return np.maximum(np.round(np.exp(log_price), decimals), price_floor)


def price_limits(log_actual: np.ndarray, lowest: float) -> tuple[float, float]:
    """Log prices beyond which no row's interval reaches: as far outside of known prices as a head may predict."""
    return max(float(log_actual.min()) - MOST_BEYOND, lowest), float(log_actual.max()) + MOST_BEYOND


def make_record(rows: TrainingRows, inputs: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """The content of blend.json, and every row's nested log price, shape (n_rows,)."""
    from ensemble.conformal import coverage_by_kind, crossfitted_intervals, fit_intervals, latest_of
    from ensemble.groups import bootstrap_interval
    from ensemble.honest import RULE, Maker
    from ensemble.outlook import kinds_of, outlook
    from store.metric import smape_rows
    from store.weights import repetitions

    started = time.perf_counter()
    counts = np.ones(len(rows.fold)) if rows.weight is None else rows.weight / rows.weight.mean()
    fitted = rows if rows.weight is None else rows.repeated(repetitions(counts))
    maker = Maker(fitted.log_prices, fitted.log_actual, fitted.fold, fitted.group, looks_back=rows.looks_back)
    blend, nested = maker.final(), maker.nested().of_rows(rows.fold, rows.log_prices)
    lowest = float(np.log(inputs.get("price_floor", PRICE_FLOOR)))
    nested_log_price = np.maximum(nested.log_price, lowest)
    average = np.maximum(rows.log_prices.mean(axis=1), lowest)

    def losses(log_price: np.ndarray) -> np.ndarray:
        """Each row's loss times what the row counts: their mean is the score."""
        return counts * smape_rows(rows.log_actual, np.maximum(log_price, lowest))

    of_heads = [float(losses(z).mean()) for z in rows.log_prices.T]
    loss = losses(nested_log_price)
    naive = float(losses(blend.log_price(rows.log_prices)).mean())
    over_average = losses(average) - loss
    best = int(np.argmin(of_heads))
    over_best = losses(rows.log_prices[:, best]) - loss
    seed, coverage = inputs["seed"], inputs["coverage"]
    expected = outlook(rows, nested, loss / counts, lowest, INTERVAL_LEVEL)
    weights = dict(zip(rows.heads, map(float, blend.mix.weights), strict=True))
    asked = [head for head, weight in weights.items() if weight > 0]
    kinds, limits = kinds_of(rows, asked), price_limits(rows.log_actual, lowest)
    inside, half_width = crossfitted_intervals(
        nested_log_price, rows.log_actual, rows.fold, coverage, kinds, looks_back=rows.looks_back
    )
    known = np.isfinite(half_width)
    latest = latest_of(rows.fold) if rows.looks_back else None
    intervals = fit_intervals(nested_log_price, rows.log_actual, coverage, kinds, limits, latest)

    def interval(values: np.ndarray) -> list[float]:
        return list(bootstrap_interval(values, rows.group, seed, INTERVAL_LEVEL, counts=counts))

    record = {
        "inputs": inputs,
        "method": blend.mix.method,
        "mean": blend.mix.mean,
        "weights": weights,
        "calibration": blend.calibration.to_json(),
        "intervals": intervals.narrowed(expected["test"]["size_factor"]).to_json()
        | {
            "measured_coverage": float(inside[known].mean()),
            "median_factor": float(np.exp(np.median(half_width[known]))),
            "by_kind": coverage_by_kind(inside[known], nested_log_price[known], kinds.rows(known)),
            "spread_of": asked,
        },
        "rule": RULE,
        "inner": {"smape": blend.inner_smape, "gain": blend.gain, "gain_error": blend.gain_error},
        "scores": {
            "heads": dict(zip(rows.heads, of_heads, strict=True)),
            "naive": naive,
            "nested": float(loss.mean()),
            "nested_interval": interval(loss),
            "interval_level": INTERVAL_LEVEL,
            "expected": expected,
            "test_interval": None if rows.n_test is None else expected["test"]["interval"],
            "optimism": float(loss.mean()) - naive,
            "average": float(losses(average).mean()),
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
