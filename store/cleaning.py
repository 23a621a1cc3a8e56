"""Decisions about doubtful rows, applied to the rows that a model is fitted on.

`cleaning.parquet` is written by `shelfprice catalog clean`. A finding whose policy is `keep` changes nothing, so that
a workspace without decisions, and one in which all are `keep`, train alike.

Every decision is computed only from the rows fitted on: a group's median, its first row, and whether its prices
contradict at all. So the rows of a held-out fold change nothing about the model that predicts them, and their own
prices stay as they are.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.read import catalog_digest
from store.config import CONFIG_FILE, CleanConfig
from store.errors import CatalogError, HeadError
from store.workspace import Workspace

CLEANING_FILE = "cleaning.parquet"
CONTRADICTION = 1.25  # highest over lowest price of one text from which on they contradict


@dataclass(frozen=True)
class Decision:
    """One finding whose policy is not `keep`, by position among the training rows."""

    finding: str
    policy: str
    rows: np.ndarray  # (n_found,) int64, in the order of the ids
    group: np.ndarray  # (n_found,) int64; -1: the row alone


@dataclass(frozen=True)
class Cleaning:
    """Every decision, in the order in which it is applied."""

    decisions: tuple[Decision, ...]

    def training_part(self, inside: np.ndarray, log_price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a model is fitted on when it may see the rows `inside`.

        Rows are dropped first; then groups of two rows and more take their median price (the first finding that
        names a row counts); then groups of policy `first` or `weight` shrink to their first row. `weight` lets a group
        count as one row: since heads take rows and no weights, that is its first row at the group's median price.

        Args:
            inside: positions of training rows, ascending.
            log_price: of all training rows, shape (n_train,).

        Returns:
            Positions, a subset of `inside`, and their log price, both of shape (n_kept,).

        Raises:
            HeadError: no row is left.
        """
        kept = np.zeros(len(log_price), bool)
        kept[inside] = True
        target, is_set = log_price.copy(), np.zeros(len(log_price), bool)
        chosen = [self._acting(one, kept, log_price) for one in self.decisions]
        for one, (rows, _) in zip(self.decisions, chosen, strict=True):
            if one.policy == "drop":
                kept[rows] = False
        for one in self.decisions:
            if one.policy in ("median", "weight"):
                rows, group = self._acting(one, kept, log_price)
                for members in _members(rows, group):
                    fresh = members[~is_set[members]]
                    target[fresh] = np.median(log_price[members])
                    is_set[fresh] = True
        for one in self.decisions:
            if one.policy in ("first", "weight"):
                rows, group = self._acting(one, kept, log_price)
                kept[rows] = False
                kept[[members[0] for members in _members(rows, group)]] = True
        positions = np.flatnonzero(kept)
        if len(positions) == 0:
            policies = ", ".join(f"{one.finding}={one.policy}" for one in self.decisions)
            raise HeadError(
                f"cleaning leaves none of {len(inside)} rows to fit on ({policies}): run "
                "'shelfprice catalog clean --policy FINDING=keep' for one of them"
            )
        return positions, target[positions]

    def _acting(
        self, one: Decision, kept: np.ndarray, log_price: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a finding that are fitted on, and their groups; a group of one row is none."""
        here = kept[one.rows]
        rows, group = one.rows[here], one.group[here]
        if len(rows) == 0 or (group < 0).all():
            return rows, group
        acts = repeats(group)
        if one.finding == "price":
            low, high = np.full(group.max() + 1, np.inf), np.full(group.max() + 1, -np.inf)
            np.minimum.at(low, group, log_price[rows])
            np.maximum.at(high, group, log_price[rows])
            acts &= (high - low >= np.log(CONTRADICTION))[group]
        return rows[acts], group[acts]


def _members(rows: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """Rows of each group, in the order given."""
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order])) + 1
    return np.split(rows[order], ends) if len(rows) else []


def repeats(group: np.ndarray) -> np.ndarray:
    """Which rows share their group, shape (n_rows,): a row alone repeats and contradicts nothing."""
    _, inverse, size = np.unique(group, return_inverse=True, return_counts=True)
    return np.asarray(size[inverse] > 1)


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


def read_cleaning(workspace: Workspace, sample_id: pa.Array) -> Cleaning | None:
    """Decisions that can change a fit on the training rows of these ids; None where nothing was decided."""
    if not workspace.exists(CLEANING_FILE):
        return None
    table = workspace.read_table(CLEANING_FILE).combine_chunks()
    table = table.filter(
        pc.and_(pc.not_equal(table["policy"], "keep"), pc.equal(table["split"], "train"))
    ).combine_chunks()
    decisions = []
    for finding in pc.unique(table["finding"]).to_pylist():
        found = table.filter(pc.equal(table["finding"], finding)).sort_by("sample_id").combine_chunks()
        decisions.append(decision_of(found, sample_id))
    return Cleaning(tuple(decisions)) if decisions else None


def decision_of(found: pa.Table, sample_id: pa.Array) -> Decision:
    """One finding's rows of cleaning.parquet by position in `sample_id`; rows of other ids are left out."""
    position = pc.index_in(found["sample_id"].combine_chunks(), value_set=sample_id)
    rows = pc.fill_null(position, -1).to_numpy().astype(np.int64)
    group = pc.fill_null(found["group"], -1).to_numpy()
    return Decision(
        found["finding"][0].as_py(), found["policy"][0].as_py(), rows[rows >= 0], group[rows >= 0]
    )
