"""Decisions of `shelfprice catalog clean`, applied to the rows that a model is fitted on and to no others.

Every decision is worked out from the rows fitted on alone: a group's median, its first row, and whether its prices
contradict at all. So the rows of a held-out fold change nothing about the model that predicts them, and their own
prices stay as they are.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.cleaning import CONTRADICTION, Decided
from store.errors import HeadError


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

    @classmethod
    def of(cls, decided: list[Decided], sample_id: pa.Array) -> "Cleaning | None":
        """Decisions by position in `sample_id`, the training rows; None where there are none."""
        decisions = []
        for one in decided:
            position = pc.index_in(one.sample_id, value_set=sample_id)
            rows = pc.fill_null(position, -1).to_numpy().astype(np.int64)
            decisions.append(Decision(one.finding, one.policy, rows[rows >= 0], one.group[rows >= 0]))
        return cls(tuple(decisions)) if decisions else None

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
        size = np.bincount(group)
        acts = size > 1
        if one.finding == "price":
            low, high = np.full(len(size), np.inf), np.full(len(size), -np.inf)
            np.minimum.at(low, group, log_price[rows])
            np.maximum.at(high, group, log_price[rows])
            acts &= high - low >= np.log(CONTRADICTION)
        return rows[acts[group]], group[acts[group]]


def _members(rows: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """Rows of each group, in the order given."""
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order])) + 1
    return np.split(rows[order], ends) if len(rows) else []
