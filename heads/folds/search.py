"""`shelfprice heads tune`: a search for parameters inside the folds, which a later call continues.

Each held-out fold has a study of its own: a trial fits on the other folds less one and is scored on that one,
so the parameters that predict a fold were found without a row of it, and out-of-fold scores stay honest.
One more study, over all folds, serves the refit on all training rows.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.base import Head
from heads.features.inputs import Inputs
from heads.folds.search_spaces import Space, space_of, suggest
from heads.folds.tuning import TUNING, TUNING_LOCK, Tuning, publish_tuning, tuning_basis
from store.contracts import parse_json
from store.errors import CorruptFileError, HeadError, WorkspaceError
from store.local import write_error
from store.metric import smape_log
from store.vectors.spec import digest
from store.workspace import Workspace

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

SCORED_FOLDS = 2  # inner folds that a trial is scored on; it may be given up after the first
REFIT = -1  # the study for the refit
STORAGE = f"{TUNING}/trials.journal"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """One head on its rows, and how long it may take."""

    head: Head
    inputs: Inputs
    space: Space
    deadline: float  # time.monotonic()
    log: Log
    scored_as: Callable[[np.ndarray], np.ndarray] = np.asarray

    def study_error(self, trial: "Trial", held: int) -> float:
        """SMAPE of a trial's parameters on the inner folds of a study, percent."""
        from optuna import TrialPruned

        head = self.head.clone().set_params(**suggest(trial, self.space))
        errors: list[float] = []
        for scored in inner_folds(self.inputs.fold, held):
            fold = self.inputs.fold
            fitted, here = np.flatnonzero((fold != held) & (fold != scored)), np.flatnonzero(fold == scored)
            target = self.inputs.log_price[fitted]
            if self.inputs.cleaning is not None:
                fitted, target = self.inputs.cleaning.training_part(fitted, self.inputs.log_price)
            model = head.clone().fit(self.inputs.train.subset(fitted), target)
            predicted = self.scored_as(model.predict(self.inputs.train.subset(here)))
            errors.append(smape_log(self.inputs.log_price[here], predicted))
            trial.report(float(np.mean(errors)), len(errors))
            if trial.should_prune():
                raise TrialPruned
        return float(np.mean(errors))


def inner_folds(fold: np.ndarray, held: int) -> list[int]:
    """The folds that score the parameters for a held-out fold: those after it, never itself."""
    folds = [int(f) for f in np.unique(fold)]
    at = folds.index(held) if held in folds else -1
    after = [folds[(at + step) % len(folds)] for step in range(1, len(folds))]
    return [f for f in after if f != held][:SCORED_FOLDS]


def search_parameters(
    workspace: Workspace,
    head: Head,
    name: str,
    given: frozenset[str],
    record: dict[str, Any],
    inputs: Inputs,
    minutes: float,
    log: Log,
    scored_as: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Tuning:
    """Search for so many minutes, beginning where the last call stopped, and store what is best so far.

    Args:
        head: unfitted, with the parameters that the user has set.
        name: as the user calls it.
        given: parameters that the user has set, which are not searched.
        record: all that its predictions depend on, see `Predictions.inputs`.
        scored_as: log prices as they are scored, such as raised to the lowest price.

    Raises:
        HeadError: there is nothing to tune, fewer than three folds, folds in order of time, or every trial failed.
        WorkspaceError: the workspace is on an object store, where trials can't be kept.
    """
    import optuna

    space = {key: spread for key, spread in space_of(name).items() if key not in given}
    folds = [int(fold) for fold in np.unique(inputs.fold)]
    if len(folds) < 3:
        raise HeadError(f"tuning {name} inside the folds needs at least 3 of them, got {len(folds)}")
    if inputs.looks_back:
        raise HeadError(
            f"folds are in order of time, and tuning {name} for a fold would score parameters on later rows: set parameters "
            "in shelfprice.toml, or ingest without --time-column"
        )
    if not workspace.is_local:
        raise WorkspaceError(
            f"trials are kept in a local file and {workspace.root} is not local: tune in a local one"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = Search(head, inputs, space, time.monotonic() + 60 * minutes, log, scored_as)
    with workspace.lock(TUNING_LOCK):
        storage = _trials(workspace)
        bound = tuning_basis(record)
        key = digest({"head": name, "space": repr(space), "fixed": record["params"], **bound})
        studies = {}
        for held in [*folds, *([REFIT] if head.test_mode == "refit" else [])]:
            studies[held] = optuna.create_study(
                storage=storage,
                study_name=f"{name}-{key}-{held}",
                load_if_exists=True,
                sampler=optuna.samplers.TPESampler(seed=held + 1, multivariate=True),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            )
        _search(search, studies, {key: head.get_params()[key] for key in space})
        tuning = _found(workspace.path(STORAGE), name, bound, studies, space)
        publish_tuning(workspace, tuning)
    return tuning


def _trials(workspace: Workspace) -> "JournalStorage":
    """The trials of all searches so far.

    Raises:
        WorkspaceError: the file may not be read or written.
        CorruptFileError: it is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = workspace.path(STORAGE)

    class Trials(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            try:
                super().append_logs(logs)
            except OSError as error:  # full or read-only by now
                raise write_error(path, error) from error

    if os.path.islink(path):
        raise WorkspaceError(
            f"{path} is a link, and trials are added to no file elsewhere: put the file in its place, "
            "or delete it, and the search begins anew"
        )
    try:
        lines = workspace.read_bytes(STORAGE).splitlines(keepends=True) if workspace.exists(STORAGE) else []
        if lines and not lines[-1].endswith(b"\n"):  # of a search that was killed while it wrote
            lines = lines[:-1]
            workspace.publish_bytes(STORAGE, b"".join(lines))
        for line in lines:
            parse_json(line)
        return JournalStorage(Trials(path))
    except WorkspaceError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
    except Exception as error:  # what it says of another content is not declared
        raise CorruptFileError(
            f"{path} is damaged ({error!r:.200}): delete it, and the search begins anew"
        ) from error


def _search(search: Search, studies: dict[int, "Study"], default: dict[str, Any]) -> None:
    """Rounds of one trial a study until the time is up; the first trial of a study is the default."""
    for study in studies.values():
        if not study.trials:
            study.enqueue_trial(default)
    while True:
        for held, study in studies.items():
            study.optimize(partial(search.study_error, held=held), n_trials=1, catch=(HeadError,))
            done = _finished(study)
            outcome = f"SMAPE {done[-1].value:.3f}" if done[-1].state.name == "COMPLETE" else "given up"
            search.log(f"{_study_name(held)}: trial {len(done)}, {outcome}")
            if time.monotonic() > search.deadline and all(_finished(s) for s in studies.values()):
                return


def _found(path: str, name: str, bound: dict[str, Any], studies: dict[int, "Study"], space: Space) -> Tuning:
    best: dict[int, dict[str, Any]] = {}
    default, found, trials = [], [], 0
    for held, study in studies.items():
        done = [trial for trial in _finished(study) if trial.state.name == "COMPLETE"]
        if not done:
            raise HeadError(
                f"tuning {name}: every trial of {_study_name(held)} failed; run it alone to see why"
            )
        chosen = min(done, key=lambda trial: trial.value if trial.value is not None else np.inf)
        if lost := sorted(set(space) - set(chosen.params)):
            raise CorruptFileError(
                f"{path} is damaged (trial {chosen.number} of {study.study_name} has no {lost[0]!r}): delete it, and the "
                "search begins anew"
            )
        best[held] = {key: chosen.params[key] for key in space}
        found.append(float(chosen.value or 0.0))
        first = study.trials[0].value
        default.append(float(first) if first is not None else float("nan"))
        trials += len(_finished(study))
    refit = best.pop(REFIT, {})
    inner = {"found": float(np.mean(found))}
    if np.isfinite(default).all():
        inner["default"] = float(np.mean(default))
    return Tuning(name, bound, best, refit, trials, inner)


def has_trials(workspace: Workspace, name: str) -> bool:
    """Whether a search of a head was begun in this workspace."""
    if not workspace.exists(STORAGE):
        return False
    study = rf'"{re.escape(name)}-[0-9a-f]+-\d+"'
    return re.search(study.encode(), workspace.read_bytes(STORAGE)) is not None


def _study_name(held: int) -> str:
    return "all folds" if held == REFIT else f"without fold {held}"


def _finished(study: "Study") -> list["FrozenTrial"]:
    """Trials that ran to an end, by number."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
