"""Facts of a workspace -> report.html."""

import os
from dataclasses import dataclass
from typing import Any

from ensemble.report.facts import make_facts
from ensemble.report.refit import Progress
from store.config import load_config
from store.workspace import Workspace

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Report:
    """The facts, and the page that shows them."""

    facts: dict[str, Any]
    file: str


def write_report(
    workspace: Workspace | str | os.PathLike[str],
    *,
    folder: str | None = None,
    seconds: float = 10.0,
    progress: Progress = lambda said: None,
) -> Report:
    """Write report.html: `shelfprice ensemble report` as a function.

    Args:
        workspace: a workspace, or the path or address of one.
        folder: of a blend other than the standing one; the page is written into it.
        seconds: for training heads again, for the learning curve and the worth of inputs; 0 trains nothing.
        progress: takes lines for people.

    Returns:
        The facts as plain data, and where the page is.

    Raises:
        WorkspaceError: nothing was blended yet.
        FoldMismatchError, RowMismatchError: the blend is older than folds, catalogue or predictions.
    """
    from ensemble.report.page import page_of
    from store.catalog.images.blobs import lost_images
    from store.catalog.images.open import quiet_pillow
    from store.catalog.show.page import thumbnail_of

    workspace = Workspace.of(workspace)
    facts = make_facts(workspace, load_config(workspace), folder=folder, seconds=seconds, progress=progress)
    progress("writing the page")
    with quiet_pillow():
        page = page_of(facts, lambda digest: thumbnail_of(workspace, digest))
    file = REPORT_FILE if folder is None else f"{folder}/{REPORT_FILE}"
    facts["images_gone"] = len(lost_images(workspace))
    workspace.publish_bytes(file, page.encode("utf-8", "replace"))
    return Report(facts, workspace.path(file))
