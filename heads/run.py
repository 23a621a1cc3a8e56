"""Trains the heads that are missing and publishes their predictions; what is there already is not touched."""

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from heads.base import Head
from heads.defaults import configured_heads
from heads.features.inputs import Inputs, read_inputs
from heads.features.memory import check_beyond_memory, fits
from heads.folds.tuning import Tuning
from heads.plan import Coverages, HeadPlan, Log, n_columns, plan_head, plan_heads
from store.catalog.read import catalog_digest
from store.config import Config, load_config
from store.errors import HeadError, ShelfpriceError
from store.folds.assign import ensure_folds
from store.predictions import (
    CURVE_FILE,
    Predictions,
    oof_predictions_table,
    publish_predictions,
    test_predictions_table,
)
from store.standing import let_stand
from store.timings import forget_peak, peak_since
from store.vectors.ondisk import scratch_folder
from store.workspace import Workspace

FITTED = "fitted"  # folder of the fitted head, beside its predictions
EVIDENCE_FILE = "evidence.parquet"  # what a head's prices were taken from, row by row, where it can say


@dataclass(frozen=True)
class HeadResult:
    """The result of one head."""

    head: str
    status: Literal["trained", "present", "failed"]
    folder: str | None = None
    smape: float | None = None  # out of fold, percent
    seconds: float | None = (
        None  # of fitting and predicting, its learning curve among it, when it was trained
    )
    error: str | None = None
    tuned: bool = False  # with parameters that 'shelfprice heads tune' found
    width: int = 0  # columns of the vectors that it was trained on
    peak_bytes: int | None = None  # most memory of the process meanwhile; None: not trained, or not known


def run_heads(
    workspace: Workspace,
    config: Config,
    names: Sequence[str] = (),
    log: Log = lambda line: None,
    memory: int | None = None,
) -> Iterator[HeadResult]:
    """Train each named head whose predictions are missing; yields a result as each is done.

    A head that fails, for whatever reason, is reported and the rest goes on.

    Args:
        names: heads to run; none: those of the configuration.
        log: takes lines for people, such as a vector set that was left out.
        memory: bytes that vectors may take; heads whose vectors take more train from files. None: no limit.

    Raises:
        CatalogError: nothing was ingested.
    """
    folds = ensure_folds(workspace, config, log)
    digest, missing = catalog_digest(workspace), []
    for name, plan in plan_heads(
        workspace, config, names or configured_heads(workspace, config), folds, digest, log
    ):
        if isinstance(plan, ShelfpriceError):
            yield HeadResult(name, "failed", error=str(plan))
        elif plan.exists and let_stand(workspace, name, plan.folder, log):
            smape = workspace.read_json(f"{plan.folder}/head.json")["report"]["smape"]
            yield HeadResult(name, "present", plan.folder, smape, tuned=plan.tuning is not None)
        else:
            missing.append(plan)
    if not missing:
        return
    sets = {found.vector_set: None for plan in missing for found in plan.sets}
    texts = sorted({composition for plan in missing for composition in plan.head.texts})
    with scratch_folder() as folder:
        in_memory = fits(_n_rows(missing), n_columns(workspace, sets), memory)
        place = None if in_memory else Path(folder)
        inputs = read_inputs(workspace, list(sets), texts, folds, place, digest)
        for note in inputs.notes:
            log(note)
        for plan in missing:
            try:
                yield train_head(workspace, plan, inputs, log, memory)
            except ShelfpriceError as error:
                yield HeadResult(plan.name, "failed", error=str(error))
            except Exception as error:  # noqa: BLE001 - a fault of one head, or of its library, stops no other
                log("".join(traceback.format_exception(error)).rstrip())
                said = f"{type(error).__name__}: {error}"
                yield HeadResult(plan.name, "failed", error=f"{said} (a fault; its traceback is above)")


def train_heads(
    workspace: Workspace | str | PathLike[str],
    names: Sequence[str] = (),
    *,
    memory: int | None = None,
    log: Log = lambda line: None,
) -> list[HeadResult]:
    """Train the heads whose predictions are missing: `shelfprice heads run` as a function.

    >>> from heads import train_heads
    >>> [(one.head, one.status) for one in train_heads("run", ["ridge"])]  # doctest: +SKIP
    [('ridge', 'trained')]

    Args:
        workspace: one whose catalogue was embedded, or its path or address.
        names: heads to train; none: those of `shelfprice.toml`. Their parameters are read from that file.
        memory: bytes that vectors may take; heads whose vectors take more train from files. None: no limit.
        log: called with lines for people, such as `print`.

    Returns:
        One result for each head: its status, out-of-fold SMAPE in percent, seconds and folder of predictions.

    Raises:
        HeadError: a head failed; the others are trained, and a second call finds them present.
        CatalogError: nothing was ingested.
        ConfigError: `shelfprice.toml` holds something that is not understood.
    """
    workspace = Workspace.of(workspace)
    results = list(run_heads(workspace, load_config(workspace), names, log, memory))
    failed = [result for result in results if result.status == "failed"]
    if failed:
        reasons = "; ".join(
            f"{result.head}: {str(result.error).removeprefix(f'{result.head}: ')}" for result in failed
        )
        raise HeadError(f"{len(failed)} of {len(results)} heads failed: {reasons}")
    return results


def _n_rows(plans: Sequence[HeadPlan]) -> int:
    return max((found.n_rows for plan in plans for found in plan.sets), default=0)


def train_head(
    workspace: Workspace, plan: HeadPlan, inputs: Inputs, log: Log, memory: int | None = None
) -> HeadResult:
    """Cross-fit one head and publish predictions, model files and report.

    Raises:
        HeadError: it misses what it needs, has nothing to learn, or diverged; nothing is published.
    """
    from heads.folds.crossfit import crossfit, scored_rows
    from heads.folds.curve import MOST_SECONDS, curve_pass, curve_table
    from store.metric import scores

    names = [str(found.vector_set) for found in plan.sets]
    train = inputs.train.select(names)
    test = None if inputs.test is None else inputs.test.select(names)
    if fits(len(train), train.n_columns, memory):
        train, test = train.in_memory(), None if test is None else test.in_memory()
    else:
        check_beyond_memory(plan.head, plan.name, len(train), train.n_columns)
    from_file = " from files" if train.on_disk else ""
    log(f"{plan.name}: training on {len(train)} rows, {', '.join(names) or 'no vectors'}{from_file}")
    matched = [str(found.vector_set) for found in plan.sets if found.folds]
    if matched:
        log(
            f"{plan.name}: fold-matched vectors of {', '.join(matched)}: each fold is fitted and predicted on those of "
            "the model that never saw it, test rows are the mean over the folds"
        )
    if train.weight is not None and not plan.head.takes_weights:
        log(
            f"{plan.name}: takes no weights: it is fitted on each row repeated in proportion to its weight, at least once, "
            "so that rows below half of the mean weight count as much as one of half of it"
        )
    if plan.tuning is not None:
        log(f"{plan.name}: with parameters found by tuning ({plan.tuning.trials} trials)")
    started, hidden = time.perf_counter(), forget_peak()
    result = crossfit(
        plan.head,
        train,
        inputs.log_price,
        inputs.fold,
        test,
        cleaning=inputs.cleaning,
        tuning=plan.tuning,
        looks_back=inputs.looks_back,
    )
    seconds = time.perf_counter() - started
    curve = None
    if plan.learning_curve and not (inputs.cleaning or inputs.looks_back) and seconds < MOST_SECONDS:
        seed = plan.inputs["seed"]
        curve = curve_pass(plan.head, train, inputs.log_price, inputs.fold, seed, plan.tuning, log)
    scored = scored_rows(inputs.fold, inputs.looks_back)
    weight = None if train.weight is None else train.weight[scored]
    report: dict[str, Any] = {
        **scores(inputs.log_price[scored], plan.floored(result.oof[scored]), weight),
        "seconds": round(seconds, 3),
        "learned": result.learned,
        **({"fold_matched": matched} if matched else {}),
        **({"curve_seconds": round(time.perf_counter() - started - seconds, 3)} if curve else {}),
        "peak_bytes": peak_since(hidden),
        "versions": {package: version(package) for package in ("shelfprice", *plan.head.libraries)},
    }
    files, tables = dict(result.model.files()), list[str]()
    if not matched:
        files |= _fitted_files(plan.name, result.fold_models or (result.model,))
    if result.evidence is not None:
        tables.append(EVIDENCE_FILE)
        workspace.publish_table(f"{plan.folder}/{EVIDENCE_FILE}", result.evidence)
    if curve is not None:
        tables.append(CURVE_FILE)
        metadata = {"folds_hash": plan.inputs["folds_hash"], "share": curve.share}
        workspace.publish_table(
            f"{plan.folder}/{CURVE_FILE}", curve_table(train.sample_id, curve), metadata=metadata
        )
    oof = oof_predictions_table(train.sample_id, inputs.fold, result.oof)
    predicted = None
    if test is not None and result.test is not None:
        predicted = test_predictions_table(test.sample_id, result.test)
    publish_predictions(workspace, Predictions(plan.name, plan.inputs, oof, predicted, report), files, tables)
    return HeadResult(
        plan.name,
        "trained",
        plan.folder,
        report["smape"],
        seconds + report.get("curve_seconds", 0.0),
        tuned=plan.tuning is not None,
        width=train.n_columns,
        peak_bytes=report["peak_bytes"],
    )


def _fitted_files(name: str, models: Sequence[Head]) -> dict[str, bytes]:
    """The fitted head, for `ensemble pack`, which says so where it can't be written."""
    from heads.fitted import write_fitted

    try:
        return {f"{FITTED}/{file}": content for file, content in write_fitted(name, models).items()}
    except HeadError:
        return {}


def tune_head(
    workspace: Workspace, config: Config, name: str, minutes: float, log: Log = lambda line: None
) -> Tuning:
    """Search for the parameters of one head, going on from where the last search stopped.

    Raises:
        HeadError: the head is unknown, or has nothing to tune; nothing is trained.
    """
    from heads.folds.search import search_parameters
    from heads.folds.search_spaces import space_of

    space_of(name)
    folds = ensure_folds(workspace, config, log)
    digest, coverage = catalog_digest(workspace), Coverages(workspace, log)
    plan = plan_head(workspace, config, name, folds, digest, coverage, lambda line: None)
    if tuned := [str(found.vector_set) for found in plan.sets if found.folds]:
        raise HeadError(
            f"{name} reads fine-tuned vectors ({tuned[0]}), on which inner scores are biased, so it can't be tuned: name "
            f'other vectors under [heads.params."{name}"] in shelfprice.toml'
        )
    sets = [found.vector_set for found in plan.sets]
    inputs = read_inputs(workspace, sets, plan.head.texts, folds, catalog=digest)
    return search_parameters(
        workspace, plan.head, name, plan.given, plan.inputs, inputs, minutes, log, plan.floored
    )
