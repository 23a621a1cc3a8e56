"""What each head would be trained on, and whether that was done: the one place that decides what is fresh."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.inputs import InputCoverage, input_coverage, resolve_set
from heads.folds.search import has_trials
from heads.folds.tuning import Tuning, read_tuning, tuning_basis, tuning_path
from heads.params import current_params, run_params
from heads.registry import make_head
from store.catalog.read import extra_columns, read_split, split_path
from store.cleaning import cleaning_digest
from store.config import CONFIG_FILE, Config, SubmissionConfig
from store.errors import HeadError, MissingVectorsError, ShelfpriceError, UnknownHeadError
from store.folds.assign import Folds
from store.predictions import predictions_exist, predictions_folder
from store.schema import WEIGHT
from store.standing import standing_file
from store.vectors.folded import check_folds, fold_specs
from store.vectors.sets import VectorSet, current_spec
from store.workspace import Workspace

COLUMNS_VERSION = 4  # raised when heads read the same further columns in another way
WEIGHTS_VERSION = 2  # raised when fits use the same weights of rows in another way

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
    # that predictions are raised to before they are scored
    price_floor: float = SubmissionConfig().price_floor

    def floored(self, log_price: np.ndarray) -> np.ndarray:
        """Log prices as they are scored, as they would be submitted."""
        return np.maximum(log_price, np.log(self.price_floor))

    def width(self, workspace: Workspace) -> int:
        """Columns of the vectors that it reads."""
        return n_columns(workspace, [found.vector_set for found in self.sets])


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
    coverage = Coverages(workspace, log)
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
    coverage: "Coverages",
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
        "code_version": head.predictions_version(),
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


class Coverages:
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


def n_columns(workspace: Workspace, sets: Iterable[VectorSet]) -> int:
    """Of all vector sets together, those of every fold's model where they are fine-tuned."""
    specs = [current_spec(workspace, one.encoder) for one in sets]
    return sum(spec.dim * max(1, len(fold_specs(spec))) for spec in specs)
