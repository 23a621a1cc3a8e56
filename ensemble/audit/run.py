"""Runs every check, one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

from ensemble.audit.adversarial import check_drift, check_folds_unknown
from ensemble.audit.check import Check
from ensemble.audit.evidence import read_evidence
from ensemble.audit.order import check_ids_and_order
from ensemble.audit.shuffled import check_shuffled_target
from ensemble.audit.twins import check_twins
from store.progress import moving
from store.workspace import Workspace

MAX_ROWS = 20_000


def run_audit(
    workspace: Workspace, vectors: Sequence[str], seed: int = 42, max_rows: int = MAX_ROWS
) -> dict[str, Any]:
    """Check the rows, vectors and folds that the honest score stands on.

    Args:
        vectors: vector sets to look at; one that is missing is noted.
        max_rows: of each split; larger ones are drawn from. Twins are looked for among all rows.

    Returns:
        `checks`, `verdict` (the worst of them) and `notes`.

    Raises:
        CatalogError, FoldMismatchError, WorkspaceError: there is nothing to check, see `read_evidence`.
    """
    train, test, notes = read_evidence(workspace, vectors, max_rows, seed)
    steps: list[Callable[[], Check]] = [
        lambda: check_shuffled_target(train, seed),
        lambda: check_ids_and_order(train, seed),
        lambda: check_folds_unknown(train, seed),
        lambda: check_drift(train, test, seed),
        lambda: check_twins(workspace),
    ]
    checks = []
    with moving("audit") as line:
        for number, step in enumerate(steps, 1):
            line.say(f"audit: check {number} of {len(steps)}")
            checks.append(step())
    verdicts = {check.verdict for check in checks}
    worst = next((v for v in ("fail", "caution") if v in verdicts), "ok")
    return {"verdict": worst, "checks": [check.to_json() for check in checks], "notes": notes}
