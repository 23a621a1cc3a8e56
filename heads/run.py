"""Trains the heads that are missing and publishes their predictions; what is there already is not touched."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.defaults import configured_heads
from heads.features.inputs import InputCoverage, Inputs, input_coverage, read_inputs, resolve_set
from heads.features.memory import check_beyond_memory, fits
from heads.folds.search import has_trials
from heads.folds.tuning import Tuning, read_tuning, tuning_basis, tuning_path
from heads.params import current_params, run_params
from heads.registry import make_head
from store.catalog.read import catalog_digest, extra_columns, read_split, split_path
from store.cleaning import cleaning_digest
from store.config import CONFIG_FILE, Config, SubmissionConfig, load_config
from store.errors import HeadError, MissingVectorsError, ShelfpriceError, UnknownHeadError
from store.folds.assign import Folds, ensure_folds
from store.predictions import (
    CURVE_FILE,
    Predictions,
    oof_predictions_table,
    predictions_exist,
    predictions_folder,
    publish_predictions,
    test_predictions_table,
)
from store.schema import WEIGHT
from store.standing import let_stand, standing_file
from store.vectors.folded import check_folds, fold_specs
from store.vectors.ondisk import scratch_folder
from store.vectors.sets import VectorSet, current_spec
from store.workspace import Workspace

FITTED = "fitted"  # folder of the fitted head, beside its predictions
COLUMNS_VERSION = 2  # raised when heads read the same further columns in another way
WEIGHTS_VERSION = 2  # raised when fits use the same weights of rows in another way
EVIDENCE_FILE = "evidence.parquet"  # what a head's prices were taken from, row by row, where it can say

Log = Callable[[str], None]


@dataclass(frozen=True)
class HeadPlan:
    """One head and all that its predictions depend on."""

    name: str
    head: Head
    sets: tuple[InputCoverage, ...]
    inputs: dict[str, Any]
    folder: str
    exists: bool
    given: frozenset[str] = frozenset()  # parameters that the configuration sets
    tuning: Tuning | None = None  # None: every fold has the head's own parameters
    learning_curve: bool = True  # a second pass over a sample of the rows, see `heads.folds.curve`
    price_floor: float = (
        SubmissionConfig().price_floor
    )  # that predictions are raised to before they are scored

    def floored(self, log_price: np.ndarray) -> np.ndarray:
        """Log prices as they are scored, as they would be submitted."""
        return np.maximum(log_price, np.log(self.price_floor))

    def width(self, workspace: Workspace) -> int:
        """Columns of the vectors that it reads."""
        return _n_columns(workspace, [found.vector_set for found in self.sets])


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
        in_memory = fits(_n_rows(missing), _n_columns(workspace, sets), memory)
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


def _n_columns(workspace: Workspace, sets: Iterable[VectorSet]) -> int:
    specs = [current_spec(workspace, one.encoder) for one in sets]
    return sum(spec.dim * max(1, len(fold_specs(spec))) for spec in specs)


def plan_heads(
    workspace: Workspace,
    config: Config,
    names: Iterable[str],
    folds: Folds,
    catalog: str,
    log: Log = lambda line: None,
) -> Iterator[tuple[str, HeadPlan | ShelfpriceError]]:
    """Each named head and its plan, or why it can't be trained; the one place that decides what is fresh.

    Args:
        catalog: digest of the catalogue.
    """
    coverage = _Coverages(workspace, log)
    for name in dict.fromkeys(names):
        try:
            yield name, plan_head(workspace, config, name, folds, catalog, coverage, log)
        except UnknownHeadError as error:
            where = f", and correct heads.run in {CONFIG_FILE}" if name in config.heads.run else ""
            yield name, HeadError(f"{error}{where}")
        except ShelfpriceError as error:
            yield name, error


def plan_head(
    workspace: Workspace,
    config: Config,
    name: str,
    folds: Folds,
    catalog: str,
    coverage: "_Coverages",
    log: Log,
) -> HeadPlan:
    """What a head would be trained on, and whether that was done; reads no vector, imports no library.

    Raises:
        HeadError: the head or one of its parameters is unknown.
        MissingVectorsError: rows of the catalogue were not embedded; names the command.
    """
    params, wanted, use_tuning = run_params(name, config.heads.params.get(name, {}))
    head = make_head(name, params, config.seed)
    names = (
        wanted if wanted is not None else head.vectors if head.vectors is not None else config.heads.vectors
    )
    required = head.vectors is not None
    sets = tuple(found for found in (coverage.of(n) for n in names) if found and (found.n_valid or required))
    for found in sets:
        check_folds(current_spec(workspace, found.vector_set.encoder), folds.hash)
    inputs = {
        "head": name,
        "params": head.recorded_params(),
        "vectors": [[str(found.vector_set), found.fingerprint, found.digest] for found in sets],
        "texts": list(head.texts),
        "catalog_digest": catalog,
        "folds_hash": folds.hash,
        "seed": config.seed,
        "code_version": head.code_version,
    }
    if coverage.has_columns:
        inputs["columns"] = COLUMNS_VERSION
    if coverage.has_weights:
        inputs["weights"] = WEIGHTS_VERSION
    cleaning = cleaning_digest(workspace, folds.hash, config.clean)
    if cleaning is not None:
        inputs["cleaning"] = cleaning
    given = frozenset(current_params(type(head), params, warn=False))
    tuning = _usable_tuning(workspace, name, inputs, given, log) if use_tuning else None
    if tuning is not None:
        inputs["tuned"] = tuning.recorded
    folder = predictions_folder(name, inputs)
    exists = predictions_exist(workspace, name, inputs)
    floor = config.submission.price_floor
    return HeadPlan(
        name, head, sets, inputs, folder, exists, given, tuning, config.heads.learning_curve, floor
    )


def _usable_tuning(
    workspace: Workspace, name: str, inputs: dict[str, Any], given: frozenset[str], log: Log
) -> Tuning | None:
    """What tuning found for exactly these rows and folds, less what the configuration sets."""
    tuning = read_tuning(workspace, name)
    if tuning is None:
        if _was_tuned(workspace, name):
            log(
                f"note: parameters of {name} were searched by tuning, and {tuning_path(name)} is missing: the "
                f"head's own parameters are used; 'shelfprice heads tune --head {name}' searches again"
            )
        return None
    if tuning.bound_to != tuning_basis(inputs):
        log(
            f"{name}: parameters found by tuning belong to another catalogue, vectors or folds and are not used: "
            f"run 'shelfprice heads tune --head {name}' again"
        )
        return None
    return tuning.without(given)


def _was_tuned(workspace: Workspace, name: str) -> bool:
    """Whether a head's current predictions have parameters found by tuning; without any, whether there are trials."""
    record = standing_file(name)
    if not workspace.is_sound(record):
        return has_trials(workspace, name)
    found = f"{workspace.read_json(record)['folder']}/head.json"
    return workspace.is_sound(found) and "tuned" in workspace.read_json(found)["inputs"]


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
    started = time.perf_counter()
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
    )


def _fitted_files(name: str, models: Sequence[Head]) -> dict[str, bytes]:
    """The fitted head, for `ensemble pack`, which says so where it can't be written."""
    from heads.fitted import write_fitted

    try:
        return {f"{FITTED}/{file}": content for file, content in write_fitted(name, models).items()}
    except HeadError:
        return {}


class _Coverages:
    """What the cache holds of each vector set, looked up once."""

    def __init__(self, workspace: Workspace, log: Log) -> None:
        self._workspace, self._log = workspace, log
        self._known: dict[str, InputCoverage | None] = {}

    @property
    def has_columns(self) -> bool:
        """Whether the catalogue has further columns of the user's file."""
        return any(extra_columns(self._schema))

    @property
    def has_weights(self) -> bool:
        """Whether its rows have weights."""
        return WEIGHT.name in self._schema.names

    @cached_property
    def _schema(self) -> pa.Schema:
        with self._workspace.parquet(split_path("train")) as file:
            return file.schema_arrow

    def of(self, name: str) -> InputCoverage | None:
        """None where no training row can have such a vector: the catalogue has no images."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def _find(self, name: str) -> InputCoverage | None:
        try:
            found = input_coverage(self._workspace, resolve_set(self._workspace, name))
        except MissingVectorsError:
            images = read_split(self._workspace, "train", ["image"])["image"]
            if "@" in name or images.null_count < len(images):
                raise
            self._log(f"{name} is left out: no training row has an image")
            return None
        if found.n_valid == 0:
            self._log(f"{name} is left out: none of {found.n_rows} training rows has a vector")
        return found


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
    digest, coverage = catalog_digest(workspace), _Coverages(workspace, log)
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
