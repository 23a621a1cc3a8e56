"""The procedure that makes a blend, and its score on rows that took no part in it.

A maker is given some parts of the rows. It fits every method on all of these parts but one and scores it
on that one; the best method is taken, unless the plain average is within one standard error of it; then
a calibration is kept if it helps in the same way. For the nested score the maker is given all folds but
one, and its blend is scored on the fold left out, so the score includes every choice that the maker makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.calibrate import KINDS, NONE, Calibration, fit_calibration
from ensemble.groups import gain_and_error
from ensemble.rivals import METHODS, Method, Mix, Rivals
from ensemble.simplex import TOLERANCE
from store.metric import smape_log, smape_rows

RULE = (
    "the plain average is taken where the best rival gains no more than one standard error over groups "
    "on inner folds, and the average is no worse than the best head"
)


@dataclass(frozen=True)
class Blend:
    """The result of a maker: a combination of heads into one price."""

    mix: Mix
    calibration: Calibration
    inner_smape: dict[str, float]  # method -> SMAPE on inner folds, before calibration
    gain: float  # of the best rival over the plain average on inner folds, percent points of SMAPE
    gain_error: float  # its standard error over groups

    def log_price(self, log_prices: np.ndarray) -> np.ndarray:
        """Shape (n_rows,), from (n_rows, n_heads)."""
        return self.calibration.apply(self.mix.log_price(log_prices))


@dataclass(frozen=True)
class Nested:
    """Every training row's blended price, made without the row's fold."""

    log_price: np.ndarray  # (n_rows,)
    blends: tuple[Blend, ...]  # one per fold

    def of_rows(self, fold: np.ndarray, log_prices: np.ndarray) -> "Nested":
        """The same blends' prices of other rows of the same folds, from shapes (n_rows,) and (n_rows, n_heads)."""
        log_price = np.empty(len(fold))
        for k, blend in zip(np.unique(fold), self.blends, strict=True):
            log_price[fold == k] = blend.log_price(log_prices[fold == k])
        return Nested(log_price, self.blends)


class Maker:
    """Makes blends of the same rows for any set of folds.

    Args:
        log_prices: out-of-fold predictions, shape (n_rows, n_heads).
        log_actual: shape (n_rows,).
        fold: shape (n_rows,).
        group: shape (n_rows,): rows of one group are one draw, not many.
        methods: rivals of the plain average.
        looks_back: folds follow one another in time: each is priced by a blend of earlier ones, the plain average
            where there are not two of them.
    """

    def __init__(
        self,
        log_prices: np.ndarray,
        log_actual: np.ndarray,
        fold: np.ndarray,
        group: np.ndarray,
        methods: Sequence[Method] = METHODS,
        *,
        looks_back: bool = False,
    ) -> None:
        self.log_prices, self.log_actual, self.group = log_prices, log_actual, group
        self.part, self.parts_of_fold = _parts(fold, group)
        self.fold_index = np.unique(fold, return_inverse=True)[1]
        self.methods, self.looks_back = tuple(methods), looks_back
        self.rivals = Rivals(log_prices, log_actual, self.part)

    def make(self, parts: Sequence[int]) -> Blend:
        """The blend for the rows of `parts`, at least two; it depends on no other row."""
        parts = tuple(sorted(parts))
        rows = np.flatnonzero(np.isin(self.part, parts))
        if self.rivals.n_heads == 1:
            mix = self.rivals.fit("average", parts)
            calibration = self._calibrated(self._inner("average", parts, rows), rows, mix)
            return Blend(mix, calibration, {}, 0.0, 0.0)
        inner = {m: self._inner(m, parts, rows) for m in (*self.methods, "average")}
        losses = {m: smape_rows(self.log_actual[rows], z) for m, z in inner.items()}
        inner_smape: dict[str, float] = {m: float(loss.mean()) for m, loss in losses.items()}
        floor = self.rivals.best_head_smape(parts)
        method = next(
            (
                m
                for m in sorted(self.methods, key=inner_smape.__getitem__)
                if self._fitted(m, parts, rows) <= floor + TOLERANCE
            ),
            self.methods[0],
        )
        gain, error = gain_and_error(losses["average"] - losses[method], self.group[rows])
        if gain <= error and self._fitted("average", parts, rows) <= floor + TOLERANCE:
            method = "average"
        mix = self.rivals.fit(method, parts)
        return Blend(mix, self._calibrated(inner[method], rows, mix), inner_smape, gain, error)

    def final(self) -> Blend:
        """The blend for every row."""
        return self.make([p for parts in self.parts_of_fold for p in parts])

    def nested(self) -> Nested:
        """Each fold's rows priced by a blend made on the other folds."""
        log_price = np.empty(len(self.part))
        blends = []
        for k in range(len(self.parts_of_fold)):
            allowed = range(k) if self.looks_back else (j for j in range(len(self.parts_of_fold)) if j != k)
            others = [p for j in allowed for p in self.parts_of_fold[j]]
            blends.append(self.make(others) if len(others) > 1 else self._average())
            held_out = self.fold_index == k
            log_price[held_out] = blends[-1].log_price(self.log_prices[held_out])
        return Nested(log_price, tuple(blends))

    def _average(self) -> Blend:
        """The plain average, which no row is needed for."""
        return Blend(self.rivals.fit("average", ()), NONE, {}, 0.0, 0.0)

    def _inner(self, method: Method, parts: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
        """Log prices of `rows`, each by a mix fitted on the other parts, shape (len(rows),)."""
        log_price = np.empty(len(rows))
        for p in parts:
            here = self.part[rows] == p
            mix = self.rivals.fit(method, [q for q in parts if q != p])
            log_price[here] = mix.log_price(self.log_prices[rows[here]])
        return log_price

    def _fitted(self, method: Method, parts: tuple[int, ...], rows: np.ndarray) -> float:
        mix = self.rivals.fit(method, parts)
        return smape_log(self.log_actual[rows], mix.log_price(self.log_prices[rows]))

    def _calibrated(self, log_price: np.ndarray, rows: np.ndarray, mix: Mix) -> Calibration:
        """The calibration that helps on inner folds by more than its error, or none."""
        actual, part, group = self.log_actual[rows], self.part[rows], self.group[rows]
        before = smape_rows(actual, log_price)
        best, best_gain = NONE, 0.0
        plain = mix.log_price(self.log_prices[rows])
        for kind in KINDS:
            after = np.empty(len(rows))
            for p in np.unique(part):
                here = part == p
                after[here] = fit_calibration(kind, log_price[~here], actual[~here]).apply(log_price[here])
            gain, error = gain_and_error(before - smape_rows(actual, after), group)
            if gain <= max(error, best_gain):
                continue
            fitted = fit_calibration(kind, log_price, actual)
            if smape_log(actual, fitted.apply(plain)) <= smape_log(actual, plain):
                best, best_gain = fitted, gain
        return best


def _parts(fold: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Part of each row, shape (n_rows,), and the parts of each fold.

    A part is a fold. Of two folds only one is left to make a blend on, so then each is cut in two halves,
    group by group, for the inner scores.
    """
    index = np.unique(fold, return_inverse=True)[1]
    n_folds = int(index.max()) + 1
    if n_folds > 2:
        return index, [[k] for k in range(n_folds)]
    half = np.zeros(len(fold), dtype=np.int64)
    for k in range(n_folds):
        ranks = np.unique(group[index == k], return_inverse=True)[1]
        half[index == k] = ranks % 2
    return 2 * index + half, [[2 * k, 2 * k + 1] for k in range(n_folds)]
