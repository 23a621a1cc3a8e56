"""Compares heads on the same rows and folds; nothing is published, and the standing predictions are kept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.features.inputs import Inputs, read_inputs
from heads.folds.crossfit import crossfit, scored_rows
from heads.plan import HeadPlan, Log, plan_heads
from store.catalog.read import catalog_digest
from store.config import Config
from store.errors import HeadError, ShelfpriceError
from store.folds.assign import ensure_folds, sample_of_groups
from store.metric import gain_and_error, smape_rows
from store.predictions import read_predictions
from store.workspace import Workspace

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Compared:
    """One head, compared with the first one that was named."""

    head: str
    smape: float  # out of fold, percent
    interval: tuple[float, float]  # 95%, over groups
    difference: float  # SMAPE less that of the first head on the same rows: below 0 is better
    difference_interval: tuple[float, float] | None  # None: of the first head
    dim: int  # columns of the vectors that it reads
    seconds: float | None  # of all folds on these rows, and of a refit where there are test rows
    rows_per_second: float | None
    whole_seconds: (
        float | None
    )  # about what all rows would take; None: these are all of them, or it was not measured
    n_rows: int


def compare_heads(
    workspace: Workspace,
    config: Config,
    names: Sequence[str],
    n_rows: int | None = None,
    log: Log = lambda line: None,
) -> list[Compared]:
    """Out-of-fold scores of heads on the same folds, in the order named, each against the first.

    On all rows finished predictions are taken as they are, and heads without any are trained. On a sample every head
    is trained, so that all have seen as many rows.

    Args:
        n_rows: about how many training rows to look at, whole groups; None: all.

    Raises:
        HeadError: fewer than two heads are named, or one can't be trained.
    """
    if len(dict.fromkeys(names)) < 2:
        raise HeadError(f"a comparison takes two heads or more, got {', '.join(names) or 'none'}")
    folds = ensure_folds(workspace, config, log)
    plans = []
    for name, plan in plan_heads(workspace, config, names, folds, catalog_digest(workspace), log):
        if isinstance(plan, ShelfpriceError):
            raise HeadError(f"{name}: {plan}") from plan
        plans.append(plan)
    sets = {found.vector_set: None for plan in plans for found in plan.sets}
    texts = sorted({composition for plan in plans for composition in plan.head.texts})
    inputs = read_inputs(workspace, list(sets), texts, folds)
    chosen = sample_of_groups(inputs.train.group, n_rows, config.seed)
    part = np.flatnonzero(chosen)
    is_sample = len(part) < len(chosen)
    predicted = [
        _finished(workspace, plan, inputs)
        if plan.exists and not is_sample
        else _trained(plan, inputs, part, log)
        for plan in plans
    ]
    scored = scored_rows(inputs.fold[part], inputs.looks_back)
    actual, group = inputs.log_price[part][scored], inputs.train.group[part][scored]
    weight = inputs.train.weight
    counts = np.ones(len(actual)) if weight is None else weight[part][scored]
    counts = counts / counts.mean()
    losses = [
        counts * smape_rows(actual, plan.floored(log_price[scored]))
        for plan, (log_price, _) in zip(plans, predicted, strict=True)
    ]
    found = []
    for at, (plan, (_, seconds), loss) in enumerate(zip(plans, predicted, losses, strict=True)):
        whole = seconds * len(chosen) / len(part) if is_sample and seconds is not None else None
        found.append(
            Compared(
                plan.name,
                float(loss.mean()),
                _interval(loss, group),
                float((loss - losses[0]).mean()),
                _interval(loss - losses[0], group) if at else None,
                plan.width(workspace),
                seconds,
                len(part) / seconds if seconds else None,
                whole,
                len(part),
            )
        )
    return found


def _interval(values: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    mean, error = gain_and_error(values, group)
    return mean - NORMAL_95 * error, mean + NORMAL_95 * error


def _finished(workspace: Workspace, plan: HeadPlan, inputs: Inputs) -> tuple[np.ndarray, float | None]:
    predictions = read_predictions(workspace, plan.folder)
    place = {one: at for at, one in enumerate(predictions.oof["sample_id"].to_pylist())}
    order = [place[one] for one in inputs.train.sample_id.to_pylist()]
    return predictions.oof["log_price"].to_numpy()[order], predictions.report.get("seconds")


def _trained(plan: HeadPlan, inputs: Inputs, part: np.ndarray, log: Log) -> tuple[np.ndarray, float]:
    """Log price of the rows `part`, by models of other folds that were fitted on them."""
    log(f"{plan.name}: training on {len(part)} rows")
    rows = inputs.train.select([str(found.vector_set) for found in plan.sets]).subset(part)
    cleaning: Any = inputs.cleaning if len(part) == len(inputs.train) else None
    test = (
        None if inputs.test is None else rows
    )  # so that a refit is counted, as of a head that a run trained
    started = time.perf_counter()
    found = crossfit(
        plan.head,
        rows,
        inputs.log_price[part],
        inputs.fold[part],
        test,
        cleaning=cleaning,
        tuning=plan.tuning,
        looks_back=inputs.looks_back,
    )
    return found.oof, time.perf_counter() - started


def compared_lines(found: Sequence[Compared]) -> list[str]:
    """A table for people."""
    width = max(len("head"), *(len(one.head) for one in found))
    lines = [
        f"{found[0].n_rows:,} rows, the same folds. Difference: SMAPE less that of {found[0].head}, below 0 is better.",
        f"  {'head':<{width}}  {'dim':>4}  {'SMAPE':>7}  {'difference':>10}  {'95% interval':<15}  {'rows/s':>6}  {'time':>8}",
    ]
    for one in found:
        apart = f"{one.difference:+10.2f}" if one.difference_interval else f"{'':>10}"
        ends = "{:+.2f} to {:+.2f}".format(*one.difference_interval) if one.difference_interval else ""
        seconds = f"{one.seconds:6.1f} s" if one.seconds is not None else ""
        speed = f"{one.rows_per_second:6.0f}" if one.rows_per_second is not None else f"{'':>6}"
        lines.append(
            f"  {one.head:<{width}}  {one.dim:>4}  {one.smape:7.2f}  {apart}  {ends:<15}  {speed}  {seconds:>8}"
        )
    whole = [one for one in found if one.whole_seconds is not None]
    if whole:
        costs = ", ".join(f"{one.head} {one.whole_seconds:.0f} s" for one in whole)
        lines.append(f"All rows would take at least: {costs}.")
    return lines
