"""What each input is worth: heads trained again without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ensemble.groups import gain_and_error
from ensemble.report.refit import (
    AT_WORST,
    Progress,
    Refitted,
    each_refit,
    inputs_of,
    out_of_fold,
    quick_heads,
    within,
    without_fields,
)
from ensemble.report.rows import ReportRows
from heads.features.inputs import Inputs
from heads.features.rows import Rows
from store.errors import HeadError, MissingVectorsError
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX
from store.vectors.sets import VectorSet, current_spec
from store.workspace import Workspace

MOST_COLUMNS = 12  # of the user's file that are dropped one by one
NORMAL_95 = 1.959964
_OWN = (NUMERIC_PREFIX, CATEGORICAL_PREFIX)
_COLUMNS_ALONE = (
    "neighbours",
    "sparse",
)  # heads that of the fields read the columns of the user's file alone


@dataclass(frozen=True)
class Input:
    """Something that heads read, and the rows without it."""

    name: str
    reads: Callable[[Refitted], bool]
    without: Callable[[Rows], Rows]


def importance(
    workspace: Workspace, rows: ReportRows, seconds: float, progress: Progress = lambda said: None
) -> dict[str, Any]:
    """How much worse the average of the quickest heads is without each input.

    Inputs with the same information replace one another, since each is dropped alone.

    Args:
        seconds: that training may take, by what it took before.

    Returns:
        `inputs` (name, points of SMAPE lost, their interval), the largest first; `heads`, their `smape` with
        everything, and `skipped`: why nothing was measured.
    """
    heads = quick_heads(workspace, rows)
    may_fit = within(heads, seconds, lambda one: one.seconds)  # without one input
    if not may_fit:
        return _skipped(_why_not(heads, 1, seconds))
    try:
        inputs = inputs_of(workspace, may_fit)
    except MissingVectorsError as missing:
        return _skipped(str(missing))
    listed = inputs_read(workspace, inputs)
    chosen = within(may_fit, seconds, lambda one: one.seconds * sum(what.reads(one) for what in listed))
    if not chosen:
        return _skipped(_why_not(heads, sum(what.reads(heads[0]) for what in listed), seconds))
    group = rows.training.group
    before = rows.losses(np.mean([one.log_price for one in chosen], axis=0))
    read = [what for what in listed if any(what.reads(one) for one in chosen)]
    progress(f"importance: {', '.join(one.name for one in chosen)} without each of {len(read)} inputs")
    trained = each_refit(
        lambda asked: _without(asked[1], asked[0], inputs, rows.position), list(product(read, chosen)), chosen
    )
    found = []
    for at, what in enumerate(read):
        of_heads = trained[at * len(chosen) : (at + 1) * len(chosen)]
        left = [log_price for log_price in of_heads if log_price is not None]
        if not left:
            continue
        gain, standard_error = gain_and_error(rows.losses(np.mean(left, axis=0)) - before, group)
        reach = NORMAL_95 * standard_error
        found.append({"name": what.name, "points": gain, "interval": [gain - reach, gain + reach]})
    return {
        "inputs": sorted(found, key=lambda one: -one["points"]),
        "heads": [one.name for one in chosen],
        "smape": float(before.mean()),
        "is_complete": len(chosen) == len(heads),
        "skipped": None,
    }


def inputs_read(workspace: Workspace, inputs: Inputs) -> list[Input]:
    """Everything that can be left out: each vector set, the text, the image, parsed fields, each further column."""
    rows = inputs.train
    sets = [
        VectorSet.parse(m.name, current_spec(workspace, m.name.partition("@")[0]).modality)
        for m in rows.matrices
    ]
    of_text = {str(one) for one in sets if one.text}
    of_image = {str(one) for one in sets if one.has_image}
    found = [_vectors(f"vectors {one}", {str(one)}) for one in sets]
    if len(of_image) > 1:
        found.append(_vectors("the image (all its vectors)", of_image))
    found.append(
        Input(
            "the text (words, vectors, what is parsed from it)",
            lambda one: bool(one.head.texts) or bool(set(one.vectors) & of_text) or _reads_fields(one),
            lambda rows: replace(
                without_fields(_less(rows, of_text), lambda name: not name.startswith(_OWN)),
                texts={name: np.full(len(rows), "", object) for name in rows.texts},
            ),
        )
    )
    columns = [n for n in (*rows.fields.names, *rows.fields.categories) if n.startswith(_OWN)]
    parsed = len(rows.fields.names) + len(rows.fields.categories) - len(columns)
    if parsed:
        found.append(
            Input(
                "fields parsed from the text (quantity, unit, length, facts)",
                _reads_fields,
                lambda rows: without_fields(rows, lambda name: not name.startswith(_OWN)),
            )
        )
    if len(columns) > 1:
        found.append(
            Input(
                "all further columns",
                _reads_columns,
                lambda rows: without_fields(rows, lambda name: name.startswith(_OWN)),
            )
        )
    return found + [_column(name) for name in columns[:MOST_COLUMNS]]


def _vectors(name: str, sets: set[str]) -> Input:
    return Input(name, lambda one: bool(set(one.vectors) & sets), lambda rows: _less(rows, sets))


def _column(name: str) -> Input:
    return Input(
        f"column {name.partition(':')[2]}",
        _reads_columns,
        lambda rows: without_fields(rows, lambda other: other == name),
    )


def _less(rows: Rows, sets: set[str]) -> Rows:
    return rows.select([matrix.name for matrix in rows.matrices if matrix.name not in sets])


def _reads_fields(one: Refitted) -> bool:
    """Whether it may read what is parsed from the text; a head that is not known may."""
    return bool(getattr(one.head, "fields", True)) and one.name not in _COLUMNS_ALONE


def _reads_columns(one: Refitted) -> bool:
    return _reads_fields(one) or one.name in _COLUMNS_ALONE


def _without(one: Refitted, what: Input, inputs: Inputs, position: np.ndarray) -> np.ndarray | None:
    """Log price of the rows at some positions; None where the head can't be trained without it: the others are left then."""
    if not what.reads(one):
        return one.log_price
    try:
        return out_of_fold(one, what.without(inputs.train), inputs)[position]
    except HeadError:
        return None


def _skipped(why: str) -> dict[str, Any]:
    return {"skipped": why, "inputs": [], "heads": []}


def _why_not(heads: Sequence[Refitted], times: int, seconds: float) -> str:
    if not heads:
        return "no head of the blend can be trained again with the same parameters"
    takes = heads[0].seconds * times
    return f"even {heads[0].name} would take about {takes:.0f} s, more than {AT_WORST:.0f} times the {seconds:.0f} s that were given"
