"""`check_head` on every registered head, and on heads with a fault that it must find."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from heads.base import Head
from heads.registry import make_head
from heads.testing import CHECKS, CheckedHead, check_head
from tests.fake_rows import FITTABLE, QUICK, with_one_core

one_core = pytest.fixture(scope="module", autouse=True)(with_one_core)


@functools.cache
def checked(name):
    return CheckedHead(make_head(name, QUICK.get(name, {}), seed=1))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FITTABLE)
def test_a_head_passes_the_check_that(name, check):
    check(checked(name))


# ---- the checks find the faults that they are for------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Line(Head):
    """Least squares on the first vector set and the size."""

    name = "line"
    summary = "a straight line"

    def _fit(self, rows, log_price):
        self.mean_ = log_price.mean()
        self.slope_ = np.linalg.lstsq(self._columns(rows), log_price - self.mean_, rcond=1e-3)[0]

    def _predict(self, rows):
        return self._columns(rows) @ self.slope_ + self.mean_

    def _columns(self, rows):
        return np.column_stack([rows.matrices[0].X, np.nan_to_num(rows.fields.X[:, 0] - 4)]).astype(float)


class Leaking(Line):
    """Remembers every price that it ever met, by row."""

    seen = {}  # noqa: RUF012 - the leak

    def _fit(self, rows, log_price):
        super()._fit(rows, log_price)
        Leaking.seen |= dict(zip(rows.sample_id.to_pylist(), log_price.tolist()))

    def _predict(self, rows):
        return np.array([self.seen.get(id, 0.0) for id in rows.sample_id.to_pylist()])


class Together(Line):
    def _predict(self, rows):
        predicted = super()._predict(rows)
        return predicted - predicted.mean()


class Drawing(Line):
    def _predict(self, rows):
        return super()._predict(rows) + np.random.default_rng().normal(0, 0.01, len(rows))


class Blind(Line):
    def _predict(self, rows):
        return np.full(len(rows), self.mean_)


class Changing(Line):
    def _fit(self, rows, log_price):
        super()._fit(rows, log_price)
        rows.fields.X[:] = 0


class Pickling(Line):
    def files(self):
        return {"model.pkl": b"x"}


class Undecorated(Line):
    depth: int = 3


class Weightless(Line):
    takes_weights = True


@dataclass(kw_only=True)
class Compared(Line):
    name = "line"


def test_a_head_without_fault_passes_every_check():
    check_head(Line())


@pytest.mark.parametrize(
    "head, message",
    [
        (
            Leaking,
            "'line' fails the check that prices of a fold do not enter its own predictions: other prices",
        ),
        (Together, "do not enter predictions of its other rows: they move by"),
        (Drawing, r"by up to 0\.0\d+ in log price, 1e-05 are let pass for rounding"),
        (Blind, "better than by their median: SMAPE"),
        (Changing, "nothing that is given changes: "),
        (Pickling, r"model\.pkl: no pickle is ever loaded"),
        (
            Weightless,
            r"predictions are lower by 0\.00 than without weights, must be 0\.2 or more: _fit has to",
        ),
        (Undecorated, "parameter depth is no field: decorate the class"),
        (Compared, "must be hashable: decorate the class with @dataclass"),
    ],
)
def test_a_fault_is_found_and_named(head, message):
    with pytest.raises(AssertionError, match=message):
        check_head(head())
