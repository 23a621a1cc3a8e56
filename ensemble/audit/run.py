"""Runs every check, as many at a time as there are cores."""

from collections.abc import Callable, Sequence
from typing import Any

from ensemble.audit.adversarial import check_drift, check_folds_unknown
from ensemble.audit.check import Check
from ensemble.audit.columns import check_columns
from ensemble.audit.evidence import read_evidence
from ensemble.audit.order import check_ids_and_order
from ensemble.audit.shuffled import check_shuffled_target
from ensemble.audit.signal import check_signal
from ensemble.audit.time import check_time
from ensemble.audit.twins import check_twins
from ensemble.audit.written import check_image_names, check_written_prices
from heads.folds.parallel import each_on_a_core
from store.errors import ConfigError
from store.progress import moving
from store.workspace import Workspace

MAX_ROWS = 20_000
CHECKS = (
    "shuffled target",
    "ids and order",
    "folds unknown",
    "drift",
    "twins",
    "signal",
    "columns",
    "written prices",
    "image names",
    "time",
)


def run_audit(
    workspace: Workspace,
    vectors: Sequence[str],
    seed: int = 42,
    max_rows: int = MAX_ROWS,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Check the rows, vectors and folds that the honest score stands on.

    Args:
        vectors: vector sets to look at; one that is missing is noted.
        max_rows: of each split; larger ones are drawn from. Twins are looked for among all rows.
        only: names of checks; none: all.

    Returns:
        `checks`, `verdict` (the worst of them) and `notes`.

    Raises:
        CatalogError, FoldMismatchError, WorkspaceError: there is nothing to check, see `read_evidence`.
        ConfigError: there is no check of that name.
    """
    if unknown := sorted(set(only) - set(CHECKS)):
        raise ConfigError(f"no check {unknown[0]!r}, one of {', '.join(CHECKS)}")
    with moving("audit: reading rows and vectors") as line:
        train, test, notes = read_evidence(workspace, vectors, max_rows, seed)
        steps: dict[str, Callable[[], Check]] = {
            "shuffled target": lambda: check_shuffled_target(train, seed),
            "ids and order": lambda: check_ids_and_order(train, seed),
            "folds unknown": lambda: check_folds_unknown(train, seed),
            "drift": lambda: check_drift(train, test, seed),
            "twins": lambda: check_twins(workspace),
            "signal": lambda: check_signal(workspace, train, vectors, seed),
            "columns": lambda: check_columns(workspace, seed, max_rows),
            "written prices": lambda: check_written_prices(workspace, seed, max_rows),
            "image names": lambda: check_image_names(workspace, seed, max_rows),
            "time": lambda: check_time(workspace, train, seed),
        }
        chosen = [name for name in steps if not only or name in only]

        def checked(name: str) -> Check:
            line.say(f"audit: {name}")
            return steps[name]()

        checks = each_on_a_core(checked, chosen)
    verdicts = {check.verdict for check in checks}
    worst = next((v for v in ("fail", "caution") if v in verdicts), "ok")
    return {"verdict": worst, "checks": [check.to_json() for check in checks], "notes": notes}
