"""The result of a search for parameters, `tuning/<head>.json`, and when a run may use it."""

from dataclasses import dataclass
from typing import Any

from heads.base import Head
from heads.params import current_params, recorded_params
from heads.registry import head_class
from store.names import file_name
from store.workspace import Workspace

TUNING = "tuning"
TUNING_LOCK = f"{TUNING}/.lock"  # held by a search as long as it lasts
# Parts of a head's inputs that the found parameters belong to; with other folds the score would be biased.
BOUND_TO = ("vectors", "texts", "catalog_digest", "folds_hash", "cleaning")


@dataclass(frozen=True)
class Tuning:
    """Parameters for each fold, each found without the rows of that fold, and for the refit on all rows."""

    head: str
    bound_to: dict[str, Any]  # the parts `BOUND_TO` of the inputs it was found with
    folds: dict[int, dict[str, Any]]  # held-out fold -> parameters
    refit: dict[str, Any]  # for a fit on all training rows
    trials: int  # finished, over all folds
    inner_smape: dict[str, float]  # "default" and "found": mean over folds on their inner folds, percent

    @property
    def described(self) -> dict[str, Any]:
        """The part that decides predictions, as JSON."""
        return {"folds": {str(fold): found for fold, found in self.folds.items()}, "refit": self.refit}

    @property
    def recorded(self) -> dict[str, Any]:
        """The same by the names that records on disk know parameters by."""
        cls = head_class(self.head)
        folds = {str(fold): recorded_params(cls, found) for fold, found in self.folds.items()}
        return {"folds": folds, "refit": recorded_params(cls, self.refit)}

    def head_for_fold(self, head: Head, fold: int) -> Head:
        """An unfitted head with what was found for a held-out fold."""
        return head.clone().set_params(**self.folds.get(fold, {}))

    def without(self, names: frozenset[str]) -> "Tuning":
        """The same less parameters that the user has set."""

        def less(found: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in found.items() if name not in names}

        folds = {fold: less(found) for fold, found in self.folds.items()}
        return Tuning(self.head, self.bound_to, folds, less(self.refit), self.trials, self.inner_smape)


def tuning_path(head: str) -> str:
    return f"{TUNING}/{file_name(head, 'a head')}.json"


def publish_tuning(workspace: Workspace, tuning: Tuning) -> None:
    """Write what was found; replaces what an earlier search found."""
    workspace.publish_json(
        tuning_path(tuning.head),
        {
            "head": tuning.head,
            "bound_to": tuning.bound_to,
            **tuning.recorded,
            "trials": tuning.trials,
            "inner_smape": tuning.inner_smape,
        },
    )


def read_tuning(workspace: Workspace, head: str) -> Tuning | None:
    """What the last search for a head found; None: there was none."""
    if not workspace.exists(tuning_path(head)):
        return None
    record, cls = workspace.read_json(tuning_path(head)), head_class(head)
    folds = {int(fold): current_params(cls, found, warn=False) for fold, found in record["folds"].items()}
    refit = current_params(cls, record["refit"], warn=False)
    return Tuning(record["head"], record["bound_to"], folds, refit, record["trials"], record["inner_smape"])


def tuning_basis(inputs: dict[str, Any]) -> dict[str, Any]:
    """The parts of a head's inputs that found parameters belong to."""
    return {name: inputs[name] for name in BOUND_TO if name in inputs}
