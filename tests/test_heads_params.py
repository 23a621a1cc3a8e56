"""Parameters of heads: ranges that are held, names of version 0.1.0 that are taken once more."""

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heads.base import Head
from heads.params import current_params, declared_of, defaults_of, recorded_params
from heads.registry import HEADS, head_class, make_head
from heads.testing import make_rows, rows_for
from store.errors import HeadError
from tests.fake_rows import FITTABLE, with_one_core

one_core = pytest.fixture(autouse=True)(with_one_core)

CHEAP: dict[str, dict[str, Any]] = {
    "boosted": {"n_estimators": 3, "num_leaves": 3, "components": 2, "bags": 1, "n_jobs": 1},
    "catboost": {"n_estimators": 3, "max_depth": 2, "n_jobs": 1},
    "fusion": {"projected": 8, "hidden": (4,), "seeds": 1, "epochs": 1, "batch_rows": 16},
    "gaussian-process": {"tune_rows": 16},
    "kernel-ridge": {"tune_rows": 16},
    "lightgbm": {"n_estimators": 3, "num_leaves": 3, "components": 2, "n_jobs": 1},
    "mlp-batchnorm": {"hidden": (4,), "seeds": 1, "epochs": 1, "batch_rows": 16},
    "mlp-layernorm": {"hidden": (4,), "seeds": 1, "epochs": 1, "batch_rows": 16},
    "reranked-neighbours": {"n_estimators": 3, "num_leaves": 3, "n_jobs": 1},
    "sparse-mlp": {"hidden": (4,), "seeds": 1, "epochs": 1, "batch_rows": 16},
    "stacked": {
        "n_estimators": 3,
        "num_leaves": 3,
        "components": 2,
        "bags": 1,
        "n_jobs": 1,
        "kernels": False,
    },
    "tabm": {"members": 2, "width": 4, "blocks": 1, "epochs": 1, "batch_rows": 16, "components": 2},
    "xgboost": {"n_estimators": 3, "max_depth": 2, "n_jobs": 1},
    "xgboost-baseline": {"n_estimators": 3, "max_depth": 2, "n_jobs": 1, "brands": False},
}
# What is within its range and would take minutes, or more memory than a test may; `None`: any value is cheap.
MOST = {
    "epochs": 2,
    "n_estimators": 20,
    "bags": 3,
    "seeds": 2,
    "members": 8,
    "blocks": 3,
    "projected": 64,
    "width": 64.0,
}
MOST |= {"hidden": 64, "n_alphas": 30, "characters": 8, "n_jobs": 2, "C": 100.0, "max_depth": 30}
ODD = (
    *(
        math.nan,
        math.inf,
        -math.inf,
        -1,
        0,
        1,
        2,
        3,
        7,
        -1.0,
        0.0,
        0.5,
        1.0,
        1.5,
        1e-300,
        1e300,
        10**12,
        2**63,
    ),
    *(
        10**400,
        "",
        "x",
        "nan",
        "0.1",
        None,
        True,
        False,
        b"x",
        (),
        (0,),
        (-1,),
        (3, 0.5),
        ("a",),
        (3,),
        [3],
        {},
        1j,
    ),
    *(
        np.float32("nan"),
        np.int64(3),
        np.float64(0.25),
        np.bool_(True),
        np.array([1, 2]),
        "smape",
        "auto",
        "column",
    ),
)
EVERY = [
    (name, param)
    for name in FITTABLE
    for param in defaults_of(head_class(name))
    if name != "stacked" or param == "kernels"  # its others are those of boosted
]


def fitted_or_refused(head: Head) -> None:
    rows, log_price = make_rows(40)
    rows = rows_for(type(head), rows)
    try:
        head.fit(rows, log_price)
    except HeadError:
        return
    assert head.predict(rows).shape == (40,)


def is_cheap(param: str, value: Any) -> bool:
    if param == "brands":
        return value is not True  # spaCy is not for every machine
    most, numbers = MOST.get(param), value if isinstance(value, (tuple, list)) else (value,)
    return most is None or all(not isinstance(n, (int, float, np.number)) or not n > most for n in numbers)


@pytest.mark.parametrize("name, param", EVERY)
def test_any_odd_value_of_any_parameter_is_refused_or_fitted_and_ends_in_no_other_error(name, param):
    for value in ODD:
        if is_cheap(param, value):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                head = head_class(name)(**{**CHEAP.get(name, {}), param: value})
                fitted_or_refused(head)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(EVERY),
    st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.lists(st.integers(-3, 9), max_size=3)),
)
def test_any_value_at_all_of_any_parameter_is_refused_or_fitted(which, value):
    name, param = which
    if is_cheap(param, value):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted_or_refused(head_class(name)(**{**CHEAP.get(name, {}), param: value}))


@pytest.mark.parametrize("name, param", EVERY)
def test_every_parameter_declares_what_it_may_be_and_holds_its_default(name, param):
    cls = head_class(name)
    default, declared = defaults_of(cls)[param], declared_of(cls, param)
    if not isinstance(default, bool):
        bounded = declared.low is not None or declared.above is not None
        assert declared.one_of or (bounded and (declared.high is not None or declared.below is not None))
    cls(**{param: default}).check()


@pytest.mark.parametrize(
    "name, params, message",
    [
        (
            "lightgbm",
            {"learning_rate": -1.0},
            r"lightgbm: parameter learning_rate must be a number from 1e-09 to 10, got -1\.0: change it in "
            r'\[heads\.params\."lightgbm"\] of shelfprice\.toml',
        ),
        ("svr:plain", {"C": math.nan}, "svr:plain: parameter C must be a number from 1e-06 to 1e"),
        (
            "fusion",
            {"projected": 12},
            "projected must be a whole number from 8 to 8,192, a multiple of 8, got 12",
        ),
        (
            "mlp-batchnorm",
            {"hidden": [8, 0]},
            r"hidden must be a list of whole numbers from 1 to .*got \(8, 0\)",
        ),
        ("sparse-mlp", {"hidden": []}, "hidden must be a list .*1 item or more"),
        ("xgboost", {"loss": "rmse"}, "loss must be one of smape, mae-log, huber-log, mse-log, got 'rmse'"),
        ("ridge", {"alpha_min": 2.0}, "alpha_min must be at most alpha_max, got 2 and 1"),
        ("sparse", {"characters": 1}, "characters must be 0 or at least 2, got 1"),
        ("sparse", {"characters": 0, "words": 0}, "words and characters are both 0"),
        ("tabm", {"dropout": 1}, "dropout must be a number of at least 0, below 1, got 1"),
        ("lightgbm", {"n_jobs": True}, "n_jobs must be a whole number from 0 to 4,096, got True"),
    ],
)
def test_a_bad_value_is_refused_with_head_parameter_value_and_range(name, params, message):
    with pytest.raises(HeadError, match=message):
        make_head(name, params, 0)


def test_a_head_made_by_hand_is_checked_when_it_is_fitted():
    rows, log_price = make_rows(20)
    head = head_class("ridge")(alpha_max=-1.0)
    with pytest.raises(
        HeadError, match=r"ridge: parameter alpha_max must be a number above 0, at most 1e\+12"
    ):
        head.fit(rows, log_price)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_old_names_and_values_are_taken_with_a_warning_and_recorded_as_before(name):
    cls = head_class(name)
    now = cls().get_params()
    old = recorded_params(cls, now)
    renamed = {declared.was: new for new in now if (declared := declared_of(cls, new)).was}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        head = make_head(
            name, {k: v for k, v in old.items() if k != "random_state"}, now.get("random_state", 0)
        )
    assert head.get_params() == now
    assert head.recorded_params() == old
    assert {str(one.message).split(" is now ")[0].partition(": ")[2] for one in told} == set(renamed)
    assert all(one.category is FutureWarning for one in told)


def test_old_values_are_taken_with_a_warning():
    with pytest.warns(FutureWarning, match="precision = 'bfloat16' is now precision = 'bf16'"):
        head = make_head("tabm", {"precision": "bfloat16"}, 0)
    assert head.precision == "bf16"
    assert head.recorded_params()["precision"] == "bfloat16"


def test_a_parameter_under_both_of_its_names_is_refused():
    with pytest.raises(HeadError, match="xgboost: subsample is given twice, also by its old name"):
        current_params(head_class("xgboost"), {"subsample": 0.5, "rows": 0.5}, warn=False)


def test_a_subclass_that_changes_a_default_alone_keeps_the_range():
    assert head_class("sparse-mlp")().learning_rate == 3e-3
    with pytest.raises(HeadError, match="learning_rate must be a number from 1e-09 to 10, got 0"):
        make_head("sparse-mlp", {"learning_rate": 0}, 0)


def test_no_two_parameters_of_a_head_have_one_old_name():
    for name in HEADS:
        old = list(recorded_params(head_class(name), defaults_of(head_class(name))))
        fields = {field.name for field in dataclasses.fields(head_class(name))}
        kept = {name_ for name_ in fields if declared_of(head_class(name), name_).recorded}
        assert "target" not in kept
        assert len(old) == len(set(old)) == len(kept)
