"""What was decided about rows that are doubtful: read by whoever trains, applied to training rows alone.

`cleaning.parquet` is written by `shelfprice catalog clean`. A finding whose policy is `keep` changes nothing, so that
a workspace without decisions, and one in which all are `keep`, train alike.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.read import catalog_digest
from store.config import CONFIG_FILE, CleanConfig
from store.errors import CatalogError
from store.workspace import Workspace

CLEANING_FILE = "cleaning.parquet"
CONTRADICTION = 1.25  # highest over lowest price of one text from which on they contradict


@dataclass(frozen=True)
class Decided:
    """The training rows of one finding whose policy is not `keep`."""

    finding: str
    policy: str
    sample_id: pa.Array  # (n_rows,) training rows, sorted
    group: np.ndarray  # (n_rows,) int64; -1: the row alone


def cleaning_digest(workspace: Workspace, folds_hash: str, policies: CleanConfig) -> str | None:
    """Digest over every decision that can change a fit; None where none can.

    Args:
        policies: those of shelfprice.toml.

    Raises:
        CatalogError: the decisions were taken for another catalogue, other folds or other policies, or not yet.
    """
    reason = why_decide_again(workspace, folds_hash, policies)
    if reason is not None:
        raise CatalogError(
            f"decisions about doubtful rows no longer fit: {reason}. Run 'shelfprice catalog clean -w {workspace.root}' "
            "to take them again"
        )
    return decided_digest(workspace)


def decided_digest(workspace: Workspace) -> str | None:
    """As `cleaning_digest`, whether or not the decisions still fit."""
    if not workspace.exists(CLEANING_FILE):
        return None
    digest: str | None = workspace.read_metadata(CLEANING_FILE)["digest"]
    return digest


def why_decide_again(workspace: Workspace, folds_hash: str, policies: CleanConfig) -> str | None:
    """Why training can't go by the decisions on disk; None where it can, or needs none."""
    wanted = dataclasses.asdict(policies)
    acting = [f"{finding}={policy}" for finding, policy in wanted.items() if policy != "keep"]
    if not workspace.exists(CLEANING_FILE):
        return f"{', '.join(acting)} of {CONFIG_FILE} was never applied" if acting else None
    if not acting and decided_digest(workspace) is None:
        return None
    taken = workspace.read_metadata(CLEANING_FILE).get("policies", {})
    for finding, policy in wanted.items():
        if taken.get(finding) != policy:
            return f"{finding}={taken.get(finding)} became {finding}={policy} in {CONFIG_FILE}"
    return why_stale(workspace, folds_hash)


def why_stale(workspace: Workspace, folds_hash: str) -> str | None:
    """Why what was found must be looked for again; None where it need not be."""
    found = workspace.read_metadata(CLEANING_FILE)
    if found["catalog_digest"] != catalog_digest(workspace):
        return "the catalogue has changed"
    return None if found["folds_hash"] == folds_hash else "folds have changed"


def read_decided(workspace: Workspace) -> list[Decided]:
    """Decisions that can change a fit, in the order in which they are applied; none where nothing was decided."""
    if not workspace.exists(CLEANING_FILE):
        return []
    table = workspace.read_table(CLEANING_FILE).combine_chunks()
    table = table.filter(
        pc.and_(pc.not_equal(table["policy"], "keep"), pc.equal(table["split"], "train"))
    ).combine_chunks()
    decided = []
    for finding in pc.unique(table["finding"]).to_pylist():
        rows = table.filter(pc.equal(table["finding"], finding)).sort_by("sample_id").combine_chunks()
        group = pc.fill_null(rows["group"], -1).to_numpy()
        ids = rows["sample_id"].combine_chunks()
        decided.append(Decided(finding, rows["policy"][0].as_py(), ids, group))
    return decided
