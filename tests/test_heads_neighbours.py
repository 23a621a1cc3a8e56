from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from heads.features.rows import FieldTable, Rows
from heads.folds.crossfit import crossfit
from heads.kernels import nearest
from heads.kernels.nearest import Nearest
from heads.kernels.neighbours import Neighbours, least_expected_smape
from heads.trees.reranked import SteadyNeighbours
from store.cleaning import Cleaning, Decision
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.matrix import Matrix


def product_lines(n_lines=60, per_line=6, dim=8, seed=0):
    """Rows whose price is their line's; text and image vectors of a line lie close together."""
    rng = np.random.default_rng(seed)
    line = np.repeat(np.arange(n_lines), per_line)
    n_rows = len(line)
    sets = tuple(
        Matrix(
            name,
            (rng.normal(size=(n_lines, dim))[line] + 0.1 * rng.normal(size=(n_rows, dim))).astype(np.float16),
            np.ones(n_rows, bool),
        )
        for name in ("text", "image")
    )
    names = np.array([f"line{value} item{i}" for i, value in enumerate(line)], dtype=object)
    rows = Rows(
        pa.array([f"p{i}" for i in range(n_rows)]),
        sets,
        FieldTable((), np.empty((n_rows, 0))),
        {"name": names, "full": names},
        np.arange(n_rows),
    )
    return rows, rng.normal(3, 1, n_lines)[line], np.arange(n_rows) % 5


def test_a_row_never_finds_its_own_group_however_large_that_is():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    X[:200] = X[0] + 0.001 * rng.normal(size=(200, 6))
    group = np.where(np.arange(300) < 200, 7, np.arange(300))
    matrix = Matrix("x", X, np.ones(300, bool))
    found = Nearest().fit(matrix, group).search(matrix, group, k=5)
    assert (found >= 0).all()
    assert not (group[found] == group[:, None]).any()


@pytest.mark.parametrize("exact_below", [10**9, 1])
def test_the_nearest_row_is_the_one_with_the_highest_cosine(exact_below):
    X = np.random.default_rng(1).normal(size=(500, 16)).astype(np.float32)
    matrix = Matrix("x", X, np.ones(500, bool))
    index = Nearest(exact_below).fit(matrix, np.arange(500))
    found = index.search(matrix, -1 - np.arange(500), k=1)[:, 0]
    assert (found == np.arange(500)).mean() > 0.95  # an inverted file may miss a few


def test_many_rows_of_wide_vectors_are_searched_by_their_principal_axes(monkeypatch):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 64)) + 0.05 * rng.normal(size=(500, 64))
    matrix, group = Matrix("x", X.astype(np.float16), np.arange(500) % 50 > 0), np.arange(500)
    exact = Nearest().fit(matrix, group)
    monkeypatch.setattr(nearest, "AXES_FROM", 400)
    monkeypatch.setattr(nearest, "AXES", 16)
    index = Nearest().fit(matrix, group)
    assert exact.axes_ is None
    assert index._index.d == 16
    found, expected = (one.search(matrix, group, k=5) for one in (index, exact))
    assert (found[~matrix.valid] == -1).all()
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, expected, strict=True)]) > 0.9
    np.testing.assert_array_equal(index.fill(matrix).search(matrix, group, k=5), found)
    np.testing.assert_allclose(index.cosine(matrix, found), exact.cosine(matrix, found))  # of whole vectors


def test_whitening_finds_what_a_few_loud_directions_hide():
    rng = np.random.default_rng(5)
    pair, kind = np.repeat(np.arange(400), 2), np.repeat(rng.normal(size=(400, 2)), 2, axis=0)
    loud = (kind + 0.5 * rng.normal(size=(800, 2))) @ rng.normal(size=(2, 40)) * 20
    quiet = rng.normal(size=(400, 40))[pair] + 0.2 * rng.normal(size=(800, 40))
    matrix, group = Matrix("x", (loud + quiet).astype(np.float16), np.ones(800, bool)), np.arange(800)

    def share_of_pairs(index):
        return (pair[index.search(matrix, group, k=1)[:, 0]] == pair).mean()

    plain, whitened = (share_of_pairs(Nearest(whitened=one).fit(matrix, group)) for one in (False, True))
    assert plain < 0.5
    assert whitened > 0.9


@pytest.mark.parametrize("n_rows", [0, 1, 3, 30])
def test_few_rows_or_equal_ones_are_compared_without_whitening(n_rows):
    for X in (np.ones((n_rows, 6)), np.random.default_rng(0).normal(size=(min(n_rows, 7), 6))):
        matrix, group = Matrix("x", X.astype(np.float16), np.ones(len(X), bool)), np.arange(len(X))
        index = Nearest(whitened=True).fit(matrix, group)
        assert index.whitening_ is None
        assert index.search(matrix, group, k=2).shape == (len(X), 2)


def test_only_long_vectors_are_whitened_where_a_workspace_may_hold_prices_made_without():
    rows, log_price, _ = product_lines()
    text, image = rows.matrices
    wide = Matrix("image", np.tile(image.X, (1, 300)), image.valid)
    for head, expected in ((Neighbours(), [False, True]), (SteadyNeighbours(), [True, True])):
        head.fit(replace(rows, matrices=(text, wide)), log_price)
        assert [index.whitening_ is not None for index in head.nearest_] == expected


def test_a_row_is_whitened_alike_whatever_rows_are_beside_it():
    X = np.random.default_rng(3).normal(size=(500, 64)).astype(np.float16)
    matrix, asked = Matrix("x", X, np.ones(500, bool)), np.arange(500)
    index = Nearest(whitened=True).fit(matrix, asked)
    near = index.search(matrix, asked, k=3)
    alone = matrix.rows(np.array([7]))
    np.testing.assert_array_equal(index.search(alone, asked[[7]], k=3), near[[7]])
    np.testing.assert_array_equal(
        index.cosine(alone, near[[7]]).view(np.uint32), index.cosine(matrix, near)[[7]].view(np.uint32)
    )


def test_of_rows_with_one_vector_the_first_are_found_whatever_rows_are_asked_together():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(40, 48)).astype(np.float16)[rng.integers(0, 40, 900)]
    matrix, others = Matrix("x", X, np.ones(900, bool)), -1 - np.arange(900)
    index = Nearest(whitened=True, steady=True).fit(matrix, np.arange(900))
    near = index.search(matrix, others, k=12)
    for asked in (rng.permutation(900), np.arange(7)):
        np.testing.assert_array_equal(index.search(matrix.rows(asked), others[asked], k=12), near[asked])
    for row in range(0, 900, 90):
        np.testing.assert_array_equal(near[row], np.flatnonzero((X[row] == X).all(axis=1))[:12])


def test_rows_without_a_vector_are_neither_found_nor_looked_for():
    X = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    valid = np.arange(50) % 2 == 0
    X[~valid] = 0
    matrix = Matrix("x", X, valid)
    index = Nearest().fit(matrix, np.arange(50))
    found = index.search(matrix, np.arange(50), k=3)
    assert (found[~valid] == -1).all()
    assert valid[found[valid]].all()
    assert np.isnan(index.cosine(matrix, np.zeros((50, 1), int))[~valid]).all()


def test_siblings_of_a_product_line_give_its_price():
    rows, log_price, fold = product_lines()
    result = crossfit(Neighbours(), rows, log_price, fold, rows.subset(np.arange(3)))
    assert smape_log(log_price, result.oof) < 1.0
    assert result.test is not None
    assert np.allclose(result.test, log_price[:3], atol=1e-6)


@pytest.mark.parametrize(
    "cleaning", [None, Cleaning((Decision("price", "drop", np.array([0]), np.array([-1])),))]
)
def test_evidence_names_training_rows_of_other_folds_with_weights_that_sum_to_one(cleaning):
    rows, log_price, fold = product_lines()
    result = crossfit(Neighbours(), rows, log_price, fold, rows.subset(np.arange(3)), cleaning=cleaning)
    assert result.evidence is not None
    fold_of = dict(zip(rows.sample_id.to_pylist(), fold.tolist(), strict=True))
    total: dict[tuple[str, str], float] = {}
    for row in result.evidence.to_pylist():
        key = (row["split"], row["sample_id"])
        total[key] = total.get(key, 0.0) + row["weight"]
        if row["split"] == "oof":
            assert fold_of[row["sample_id"]] != fold_of[row["neighbour_id"]]
    assert len(total) == len(rows) + 3
    assert all(0.97 < weight <= 1.0001 for weight in total.values())


def test_a_row_without_any_vector_gets_the_median_price():
    rows, log_price, _ = product_lines()
    head = Neighbours().fit(rows, log_price)
    none = tuple(Matrix(m.name, np.zeros_like(m.X[:2]), np.zeros(2, bool)) for m in rows.matrices)
    bare = Rows(
        pa.array(["a", "b"]),
        none,
        FieldTable((), np.empty((2, 0))),
        {"name": np.array(["", ""])},
        np.array([-1, -2]),
    )
    assert np.allclose(head.predict(bare), np.median(log_price))


def test_a_row_without_an_image_still_finds_its_line_by_text():
    rows, log_price, fold = product_lines()
    text, image = rows.matrices
    valid = np.arange(len(rows)) % 3 > 0
    half = Matrix(image.name, np.where(valid[:, None], image.X, 0), valid)
    rows = Rows(rows.sample_id, (text, half), rows.fields, rows.texts, rows.group)
    result = crossfit(Neighbours(), rows, log_price, fold)
    assert smape_log(log_price, result.oof) < 1.0


def test_folds_that_split_a_group_are_refused():
    rows, log_price, fold = product_lines()
    rows = Rows(rows.sample_id, rows.matrices, rows.fields, rows.texts, np.zeros(len(rows), int))
    with pytest.raises(HeadError, match="shares a group with other folds"):
        crossfit(Neighbours(), rows, log_price, fold)


def test_without_vectors_there_is_an_error_that_says_what_to_name():
    rows, log_price, _ = product_lines()
    with pytest.raises(HeadError, match=r"name vector sets in heads\.vectors"):
        Neighbours().fit(rows.select([]), log_price)


def test_the_price_with_least_expected_smape_is_one_of_the_prices():
    prices = np.log([[100.0, 100.0, 180.0], [50.0, 60.0, 70.0]])
    chosen = least_expected_smape(prices, np.full((2, 3), 1 / 3))
    assert np.allclose(np.exp(chosen), [100.0, 60.0])


def test_products_are_alike_in_further_columns_as_well():
    rows, _, fold = product_lines()
    rng = np.random.default_rng(5)
    size = rng.normal(size=len(rows))
    fields = FieldTable(("numeric:size",), size[:, None], {})
    rows = replace(rows, matrices=(), texts={}, fields=fields)
    found = crossfit(Neighbours(), rows, 3 + size, fold)
    assert smape_log(3 + size, found.oof) < 25
    assert found.evidence is not None
    assert "cosine:columns" in found.evidence.column_names


@pytest.mark.parametrize("names", [True, False])
def test_what_was_fitted_before_names_were_compared_in_several_respects_is_restored(names):
    rows, log_price, _ = product_lines()
    fitted = Neighbours(names=names).fit(rows, log_price)
    state, known = dict(fitted.fitted_state()), fitted.names_
    del state["names_"]
    before = state | {"words_": None}
    if known is not None:
        before = state | {"words_": known.words_, "held_words_": known.held_}
    restored = Neighbours(names=names)
    restored.restore(before, lambda ids: rows)
    np.testing.assert_array_equal(restored.predict(rows), fitted.predict(rows))
