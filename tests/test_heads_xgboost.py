import json

import numpy as np
import pyarrow as pa
import pytest

from heads.features.rows import FieldTable, Rows
from heads.folds.crossfit import crossfit
from heads.trees.xgboost import XGBoost
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.matrix import Matrix

QUICK = {"n_jobs": 1, "n_estimators": 150, "learning_rate": 0.2, "colsample_bytree": 1.0}


def stepwise(n_rows=600, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 6)).astype(np.float16)
    log_price = 3 + (X[:, 0] > 0) * 1.0 + (X[:, 1] > 0.5) * 0.7 + 0.05 * rng.normal(size=n_rows)
    valid = rng.random(n_rows) > 0.1
    rows = Rows(
        pa.array(np.arange(n_rows)),
        (Matrix("a", np.where(valid[:, None], X, 0), valid),),
        FieldTable((), np.empty((n_rows, 0))),
        {},
        np.arange(n_rows) // 2,
    )
    return rows, np.where(valid, log_price, 6.0)


@pytest.mark.parametrize(
    ("params", "error"),
    [({}, 12), ({"loss": "huber-log"}, 12), ({"loss": "mae-log"}, 12), ({"components": 6}, 30)],
)
def test_steps_in_the_price_are_found_and_missing_vectors_told_apart(params, error):
    rows, log_price = stepwise()
    result = crossfit(XGBoost(**QUICK, **params), rows, log_price, rows.group % 5, rows.subset(np.arange(7)))
    assert smape_log(log_price, result.oof) < error
    assert result.test is not None
    assert result.test.shape == (7,)
    assert all(fold["iterations"] < 150 for fold in result.learned)


def test_the_model_file_is_xgboosts_own_and_predicts_the_same():
    import xgboost

    rows, log_price = stepwise(200)
    head = XGBoost(**QUICK).fit(rows, log_price)
    booster = xgboost.Booster()
    booster.load_model(bytearray(head.files()["model.ubj"]))
    X = head.columns_.values(rows, np.arange(200))
    assert np.allclose(booster.predict(xgboost.DMatrix(X)), head.predict(rows))
    assert json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "gbtree"


def test_an_unknown_loss_is_refused_by_name():
    rows, log_price = stepwise(100)
    with pytest.raises(HeadError, match="one of smape, mae-log, huber-log, mse-log, got 'rmse'"):
        XGBoost(loss="rmse").fit(rows, log_price)
