"""Heads of the blend trained anew on fewer rows or inputs: those that are quick enough for the time that is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ensemble.report.rows import ReportRows
from heads.base import Head
from heads.features.inputs import Inputs, read_inputs, resolve_set
from heads.features.rows import Rows
from heads.folds.crossfit import crossfit
from heads.folds.parallel import each_on_a_core
from heads.params import current_params
from heads.registry import head_class, make_head
from store.cleaning import Cleaning
from store.errors import ShelfpriceError
from store.folds.assign import read_folds
from store.workspace import Workspace

Progress = Callable[[str], None]
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
AT_WORST = 4.0  # times the seconds that are given, for one head rather than none


@dataclass(frozen=True)
class Refitted:
    """One head of the blend that can be trained again as it was."""

    name: str
    head: Head  # unfitted, with the parameters that it was trained with
    vectors: tuple[str, ...]
    seconds: float  # that training took
    log_price: np.ndarray  # (n_rows,) out of fold, as trained on everything


@dataclass(frozen=True)
class Only(Cleaning):
    """Fits on some of the training rows, cleaned as all of them are."""

    kept: np.ndarray  # (n_rows,) bool
    cleaning: Cleaning | None = None

    def training_part(self, inside: np.ndarray, log_price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = inside[self.kept[inside]]
        if self.cleaning is not None:
            return self.cleaning.training_part(chosen, log_price)
        return chosen, log_price[chosen]


def quick_heads(workspace: Workspace, rows: ReportRows) -> list[Refitted]:
    """Heads that can be trained again, the quickest first.

    Tuned heads are left out, whose parameters are of each fold, and those with vectors of fine-tuned encoders.
    """
    found = []
    for at, (name, folder) in enumerate(rows.record["inputs"]["heads"].items()):
        record = workspace.read_json(f"{folder}/head.json")
        inputs, report = record["inputs"], record["report"]
        if "tuned" in inputs or "seconds" not in report or report.get("fold_matched"):
            continue
        try:
            params = current_params(head_class(name), inputs["params"], warn=False)
            head = make_head(name, params, inputs["seed"])
        except ShelfpriceError:
            continue  # of a package that is not installed any more
        vectors = tuple(entry[0] for entry in inputs["vectors"])
        log_price = rows.head_log_prices()[:, at]
        found.append(Refitted(name, head, vectors, float(report["seconds"]), log_price))
    return sorted(found, key=lambda one: one.seconds)


def within(heads: Sequence[Refitted], seconds: float, cost: Callable[[Refitted], float]) -> list[Refitted]:
    """The quickest heads whose costs together fit into some seconds; the first one may take `AT_WORST` times as long."""
    chosen: list[Refitted] = []
    for one in heads:
        if sum(map(cost, chosen)) + cost(one) > seconds * (1 if chosen else AT_WORST):
            break
        chosen.append(one)
    return chosen


def inputs_of(workspace: Workspace, heads: Sequence[Refitted]) -> Inputs:
    """What these heads were trained on.

    Raises:
        MissingVectorsError: vectors that they were trained on are there no more.
    """
    names = dict.fromkeys(name for one in heads for name in one.vectors)
    texts = sorted({composition for one in heads for composition in one.head.texts})
    return read_inputs(
        workspace, [resolve_set(workspace, name) for name in names], texts, read_folds(workspace)
    )


def out_of_fold(one: Refitted, rows: Rows, inputs: Inputs, kept: np.ndarray | None = None) -> np.ndarray:
    """Log price of every row by models of other folds, shape (n_rows,).

    Args:
        rows: the training rows, perhaps without some inputs.
        kept: rows that may be fitted on, shape (n_rows,) bool; None: all.

    Raises:
        HeadError: nothing is left to learn from.
    """
    names = {matrix.name for matrix in rows.matrices}
    selected = rows.select([name for name in one.vectors if name in names])
    cleaning = inputs.cleaning if kept is None else Only((), kept, inputs.cleaning)
    return crossfit(
        one.head,
        selected,
        inputs.log_price,
        inputs.fold,
        cleaning=cleaning,
        looks_back=inputs.looks_back,
        keeps_model=False,
    ).oof


def each_refit(
    work: Callable[[Asked], Answer], asked: Sequence[Asked], heads: Sequence[Refitted]
) -> list[Answer]:
    """`work` of each, which trains some of the heads: several at a time, where these heads can be trained so."""
    if all(one.head.side_by_side for one in heads):
        return each_on_a_core(work, asked)
    return [work(one) for one in asked]


def without_fields(rows: Rows, dropped: Callable[[str], bool]) -> Rows:
    """The same rows without the columns that are dropped by name."""
    fields = rows.fields
    at = [i for i, name in enumerate(fields.names) if not dropped(name)]
    kept = {name: column for name, column in fields.categories.items() if not dropped(name)}
    table = replace(fields, names=tuple(fields.names[i] for i in at), X=fields.X[:, at], categories=kept)
    return replace(rows, fields=table)
