import json
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from heads.features.rows import CategoricalColumn, FieldTable
from heads.features.statistics import TargetStatistics
from heads.folds.crossfit import crossfit
from heads.registry import make_head
from heads.testing import folds_of, make_rows
from heads.trees.boosted import Boosted
from store.metric import smape_log
from tests.fake_rows import QUICK, with_one_core

one_core = pytest.fixture(scope="module", autouse=True)(with_one_core)


def sellers(n_rows=400, n_sellers=60, seed=0):
    """Rows of which each seller has a price level of its own."""
    rng = np.random.default_rng(seed)
    seller, level = rng.integers(0, n_sellers, n_rows), rng.normal(3, 1, n_sellers)
    levels = tuple(f"s{i}" for i in range(n_sellers))
    rows, _ = make_rows(n_rows)
    fields = FieldTable((), np.empty((n_rows, 0)), {"categorical:seller": CategoricalColumn(levels, seller)})
    return replace(rows, matrices=(), fields=fields), level[seller] + rng.normal(0, 0.1, n_rows)


def test_what_a_category_costs_is_told_without_the_rows_own_cell():
    rows, log_price = sellers()
    cell = rows.group % 4
    found = TargetStatistics().fit_transform(rows.fields, log_price, cell)
    other = TargetStatistics().fit_transform(rows.fields, np.where(cell == 1, 99.0, log_price), cell)
    np.testing.assert_array_equal(found[cell == 1], other[cell == 1])
    known = np.isfinite(found[:, 0])
    assert known.mean() > 0.95
    assert np.corrcoef(found[known, 0], log_price[known])[0, 1] > 0.8


def test_rows_fitted_on_get_the_counts_that_new_rows_get():
    rows, log_price = sellers(n_sellers=5)
    statistics = TargetStatistics()
    fitted = statistics.fit_transform(rows.fields, log_price, rows.group % 4)[:, 1]
    new = statistics.transform(rows.fields)[:, 1]
    np.testing.assert_allclose(np.expm1(fitted), np.expm1(new), rtol=0.15)
    assert abs((fitted - new).mean()) < 0.02  # a quarter of the rows is away: log(3 / 4) is -0.29


def test_an_unknown_level_and_a_missing_one_have_no_statistic():
    rows, log_price = sellers()
    statistics = TargetStatistics().fit(rows.fields, log_price)
    strange = CategoricalColumn(("new", "s0"), np.array([0, -1, 1], np.int32))
    found = statistics.transform(FieldTable((), np.empty((3, 0)), {"categorical:seller": strange}))
    assert np.isnan(found[:2]).all()
    assert np.isfinite(found[2]).all()


def test_prices_of_many_sellers_are_learned_and_the_model_files_are_lightgbms_own():
    rows, log_price = sellers()
    head = Boosted(**QUICK["boosted"])
    found = crossfit(head, rows, log_price, folds_of(rows), rows.subset(np.arange(5)))
    assert smape_log(log_price, found.oof) < 35  # 76 for who takes the median
    assert all(1 <= fold["iterations"] <= 60 for fold in found.learned)
    files = found.model.files()
    record = json.loads(files["boosted.json"])
    booster = lightgbm.Booster(model_str=files["model-0.txt"].decode())
    assert booster.num_trees() == record["iterations"]
    assert set(record["statistics"]["categorical:seller"]) <= set(
        rows.fields.categories["categorical:seller"].levels
    )


def test_the_baseline_reads_further_columns_too():
    rows, log_price = sellers(300, 6)
    rows = replace(rows, matrices=make_rows(300)[0].matrices[:1])
    head = make_head("xgboost-baseline", QUICK["xgboost-baseline"], seed=1)
    assert smape_log(log_price, crossfit(head, rows, log_price, folds_of(rows)).oof) < 20
