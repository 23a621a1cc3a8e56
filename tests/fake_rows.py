"""Parameters and set-up that make fits on the rows of `heads.testing` quick."""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np

from heads.folds.crossfit import crossfit
from heads.registry import HEADS
from store.metric import smape_log

# Heads that can be fitted here: `tabicl` needs weights, which its own test makes, `catboost` its package.
FITTABLE = sorted(set(HEADS) - {"tabicl"} - (set() if find_spec("catboost") else {"catboost"}))


def with_one_core() -> Iterator[None]:
    """Fits this small are over before a second core has been woken. For an autouse fixture."""
    from threadpoolctl import threadpool_limits

    if find_spec("torch") is None:  # `make minimums`
        with threadpool_limits(1):
            yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


BOOSTED: dict[str, object] = {
    "bags": 1,
    "n_inner_folds": 2,
    "n_estimators": 60,
    "patience": 10,
    "learning_rate": 0.2,
    "num_leaves": 7,
    "colsample_bytree": 1.0,
    "n_jobs": 1,
}
# Parameters that make a head cheap; one that is not named here runs with its defaults.
QUICK: dict[str, dict[str, object]] = {
    "additive": {"tune_rows": 100},
    "boosted": BOOSTED,
    "catboost": {
        "n_estimators": 60,
        "learning_rate": 0.2,
        "max_depth": 3,
        "colsample_bylevel": 1.0,
        "n_jobs": 1,
    },
    "gaussian-process": {"tune_rows": 100},
    "lightgbm": {"n_estimators": 80, "learning_rate": 0.2, "num_leaves": 7, "colsample_bytree": 1.0},
    "fusion": {
        "projected": 32,
        "hidden": (32,),
        "seeds": 1,
        "batch_rows": 32,
        "dropout": 0.1,
        "learning_rate": 5e-3,
    },
    "mlp-batchnorm": {"hidden": (32, 16), "seeds": 1, "batch_rows": 64, "dropout": 0.0, "epochs": 20},
    "mlp-layernorm": {"hidden": (32, 16), "seeds": 1, "batch_rows": 64, "dropout": 0.0, "epochs": 20},
    "reranked-neighbours": {"n_estimators": 30, "n_jobs": 1},
    "sparse-mlp": {"hidden": (16, 8), "seeds": 1, "batch_rows": 32, "epochs": 15},
    "stacked": BOOSTED,
    "tabm": {"members": 4, "width": 16, "blocks": 1, "batch_rows": 64, "epochs": 20},
    "xgboost": {
        "n_estimators": 60,
        "learning_rate": 0.2,
        "max_depth": 3,
        "colsample_bytree": 1.0,
        "subsample": 1.0,
        "n_jobs": 1,
    },
    "xgboost-baseline": {
        "n_estimators": 40,
        "max_depth": 3,
        "learning_rate": 0.2,
        "brands": False,
        "n_jobs": 1,
    },
}


def finds_nothing_in_shuffled_prices(head, rows, log_price, fold):
    """A head that is cross-fitted without a leak is no better on shuffled prices than the median of the other folds."""
    shuffled = np.random.default_rng(3).permutation(log_price)
    guess = np.empty(len(fold))
    for held in np.unique(fold):
        guess[fold == held] = np.median(shuffled[fold != held])
    oof = crossfit(head, rows, shuffled, fold).oof
    assert smape_log(shuffled, oof) > 0.97 * smape_log(shuffled, guess)
    assert abs(np.corrcoef(oof, shuffled)[0, 1]) < 0.15
