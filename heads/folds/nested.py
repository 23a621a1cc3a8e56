"""Chooses one of several settings for every fold without using its rows: which models are needed, and the choice.

For held-out fold k a setting is scored on neighbouring folds j, each by a model fitted without k and
without j. So no row is scored by a model that was fitted on it, and nothing of fold k, price or feature,
enters the model that predicts fold k. For the refit on all rows the out-of-fold errors decide.
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
    folds: tuple[int, ...]  # those held out one after the other
    outer: dict[int, list[Split]]  # fold -> splits that predict it
    inner: dict[int, list[Split]]  # fold -> splits that choose its setting

    @property
    def cells(self) -> frozenset[int]:
        return frozenset(self.cell.tolist())

    @property
    def inner_splits(self) -> list[Split]:
        """Every inner split, each once: folds share some."""
        wanted = {split for splits in self.inner.values() for split in splits}
        return sorted(wanted, key=lambda split: (split[1], sorted(split[0])))

    @classmethod
    def of(cls, fold: np.ndarray, group: np.ndarray, n_neighbours: int) -> "NestedPlan":
        """Plan for folds of shape (n_rows,), scoring each fold's setting on so many neighbouring folds."""
        folds = np.unique(fold).tolist()
        cell = fold.astype(np.int64)
        halved = len(folds) == 2  # without either fold nothing is left, so each is halved by group
        if halved:
            for held in folds:
                here = fold == held
                cell[here] = 2 * cell[here] + inner_cells(group[here], 2)
        cells = frozenset(cell.tolist())
        outer, inner = {}, {}
        for at, held in enumerate(folds):
            mine = frozenset(cell[fold == held].tolist())
            outer[held] = [(cells - mine, scored) for scored in sorted(mine)]
            near = [folds[(at + step) % len(folds)] for step in (1, -1)][:n_neighbours]
            scored_cells = cells - mine if halved else frozenset(near)
            inner[held] = [(cells - mine - {s}, s) for s in sorted(scored_cells)]
        return cls(cell, tuple(folds), outer, inner)

    @classmethod
    def for_fit(cls, group: np.ndarray, k: int = 5) -> "NestedPlan":
        """Plan for one fit on all rows: folds inside, groups whole, score the settings; nothing is held out."""
        cell = inner_cells(group, k)
        cells = frozenset(cell.tolist())
        return cls(cell, (), {}, {0: [(cells - {c}, c) for c in sorted(cells)] if len(cells) > 1 else []})

    def inner_errors(
        self,
        log_price: np.ndarray,
        predicted: Mapping[Split, np.ndarray],
        weight: np.ndarray | None = None,
    ) -> dict[int, np.ndarray]:
        """Fold -> SMAPE of every setting on its inner splits, percent, shape (n_settings,).

        Args:
            log_price: shape (n_rows,).
            predicted: split -> log price of its scored cell's rows, shape (n_cell_rows, n_settings); a
                setting that could not be fitted is NaN, has an infinite error and is never chosen.
            weight: see `Rows`.
        """
        errors = {}
        for held, splits in self.inner.items():
            parts = []
            for split in splits:
                here = self.cell == split[1]
                counts = None if weight is None else weight[here]
                parts.append(_smape(log_price[here], predicted[split], counts))
            if parts:
                errors[held] = np.mean(parts, axis=0)
        return errors

    def collect(
        self, log_price: np.ndarray, predicted: Mapping[Split, np.ndarray], chosen: Mapping[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Out-of-fold log price with each fold's chosen setting, and the out-of-fold SMAPE of every setting.

        Args:
            predicted: of the outer splits, see `inner_errors`.
            chosen: fold -> setting.

        Returns:
            Shapes (n_rows,) and (n_settings,).
        """
        oof, errors = np.full(len(log_price), np.nan), []
        for held, splits in self.outer.items():
            for split in splits:
                here = self.cell == split[1]
                oof[here] = predicted[split][:, chosen[held]]
                errors.append(_smape(log_price[here], predicted[split]) * (here.sum() / len(log_price)))
        return oof, np.sum(errors, axis=0)


def inner_cells(group: np.ndarray, k: int) -> np.ndarray:
    """Cells 0..k-1 of about equal size with groups whole, whatever the row order; shape (n_rows,)."""
    unique, inverse = np.unique(group, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(unique))
    return (order % k)[inverse]


def _smape(log_price: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    errors: np.ndarray = np.average(smape_rows(log_price[:, None], predicted), axis=0, weights=weight)
    return np.where(np.isfinite(errors), errors, np.inf)
