import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from heads.features.rows import CategoricalColumn, FieldTable
from heads.folds.crossfit import crossfit
from heads.linear import variances
from heads.linear.additive import SCALES, Additive, held_out_scale, lowest_point
from heads.linear.sparse import Sparse
from heads.linear.variances import block_scale, centred_kernel, find_weights, solve_blocks
from heads.testing import folds_of, make_rows
from store.metric import smape_log
from tests.fake_rows import with_one_core

one_core = pytest.fixture(scope="module", autouse=True)(with_one_core)


@pytest.mark.parametrize("sketched_from", [10, 1000])
def test_blocks_side_by_side_are_solved_as_one_ridge_with_an_intercept(monkeypatch, sketched_from):
    monkeypatch.setattr(variances, "SKETCHED_FROM", sketched_from)
    monkeypatch.setattr(variances, "SKETCH", 20)
    monkeypatch.setattr(variances, "TOLERANCE", 1e-5)
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(90, 7)), sp.random(90, 40, 0.2, format="csr", random_state=0)]
    scales, target = [0.5, 2.0], rng.normal(size=90)
    weights = rng.uniform(0.2, 1.0, 90)
    found, intercept = solve_blocks(blocks, scales, target, weights)
    X = np.column_stack([0.5 * blocks[0], 2.0 * blocks[1].toarray(), np.full(90, 10.0)])
    exact = np.linalg.solve(X.T @ (weights[:, None] * X) + np.eye(48), X.T @ (weights * target))
    np.testing.assert_allclose(found[0], 0.5 * exact[:7], atol=1e-3)
    np.testing.assert_allclose(found[1], 2.0 * exact[7:47], atol=1e-3)
    assert intercept == pytest.approx(10 * exact[47], abs=1e-3)


def test_directions_of_large_variance_cost_no_steps_once_they_are_sketched(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 60)) * np.geomspace(300, 0.03, 60)
    target = X @ (rng.normal(size=60) / np.geomspace(300, 0.03, 60)) + rng.normal(size=300)
    target -= target.mean()
    Z = np.column_stack([X, np.full(300, 10.0)])
    exact = Z @ np.linalg.solve(Z.T @ Z + np.eye(61), Z.T @ target)
    off = []
    for sketched_from in (1000, 10):
        monkeypatch.setattr(variances, "SKETCHED_FROM", sketched_from)
        monkeypatch.setattr(variances, "SKETCH", 40)
        monkeypatch.setattr(variances, "MAX_PRODUCTS", 30)
        (coefficients,), intercept = solve_blocks([X], [1.0], target, np.ones(300))
        off.append(np.linalg.norm(X @ coefficients + intercept - exact) / np.linalg.norm(exact))
    assert off[1] < 0.05 * off[0]


def test_blocks_of_fewer_directions_than_are_sketched_are_solved(monkeypatch):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(400, 3)) @ rng.normal(0, 10, (3, 50))).astype(np.float32)
    target = X @ rng.normal(size=50) / 30 + rng.normal(size=400)
    target -= target.mean()
    monkeypatch.setattr(variances, "SKETCHED_FROM", 10)
    (coefficients,), intercept = solve_blocks([X], [1.0], target, np.ones(400))
    Z = np.column_stack([X.astype(np.float64), np.full(400, 10.0)])
    exact = Z @ np.linalg.solve(Z.T @ Z + np.eye(51), Z.T @ target)
    np.testing.assert_allclose(X @ coefficients + intercept, exact, atol=0.02 * np.abs(exact).max())


def test_a_block_that_tells_prices_gets_a_weight_and_one_of_noise_gets_none():
    rng = np.random.default_rng(0)
    telling, noise = rng.normal(size=(300, 5)), rng.normal(size=(300, 50))
    target = telling @ rng.normal(size=5) + rng.normal(0, 0.5, 300)
    kernels = [centred_kernel(X, block_scale(X)) for X in (telling, noise)]
    signal, none = find_weights(kernels, target, prior=0.01)
    assert signal > 2  # variance over that of the noise, of which there is 5 to 0.25
    assert none < 0.2


def goods(n_rows=300, seed=0):
    """Rows that cost a unit price, which words tell, times a quantity, which a number tells."""
    rng = np.random.default_rng(seed)
    kinds = ("tea", "coffee", "cocoa", "sugar", "salt")
    kind, quantity = rng.integers(0, len(kinds), n_rows), rng.lognormal(5, 1.5, n_rows)
    rows, _ = make_rows(n_rows)
    names = np.array([f"{kinds[k]} of the house" for k in kind], dtype=object)
    fields = FieldTable(("log_quantity:g",), np.log1p(quantity)[:, None], {})
    rows = replace(rows, matrices=(), fields=fields, texts={"full": names, "name": names})
    return rows, 0.7 * kind + np.log1p(quantity) + rng.normal(0, 0.05, n_rows)


def test_a_unit_price_in_the_words_times_a_quantity_is_learned_where_words_alone_do_not():
    rows, log_price = goods()
    found = crossfit(Additive(), rows, log_price, folds_of(rows))
    assert smape_log(log_price, found.oof) < 8
    assert smape_log(log_price, crossfit(Sparse(), rows, log_price, folds_of(rows)).oof) > 60
    assert set(found.learned[0]["weights"]) <= {
        "words of name",
        "single words of name",
        "characters of name",
        "quantities",
        "curves",
    }


def test_what_a_word_adds_does_not_depend_on_how_long_the_name_is():
    rng = np.random.default_rng(0)
    rows, _ = make_rows(500)
    words = [f"kind{at}" for at in range(12)]
    value = rng.normal(0, 0.5, len(words))
    held = rng.random((500, len(words))) < rng.uniform(0.1, 0.6, 500)[:, None]
    names = np.array([" ".join([words[w] for w in np.flatnonzero(row)] or ["none"]) for row in held], object)
    rows = replace(
        rows, matrices=(), fields=FieldTable((), np.empty((500, 0))), texts={"full": names, "name": names}
    )
    found = crossfit(Additive(), rows, 3 + held @ value + rng.normal(0, 0.02, 500), folds_of(rows))
    assert smape_log(3 + held @ value, found.oof) < 1.5  # by TF-IDF and characters alone it is 5.7
    weights = found.learned[0]["weights"]
    assert weights["single words of name"] > 10 * weights["words of name"]


def test_numbers_that_are_no_quantities_do_not_weaken_the_quantity():
    rows, log_price = goods()
    noise = np.random.default_rng(1).normal(size=(300, 40))
    names = (*rows.fields.names, *(f"number:{at}" for at in range(40)))
    fields = FieldTable(names, np.column_stack([rows.fields.X, noise]))
    found = crossfit(Additive(), replace(rows, fields=fields), log_price, folds_of(rows))
    assert smape_log(log_price, found.oof) < 8
    weights = found.learned[0]["weights"]
    assert weights["quantities"] > 20 * weights["numbers"]


def test_a_vintage_in_the_name_and_a_number_in_a_column_tell_prices():
    rng = np.random.default_rng(0)
    rows, _ = make_rows(300)
    year, power = rng.integers(1950, 2020, 300), rng.integers(30, 300, 300)
    names = np.array([f"Barolo {y}" for y in year], dtype=object)
    engine = np.array([f"{p} bhp" for p in power], dtype=object)
    levels, codes = np.unique(engine, return_inverse=True)
    fields = FieldTable(
        (), np.empty((300, 0)), {"categorical:engine": CategoricalColumn(tuple(levels), codes)}
    )
    rows = replace(rows, matrices=(), fields=fields, texts={"full": names, "name": names})
    log_price = 3 + (2020 - year) / 20
    assert smape_log(log_price, crossfit(Additive(), rows, log_price, folds_of(rows)).oof) < 15


def test_the_log_price_is_the_sum_of_what_the_blocks_add():
    rows, log_price = make_rows(200)
    head = Additive().fit(rows, log_price)
    fitted, counts = head.sum_, head.counter_.count(rows)
    from heads.features.blocks import with_bare_numbers

    parts = fitted.parts(with_bare_numbers(rows), counts)
    np.testing.assert_allclose(head.predict(rows), fitted.mean + sum(parts.values()))
    assert all(abs(part.mean()) < 1e-4 for part in parts.values())
    assert fitted.mean == pytest.approx(log_price.mean(), abs=0.02)
    record = json.loads(head.files()["additive.json"])
    assert record["weights"].keys() == parts.keys()
    assert "thing" in record["terms"]["word of name"]


def test_rows_that_nothing_tells_apart_cost_their_mean():
    rows, log_price = make_rows(20)
    same = np.array([""] * 20, dtype=object)
    rows = replace(
        rows, matrices=(), fields=FieldTable((), np.empty((20, 0))), texts={"full": same, "name": same}
    )
    head = Additive().fit(rows, log_price)
    np.testing.assert_allclose(head.predict(rows), log_price.mean())


def test_prices_are_those_of_ridge_by_scikit_learn_on_the_same_columns():
    from sklearn.linear_model import Ridge

    from heads.linear.additive import CountedRows, compact

    rows, log_price = make_rows(700)
    counted, head = CountedRows.of(rows), Additive().fit(rows, log_price)
    fitted = head.sum_
    columns = {
        name: compact(block.transform(counted.rows, counted.counts)) for name, block in fitted.blocks.items()
    }
    X = sp.hstack(
        [np.sqrt(fitted.weights[name]) / block_scale(x) * sp.csr_matrix(x) for name, x in columns.items()]
    ).toarray()
    exact = Ridge(alpha=1.0, solver="svd").fit(X, log_price).predict(X)
    np.testing.assert_allclose(head.predict(rows), exact, atol=2e-3)


def test_weights_found_on_few_rows_are_scaled_by_what_held_out_rows_say():
    rng = np.random.default_rng(0)
    rows, _ = make_rows(400)
    X = rng.normal(size=(400, 200))
    price = X @ rng.normal(0, 0.1, 200)
    noise = rng.normal(0, 1.0, 400)
    of_price, of_noise = (held_out_scale([X], [3.0], rows.group, None, y, 0) for y in (price, noise))
    assert of_price == max(SCALES)
    assert of_noise == min(SCALES)
    too_few = held_out_scale([X[:60]], [3.0], rows.group[:60], None, noise[:60], 0)
    assert too_few == 1


def test_rows_of_a_group_are_held_out_together():
    """Copies would say that nothing need be shrunk."""
    rng = np.random.default_rng(0)
    X, noise = (np.repeat(one, 2, axis=0) for one in (rng.normal(size=(200, 300)), rng.normal(0, 1.0, 200)))
    alone, in_pairs = (
        held_out_scale([X], [3.0], group, None, noise, 0) for group in (np.arange(400), np.arange(400) // 2)
    )
    assert alone > 4 * in_pairs


def test_the_scale_lies_where_a_parabola_is_lowest_or_at_an_end():
    at = np.log(SCALES)
    assert lowest_point(SCALES, (at - np.log(0.2)) ** 2) == pytest.approx(0.2)
    assert lowest_point(SCALES, at) == min(SCALES)
    assert lowest_point(SCALES, -at) == max(SCALES)
    assert lowest_point(SCALES, np.zeros(len(SCALES))) == 1  # nothing tells them apart
