import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from heads.features.rows import CategoricalColumn, FieldTable
from heads.features.tfidf import Terms, Weighting
from heads.linear.sparse import Sparse, solve_dual
from heads.testing import make_rows
from store.errors import HeadError


def test_every_penalty_is_the_dense_solution():
    rng = np.random.default_rng(0)
    X = sp.random(150, 400, 0.05, format="csr", random_state=0)
    target, alphas = rng.standard_normal(150), np.geomspace(0.01, 100, 9)
    found = solve_dual(X, target, alphas, tolerance=1e-10)
    K = (X @ X.T).toarray()
    for i, alpha in enumerate(alphas):
        exact = np.linalg.solve(K + alpha * np.eye(150), target)
        np.testing.assert_allclose(found[:, i], exact, atol=1e-6 * np.abs(exact).max())


def test_a_target_of_zeros_has_the_solution_zero():
    X = sp.random(20, 30, 0.2, format="csr", random_state=0)
    np.testing.assert_array_equal(solve_dual(X, np.zeros(20), np.array([0.1, 1.0])), np.zeros((20, 2)))


def test_counting_once_and_weighting_inside_a_fold_is_tf_idf_fitted_inside_it():
    rows, _ = make_rows(200)
    texts, inside = rows.text("full"), np.arange(0, 150)
    vectorizer, counts = Terms("full", "word", 1, 2).count(texts, 2)
    weighting = Weighting.fit(counts[inside], 2, 10**6)
    found = weighting.transform(counts[150:])
    peer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    expected = peer.fit(texts[inside]).transform(texts[150:])
    names = vectorizer.get_feature_names_out()[weighting.columns]
    assert names.tolist() == peer.get_feature_names_out().tolist()
    np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=1e-6)


def test_only_the_most_frequent_terms_are_kept_where_there_are_too_many():
    counts = sp.csr_matrix(np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 0, 0]], np.float32))
    assert Weighting.fit(counts, 1, 2).columns.tolist() == [0, 2]


def test_words_never_seen_in_training_say_nothing():
    rows, log_price = make_rows(200)
    head = Sparse().fit(rows, log_price)
    unseen = np.array(["zyxwvut qponmlk"] * 3, dtype=object)
    strange = rows.subset(np.arange(3))
    strange = type(rows)(
        strange.sample_id, (), strange.fields, dict.fromkeys(("full", "name"), unseen), strange.group
    )
    predicted = head.predict(strange)
    assert np.ptp(predicted) == 0
    assert abs(predicted[0] - log_price.mean()) < 0.5


def test_further_columns_of_the_file_are_used_beside_the_words():
    rows, log_price = make_rows(200)
    rng = np.random.default_rng(0)
    said, colour = rng.standard_normal(200), rng.integers(0, 3, 200)
    fields = FieldTable(
        ("numeric:area",),
        said[:, None],
        {"categorical:colour": CategoricalColumn(tuple("rgb"), colour.astype(np.int32))},
    )
    words = np.array([f"thing {i % 7}" for i in range(200)], dtype=object)
    rows = replace(rows, fields=fields, texts={"full": words, "name": words})
    log_price = 2 + said + colour
    head, unseen = (
        Sparse().fit(rows.subset(np.arange(150)), log_price[:150]),
        rows.subset(np.arange(150, 200)),
    )
    np.testing.assert_allclose(head.predict(unseen), log_price[150:], atol=0.1)
    assert json.loads(head.files()["sparse.json"])[-1][0] == "numeric:area"


def test_a_catalogue_without_text_is_an_error_that_says_so():
    rows, log_price = make_rows(40)
    empty = np.array([""] * 40, dtype=object)
    silent = type(rows)(rows.sample_id, (), rows.fields, {"full": empty, "name": empty}, rows.group)
    with pytest.raises(HeadError, match="no word occurs in 2 or more of the 40 rows: name the text column"):
        Sparse().fit(silent, log_price)


def test_rows_read_without_a_composition_are_an_error_naming_it():
    rows, log_price = make_rows(40)
    bare = type(rows)(rows.sample_id, (), rows.fields, {}, rows.group)
    with pytest.raises(HeadError, match="rows hold no texts of composition 'full'"):
        Sparse().fit(bare, log_price)
