import dataclasses
import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from heads.features.design import Design
from heads.folds.crossfit import crossfit
from heads.linear import gram
from heads.linear.gram import Sums, sum_cells
from heads.linear.layout import ColumnLayout
from heads.linear.path import Scaling, predict_paths, solve_path
from heads.linear.ridge import Ridge
from heads.testing import folds_of, make_rows
from store.errors import HeadError
from store.metric import smape_log

PENALTIES = np.geomspace(1e-4, 1.0, 6)


def by_hand(rows, inside):
    """The columns as a plain matrix: mean vectors, indicators, standardised numbers, categories."""
    train = rows.subset(inside)
    vectors = [block / np.sqrt(block[inside].var(axis=0).sum()) for block in filled_vectors(rows, train)]
    indicator = (~rows.matrices[1].valid).astype(float)
    numbers = rows.fields.X
    present = np.isfinite(numbers)
    mean = np.nanmean(numbers[inside], axis=0)
    lacking = ~present[:, [0]].astype(bool)
    parts = np.column_stack([np.where(present, numbers, mean), lacking, indicator])
    deviation = parts[inside].std(axis=0)
    live = deviation > 1e-9
    numbers_block = parts[:, live] / deviation[live] / np.sqrt(live.sum()) * 2.0
    brand = rows.fields.categories["fact:brand"].codes
    unit = np.ones((len(rows), 1))
    categories = np.column_stack([unit, brand[:, None] == np.arange(8)]).astype(float)
    categories = categories * 3.0 / np.sqrt(categories[inside].var(axis=0).sum())
    return np.column_stack([*vectors, numbers_block, categories])


def filled_vectors(rows, train):
    for matrix, seen in zip(rows.matrices, train.matrices, strict=True):
        X = matrix.X.astype(float)
        X[~matrix.valid] = seen.X[seen.valid].astype(float).mean(axis=0)
        yield X


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_penalty_of_every_fold_is_scikit_learns_ridge(precision, monkeypatch):
    if precision == "float32":
        monkeypatch.setattr(gram, "EXACT_FLOPS", 0)
    rows, log_price = make_rows(600)
    fold = folds_of(rows)
    layout = ColumnLayout.of(rows, min_count=5, use_fields=True)
    cells = sum_cells(rows, log_price, fold, layout)
    scaling = Scaling((1.0, 1.0), "block", 2.0, 3.0, 5)
    for held in range(4):
        sums = Sums.joined([cells[f] for f in range(4) if f != held])
        path = solve_path(sums, layout, scaling, PENALTIES)
        outside = np.flatnonzero(fold == held)
        (found,) = predict_paths(layout, rows, outside, [path])
        X = by_hand(rows, fold != held)
        for i, penalty in enumerate(PENALTIES):
            model = SklearnRidge(alpha=penalty * (fold != held).sum()).fit(
                X[fold != held], log_price[fold != held]
            )
            tolerance = 1e-8 if precision == "float64" else 1e-4
            np.testing.assert_allclose(found[:, i], model.predict(X[outside]), atol=tolerance)


def test_a_row_without_a_vector_is_predicted_as_the_mean_of_the_training_rows():
    rows, log_price = make_rows(300, no_image=0.0)
    head = Ridge(fields=False).fit(rows, log_price)
    image = rows.matrices[1]
    gone = dataclasses.replace(image, X=np.zeros_like(image.X), valid=np.zeros(300, bool))
    mean = dataclasses.replace(image, X=np.tile(image.X.astype(float).mean(axis=0), (300, 1)))
    without = dataclasses.replace(rows, matrices=(rows.matrices[0], gone))
    at_mean = dataclasses.replace(rows, matrices=(rows.matrices[0], mean))
    np.testing.assert_allclose(head.predict(without), head.predict(at_mean), atol=1e-6)


def test_text_and_images_together_beat_either_alone():
    rows, log_price = make_rows(600)
    fold, head = folds_of(rows), Ridge(fields=False)
    both, text, image = (
        smape_log(log_price, crossfit(head, rows.select(names), log_price, fold).oof)
        for names in (
            ["minilm@structured", "efficientnet-lite0"],
            ["minilm@structured"],
            ["efficientnet-lite0"],
        )
    )
    assert both < min(text, image)


def test_two_folds_still_choose_the_penalty_inside():
    rows, log_price = make_rows(400)
    result = crossfit(Ridge(), rows, log_price, folds_of(rows, 2))
    assert smape_log(log_price, result.oof) < smape_log(log_price, np.full(400, np.median(log_price)))
    assert all(learned["alpha"] > 0 for learned in result.learned)


def test_more_columns_than_rows_are_no_trouble():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 200))
    y = X[:, 0] + rng.normal(0, 0.1, 60)
    assert np.isfinite(Ridge().fit(X, y).predict(X)).all()


def test_saved_coefficients_predict_as_the_model_does(tmp_path):
    rows, log_price = make_rows(300)
    head = Ridge().fit(rows, log_price)
    (tmp_path / "ridge.npz").write_bytes(head.files()["ridge.npz"])
    saved = np.load(tmp_path / "ridge.npz", allow_pickle=False)
    raw = head.layout_.raw(rows, np.arange(300), np.float64)
    np.testing.assert_allclose(
        raw @ saved["coefficients"] + saved["intercept"], head.predict(rows), atol=1e-9
    )
    assert json.loads(head.files()["ridge.json"])["levels"]["fact:brand"]["acme"] >= 0


def test_an_unknown_scale_is_an_error_that_names_both():
    rows, log_price = make_rows(60)
    with pytest.raises(HeadError, match="scale must be one of block, column, got 'rows'"):
        Ridge(scale="rows").fit(rows, log_price)


def test_a_design_fills_missing_vectors_with_the_mean_and_an_indicator():
    rows, _ = make_rows(200)
    X = Design(fields=False).fit(rows).transform(rows)
    valid = rows.matrices[1].valid
    np.testing.assert_allclose(X[~valid, 12:18], 0.0, atol=1e-6)
    np.testing.assert_array_equal(X[:, 18], ~valid)
    assert np.square(X[:, :12]).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-3)
