"""Choosing one of several settings for every fold without a look at it: which models are needed, and the choice.

For held-out fold k a setting is scored on neighbouring folds j, each by a model fitted without k and
without j. So no row is scored by a model that met it, and nothing of fold k, price or feature, enters
what predicts fold k. For the refit on all rows the out-of-fold errors decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from store.metric import smape_rows

Split = tuple[frozenset[int], int]  # (cells fitted on, cell scored)


@dataclass(frozen=True)
class NestedPlan:
    """Rows fall into cells (a fold, or half a fold); a split fits on some cells and scores one."""

    cell: np.ndarray  # (n_rows,)
    folds: tuple[int, ...]
    outer: dict[int, list[Split]]  # fold -> splits that predict it
    inner: dict[int, list[Split]]  # fold -> splits that choose its setting

    @property
    def cells(self) -> frozenset[int]:
        return frozenset(self.cell.tolist())

    @property
    def splits(self) -> list[Split]:
        """Every split that is needed, each once."""
        wanted = {s for splits in (*self.outer.values(), *self.inner.values()) for s in splits}
        return sorted(wanted, key=lambda split: (split[1], sorted(split[0])))

    @classmethod
    def of(cls, fold: np.ndarray, group: np.ndarray, n_neighbours: int) -> "NestedPlan":
        """Plan for folds of shape (n_rows,), scoring each fold's setting on so many neighbouring folds."""
        folds = np.unique(fold).tolist()
        cell = fold.astype(np.int64)
        halved = len(folds) == 2  # without either fold nothing is left, so each is halved by group
        if halved:
            cell = 2 * cell + inner_cells(group, 2)
        cells = frozenset(cell.tolist())
        outer, inner = {}, {}
        for at, held in enumerate(folds):
            mine = frozenset(cell[fold == held].tolist())
            outer[held] = [(cells - mine, scored) for scored in sorted(mine)]
            near = [folds[(at + step) % len(folds)] for step in (1, -1)][:n_neighbours]
            scored_cells = cells - mine if halved else frozenset(near)
            inner[held] = [(cells - mine - {s}, s) for s in sorted(scored_cells) if cells - mine - {s}]
        return cls(cell, tuple(folds), outer, inner)

    @classmethod
    def for_fit(cls, group: np.ndarray, k: int = 5) -> "NestedPlan":
        """Plan for one fit on all rows: plain folds inside, groups whole, to choose the setting."""
        cell = inner_cells(group, k)
        cells = frozenset(cell.tolist())
        outer = {c: [(cells - {c}, c)] for c in sorted(cells)} if len(cells) > 1 else {}
        return cls(cell, tuple(sorted(cells)), outer, {})

    def choose(
        self, log_price: np.ndarray, predicted: Mapping[Split, np.ndarray]
    ) -> tuple[np.ndarray, list[int], np.ndarray]:
        """The setting of each fold.

        Args:
            log_price: shape (n_rows,).
            predicted: split -> log price of its scored cell's rows, shape (n_cell_rows, n_settings);
                a setting that could not be fitted is NaN and is never chosen.

        Returns:
            Out-of-fold log price, shape (n_rows,); the chosen setting of each fold, in the order of
            `folds`; the out-of-fold error of every setting, shape (n_settings,), SMAPE in percent.
        """
        n_settings = next(iter(predicted.values())).shape[1]
        oof, chosen = np.full(len(log_price), np.nan), []
        total = np.zeros(n_settings)
        for held in self.folds:
            errors = np.zeros(n_settings)
            for split in self.inner.get(held, []):
                errors += _smape_sums(log_price[self.cell == split[1]], predicted[split])
            best = int(np.argmin(errors)) if self.inner.get(held) else n_settings // 2
            chosen.append(best)
            for split in self.outer[held]:
                here = self.cell == split[1]
                oof[here] = predicted[split][:, best]
                total += _smape_sums(log_price[here], predicted[split])
        return oof, chosen, total / len(log_price)


def inner_cells(group: np.ndarray, k: int) -> np.ndarray:
    """Cells 0..k-1 of about equal size with groups whole, whatever the row order; shape (n_rows,)."""
    unique, inverse = np.unique(group, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(unique))
    return (order % k)[inverse]


def _smape_sums(log_price: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    errors: np.ndarray = smape_rows(log_price[:, None], predicted).sum(axis=0)
    return np.where(np.isfinite(errors), errors, np.inf)
