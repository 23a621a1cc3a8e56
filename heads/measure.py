"""Measures the training of heads on a few rows, for plans of heads that this machine never trained."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heads.features.inputs import read_inputs
from heads.folds.crossfit import crossfit
from heads.folds.curve import curve_pass
from heads.plan import HeadPlan, Log
from store.errors import ShelfpriceError
from store.folds.assign import Folds, sample_of_groups
from store.workspace import Workspace

ROWS = (500, 2000)  # two sizes say which part of the time grows with the rows


@dataclass(frozen=True)
class Measured:
    """One head on a sample of the training rows."""

    head: str
    n_rows: int
    seconds: float
    width: int  # columns of vectors that it reads


def measure_heads(
    workspace: Workspace, plans: Sequence[HeadPlan], folds: Folds, seed: int, log: Log = lambda line: None
) -> Iterator[Measured]:
    """Train heads as a run does, on about 500 and 2,000 rows; nothing is kept. One that can't be trained is left out."""
    sets = {found.vector_set: None for plan in plans for found in plan.sets}
    texts = sorted({composition for plan in plans for composition in plan.head.texts})
    inputs = read_inputs(workspace, list(sets), texts, folds)
    for n_rows in ROWS if len(inputs.train) > ROWS[0] else ROWS[:1]:
        part = np.flatnonzero(sample_of_groups(inputs.train.group, n_rows, seed))
        for plan in plans:
            log(f"measuring {plan.name} on {len(part):,} rows")
            rows = inputs.train.select([str(found.vector_set) for found in plan.sets]).subset(part)
            log_price, fold = inputs.log_price[part], inputs.fold[part]
            test = None if inputs.test is None else rows  # so that a refit for the test rows is counted
            started = time.perf_counter()
            try:
                crossfit(plan.head, rows, log_price, fold, test, looks_back=inputs.looks_back)
                if plan.learning_curve and not inputs.looks_back:
                    curve_pass(plan.head, rows, log_price, fold, seed)
            except ShelfpriceError as error:
                log(f"{plan.name} was not measured: {error}")
                continue
            yield Measured(plan.name, len(part), time.perf_counter() - started, rows.n_columns)
