"""scikit-learn's own checks of every head that takes a plain matrix; `sparse` and `sparse-mlp` need texts."""

import warnings

import pytest
from sklearn.utils.estimator_checks import check_estimator

from heads.registry import make_head
from tests.fake_rows import FITTABLE, with_one_core

# Small enough for scikit-learn's few dozen rows, and able to fit them exactly, as one check requires.
NETWORK = {
    "seeds": 1,
    "epochs": 25,
    "batch_rows": 16,
    "learning_rate": 0.02,
    "dropout": 0.0,
    "precision": "fp32",
}
TREES = {"learning_rate": 0.3, "n_jobs": 1}
SMALL: dict[str, dict[str, object]] = {
    "boosted": {
        **TREES,
        "n_inner_folds": 2,
        "n_estimators": 50,
        "patience": 50,
        "min_data_in_leaf": 1,
        "components": 8,
    }
    | {"colsample_bytree": 1.0, "subsample": 1.0, "bags": 1},
    "catboost": {**TREES, "n_estimators": 60, "patience": 60, "colsample_bylevel": 1.0, "subsample": 1.0},
    "fusion": {**NETWORK, "batch_rows": 64, "projected": 8, "hidden": (16,)},
    "kernel-ridge": {"unit": False},
    "lightgbm": {**TREES, "n_estimators": 100, "patience": 100, "min_data_in_leaf": 1, "components": 8}
    | {"colsample_bytree": 1.0, "subsample": 1.0},
    "mlp-batchnorm": {**NETWORK, "hidden": (32,)},
    "mlp-layernorm": {**NETWORK, "hidden": (32,)},
    "reranked-neighbours": {**TREES, "n_inner_folds": 3, "n_estimators": 40, "min_data_in_leaf": 5},
    "stacked": {**TREES, "n_inner_folds": 2, "n_estimators": 20, "components": 4, "bags": 1},
    "tabm": {**NETWORK, "members": 4, "width": 16, "blocks": 1},
    "xgboost": {
        **TREES,
        "n_estimators": 100,
        "patience": 100,
        "colsample_bytree": 1.0,
        "subsample": 1.0,
        "min_child_weight": 0.1,
    },
    "xgboost-baseline": {**TREES, "n_estimators": 60, "brands": False},
}
ROUNDING = "float32: a prediction moves by 1e-7 with the rows beside it"
ROUNDED = {
    "fusion": ("subset", "sample_order"),
    "kernel-ridge": ("subset", "sample_order"),
    "mlp-batchnorm": ("subset", "sample_order"),
    "mlp-layernorm": ("subset", "sample_order"),
}


one_core = pytest.fixture(autouse=True)(with_one_core)


PLAIN = sorted(set(FITTABLE) - {"sparse", "sparse-mlp"})
# The unit is the base class's affair: of the networks, which take long, one stands for all.
ON_PRICES = sorted(set(PLAIN) - {"fusion", "mlp-batchnorm", "stacked", "tabm"})


@pytest.mark.parametrize(
    "name, target", [(name, "log_price") for name in PLAIN] + [(name, "price") for name in ON_PRICES]
)
def test_scikit_learn_takes_the_head_for_one_of_its_own(name, target):
    rounded = {f"check_methods_{kind}_invariance": ROUNDING for kind in ROUNDED.get(name, ())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = make_head(name, SMALL.get(name, {}) | {"target": target}, seed=0)
        check_estimator(head, expected_failed_checks=rounded)
