import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from heads.features.rows import CategoricalColumn, FieldTable, Rows
from heads.folds.crossfit import crossfit
from heads.kernels.kernel_ridge import KernelRidge
from heads.kernels.mixture import (
    WORDS,
    Cosines,
    Distances,
    FieldDistances,
    GaussianVectors,
    Mixture,
    default_terms,
    sources_of,
)
from heads.testing import make_rows
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.matrix import Matrix

WORDS_OF = ["silk", "cotton", "linen", "wool", "denim", "leather"]


def rows_with_signal(n_rows=400, seed=0):
    """Price follows a curve of the vectors, a word and a field."""
    rng = np.random.default_rng(seed)
    X, Z = rng.normal(size=(n_rows, 5)), rng.normal(size=(n_rows, 7))
    word, size = rng.integers(len(WORDS_OF), size=n_rows), rng.normal(size=n_rows)
    texts = np.array([f"a shirt of {WORDS_OF[w]} number {i}" for i, w in enumerate(word)], dtype=object)
    log_price = 3 + np.sin(X[:, 0]) + 0.5 * np.tanh(Z[:, 0] * X[:, 1]) + 0.3 * word + 0.4 * size
    rows = Rows(
        pa.array(np.arange(n_rows)),
        (
            Matrix("a", X.astype(np.float16), np.ones(n_rows, bool)),
            Matrix("b", Z.astype(np.float16), np.ones(n_rows, bool)),
        ),
        FieldTable(
            ("size",), size[:, None], {"kind": CategoricalColumn(("x", "y"), (word % 2).astype(np.int32))}
        ),
        {"full": texts, "name": texts},
        np.arange(n_rows),
    )
    return rows, log_price


def test_it_learns_from_vectors_words_and_fields_together():
    rows, log_price = rows_with_signal()
    fold = np.arange(len(rows)) % 4
    both = crossfit(KernelRidge(), rows, log_price, fold).oof
    without_words = crossfit(KernelRidge(lexical=False), rows, log_price, fold).oof
    without_fields = crossfit(KernelRidge(fields=False), rows, log_price, fold).oof
    assert smape_log(log_price, both) < 0.9 * smape_log(log_price, without_words)
    assert smape_log(log_price, both) < 0.9 * smape_log(log_price, without_fields)


def test_with_every_row_a_landmark_nystroem_is_the_exact_solution():
    rows, log_price = rows_with_signal()
    exact = KernelRidge().fit(rows, log_price)
    landmarks = KernelRidge(exact_rows=10, landmarks=len(rows)).fit(rows, log_price)
    assert np.allclose(exact.predict(rows), landmarks.predict(rows), atol=0.02)


def test_fewer_landmarks_than_rows_still_predict():
    rows, log_price = rows_with_signal(800)
    seen, unseen = np.arange(600), np.arange(600, 800)
    exact = KernelRidge().fit(rows.subset(seen), log_price[seen]).predict(rows.subset(unseen))
    few = KernelRidge(exact_rows=10, landmarks=300).fit(rows.subset(seen), log_price[seen])
    error = smape_log(log_price[unseen], few.predict(rows.subset(unseen)))
    assert error < 1.15 * smape_log(log_price[unseen], exact)


def test_float32_solves_what_float64_solves():
    from scipy.linalg import cho_factor, cho_solve

    rows, log_price = rows_with_signal()
    head = KernelRidge().fit(rows, log_price)
    kernel = head._kernel(head.held_, head.held_).astype(np.float64)
    system = kernel + head.choice_.alpha * np.eye(len(kernel))
    dual = cho_solve(cho_factor(system), log_price - log_price.mean())
    assert np.allclose(kernel @ dual + log_price.mean(), head.predict(rows), atol=2e-3)


def test_the_refit_takes_the_mean_of_what_the_folds_chose_and_searches_no_more():
    rows, log_price = rows_with_signal(200)
    result = crossfit(KernelRidge(), rows, log_price, np.arange(200) % 4, rows.subset(np.arange(5)))
    alphas = [fold["alpha"] for fold in result.learned]
    assert result.model.learned()["alpha"] == pytest.approx(np.exp(np.log(alphas).mean()))
    assert result.test is not None
    assert len(result.test) == 5


def test_a_row_without_a_vector_is_told_apart_from_one_at_the_mean():
    rows, log_price = rows_with_signal()
    valid = np.arange(len(rows)) % 2 == 0
    blind = Matrix("b", np.where(valid[:, None], rows.matrices[1].X, 0), valid)
    rows = dataclasses.replace(rows, matrices=(rows.matrices[0], blind))
    fold = np.arange(len(rows)) % 5
    dearer = log_price + 2.0 * valid
    assert smape_log(dearer, crossfit(KernelRidge(), rows, dearer, fold).oof) < 60


def test_cosines_are_those_of_the_whole_tfidf_matrix():
    rows, _ = rows_with_signal(100)
    source = Cosines("full", min_rows=1).fit(rows)
    features = source.features(rows)
    X = source.words_.transform(rows.text("full"))
    assert np.allclose(source.compare(features, features), (X @ X.T).toarray(), atol=1e-5)


def test_the_median_pair_is_at_distance_one():
    rows, _ = rows_with_signal(300)
    source = sources_of(rows, unit=False, texts=False, fields=False)["set 1"]
    assert isinstance(source, Distances)
    known = source.fit(rows).features(rows)
    apart = source.compare(known, known)
    assert np.median(apart[np.triu_indices(300, 1)]) == pytest.approx(1.0, abs=0.05)


def test_a_mixture_of_kernels_is_symmetric_and_positive_definite():
    rows, _ = rows_with_signal(120)
    sources = sources_of(rows, unit=True, texts=True, fields=True)
    known = {name: source.fit(rows).features(rows) for name, source in sources.items()}
    weights = {term: 1.0 for term in default_terms(sources)}
    assert {"joint", "words x joint"} <= set(weights)
    widths = {name: 0.3 for name in sources if name not in (WORDS, "name")}
    kernel = Mixture(weights, widths).kernel(lambda name: sources[name].compare(known[name], known[name]))
    assert np.allclose(kernel, kernel.T, atol=1e-5)
    assert np.linalg.eigvalsh(kernel.astype(np.float64)).min() > -1e-4


def test_rows_with_neither_vectors_nor_texts_are_refused():
    rows, log_price = rows_with_signal(50)
    bare = dataclasses.replace(rows, matrices=(), texts={}, fields=FieldTable((), np.empty((50, 0))))
    with pytest.raises(HeadError, match="kernel-ridge needs vectors or texts"):
        KernelRidge().fit(bare, log_price)


def test_vectors_that_stand_for_a_gaussian_have_about_its_dot_products():
    rows, _ = make_rows(120)
    vectors = GaussianVectors(FieldDistances(), components=4096).fit(rows)
    distances = FieldDistances().fit(rows)
    known = distances.features(rows)
    exact = np.exp(-0.5 / 0.3 * distances.compare(known, known))
    X = vectors.transform(rows)
    np.testing.assert_allclose(X @ X.T, exact, atol=0.1)


def test_thousands_of_rows_at_once_are_priced_as_each_alone():
    rows, log_price = rows_with_signal(2400)
    head = KernelRidge(tune_rows=100).fit(rows.subset(np.arange(300)), log_price[:300])
    together = head.predict(rows)
    some = np.arange(5, 2400, 400)
    alone = [head.predict(rows.subset(np.array([at])))[0] for at in some]
    np.testing.assert_array_equal(together[some], alone)
