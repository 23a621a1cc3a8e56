import re
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from heads.contributions import explain_rows
from heads.features import tfidf
from heads.features.columns import column_words, texts_of
from heads.features.rows import CategoricalColumn, FieldTable
from heads.features.tfidf import (
    MANY_TEXTS,
    WORD,
    Terms,
    Tokens,
    VocabularyCounter,
    WordPairs,
    counts_of,
    is_unspaced,
    token_pattern,
)
from heads.registry import make_head
from heads.testing import make_rows
from store.catalog.extremes import signed_log
from store.errors import HeadError
from store.metric import smape_log

TEXTS = st.lists(st.text(alphabet="ab é1-_A ", max_size=20), min_size=1, max_size=12)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_cosines_are_those_of_scikit_learns_tfidf(known, new):
    words = [word for text in known for word in set(re.findall(r"\w+", text.lower()))]
    shared = len(known) == 1 or len(set(words)) < len(words)
    pattern = r"(?u)\b\w+\b" if shared else r"(?u)\w"
    peer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=pattern, sublinear_tf=True)
    mine = WordPairs()
    left = mine.fit_transform(np.array(known, dtype=object))
    right = mine.transform(np.array(new, dtype=object))
    if not re.search(r"\w", " ".join(known)):
        assert left.shape == (len(known), 0)
        return
    expected = peer.fit_transform(known) @ peer.transform(new).T
    np.testing.assert_allclose((left @ right.T).toarray(), expected.toarray(), atol=1e-5)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_texts_cut_once_are_counted_as_texts_are(known, new):
    texts = np.array([*new, *known], dtype=object)
    tokens, at = Tokens.of(texts), np.arange(len(new), len(texts))
    plain, cut = WordPairs(), WordPairs()
    expected = plain.fit_transform(texts[at])
    assert (cut.fit_transform(texts[at], tokens.subset(at)) != expected).nnz == 0
    assert (cut.words_, cut.pairs_.tolist()) == (plain.words_, plain.pairs_.tolist())
    other = np.arange(len(new))[::-1]
    expected = plain.transform(texts[other])
    assert (cut.transform(texts[other], tokens.subset(other)) != expected).nnz == 0


@settings(deadline=None)
@given(TEXTS, TEXTS, st.sampled_from([("word", 1, 2), ("char_wb", 2, 5)]), st.integers(1, 2))
def test_terms_are_counted_as_scikit_learn_counts_them(known, new, family, min_df):
    texts, further = np.array(known, dtype=object), np.array(new, dtype=object)
    vectorizer, counts = Terms("full", *family).count(texts, min(min_df, len(texts)))
    if vectorizer.analyzer != family[0] or not counts.shape[1]:
        return  # no text shares a word with another
    peer = CountVectorizer(**vectorizer.get_params())
    assert (peer.fit_transform(texts) != counts).nnz == 0
    assert peer.vocabulary_ == vectorizer.vocabulary_
    with mock.patch.object(tfidf, "MANY_TEXTS", 0):
        assert (peer.transform(further) != counts_of(vectorizer, further)).nnz == 0


@settings(deadline=None)
@given(
    TEXTS,
    TEXTS,
    st.sampled_from([("word", (1, 3)), ("char", (1, 3)), ("char_wb", (2, 5)), ("char_wb", (4, 4))]),
)
def test_a_restored_counter_counts_as_the_one_of_scikit_learn_that_found_its_terms(known, new, family):
    analyzer, ngram_range = family
    peer = CountVectorizer(
        analyzer=analyzer,
        ngram_range=ngram_range,
        token_pattern=WORD if analyzer == "word" else None,
        dtype=np.float32,
    )
    try:
        peer.fit(known)
    except ValueError:  # no term at all
        return
    restored = VocabularyCounter(analyzer, ngram_range, WORD, peer.vocabulary_)
    wanted, found = peer.transform([*new, *known]), restored.transform([*new, *known])
    assert found.dtype == wanted.dtype
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, part), getattr(wanted, part))
    assert restored.get_feature_names_out().tolist() == peer.get_feature_names_out().tolist()


def test_what_a_counter_keeps_of_new_words_has_a_limit(monkeypatch):
    monkeypatch.setattr("heads.features.tfidf.MOST_KEPT_WORDS", 3)
    counter = VocabularyCounter("char_wb", (2, 3), None, {"te": 0, "ea": 1})
    once = [f"tea{n}" for n in range(8)] + ["tea" * 20_000]
    np.testing.assert_array_equal(counter.transform(once).toarray()[:8], np.ones((8, 2)))
    assert len(counter._of_words) <= 3
    assert all(len(word) <= 30 for word in counter._of_words)


def test_a_word_never_seen_parts_its_neighbours():
    words = WordPairs()
    words.fit_transform(np.array(["red silk scarf", "red scarf"], dtype=object))
    with_gap, without = words.transform(np.array(["red wool scarf", "red scarf"], dtype=object)).toarray()
    assert np.count_nonzero(with_gap) == 2
    assert np.count_nonzero(without) == 3
    assert np.linalg.norm(without) == pytest.approx(1.0)


CHINESE, JAPANESE, THAI = "红色丝绸围巾女士冬季", "赤い絹のマフラー", "ผ้าพันคอผ้าไหมสีแดง"


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, f"{CHINESE} 500ml", f"Acme {THAI} L"])
def test_scripts_without_spaces_are_cut_to_characters_and_what_stands_between_them_to_words(text):
    assert is_unspaced([text, ""])
    terms = re.findall(token_pattern([text]), text)
    assert set(terms) - set(CHINESE + JAPANESE + THAI) <= {"500ml", "Acme", "L"}
    # Thai's marks above and below letters are no letters to a regular expression; here they are terms like others.
    assert "".join(terms) == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["", "红", "red silk scarf", "red silk scarf 红色丝绸", "빨간 실크 스카프", "12 345"]
)
def test_words_stay_words_where_most_letters_are_of_scripts_with_spaces(text):
    assert is_unspaced([text]) == (text == "红")
    if text != "红":
        assert re.findall(token_pattern([text]), text) == text.split()


def test_chinese_texts_that_share_no_run_between_spaces_are_alike_by_their_characters():
    words = WordPairs()
    known = words.fit_transform(np.array(["红色丝绸围巾", "蓝色棉布衬衫", "绿色羊毛帽子"], dtype=object))
    (cosines,) = (words.transform(np.array(["红色丝绸"], dtype=object)) @ known.T).toarray()
    assert cosines[0] > 0.5 > cosines[1] > 0


def test_codes_that_no_two_texts_share_are_alike_by_their_characters():
    words = WordPairs()
    known = words.fit_transform(np.array(["A1234", "B9876", "C1239"], dtype=object))
    (cosines,) = (words.transform(np.array(["D1234"], dtype=object)) @ known.T).toarray()
    assert cosines.argmax() == 0


def test_only_the_most_frequent_terms_of_enough_texts_are_kept():
    words = WordPairs(min_df=2, max_features=1)
    found = words.fit_transform(np.array(["red tea", "red tea", "red hat", "one"], dtype=object))
    assert words.n_terms == 1
    assert found.toarray()[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0]


# ---- further columns -----------------------------------------------------------------------------


def table_of_columns(**columns):
    """A field table of further columns, numbers as heads have them."""
    numbers = {name: values for name, values in columns.items() if not isinstance(values[0], str)}
    logs = [signed_log(np.array(values, float)) for values in numbers.values()]
    X = np.array(logs).T if logs else np.empty((len(next(iter(columns.values()))), 0))
    categories = {}
    for name in columns.keys() - numbers.keys():
        levels, codes = np.unique(columns[name], return_inverse=True)
        categories[f"categorical:{name}"] = CategoricalColumn(tuple(levels), codes.astype(np.int32))
    return FieldTable(tuple(f"numeric:{name}" for name in numbers), X, dict(sorted(categories.items())))


def test_words_and_numbers_of_columns_stand_after_the_names_of_their_columns():
    cells = table_of_columns(
        **{"Screen (cm)": [39.5, 0.0], "colour": ["Dark red", "红木"], "x": [np.nan, -123456.7]}
    )
    words = ["colour__dark colour__red screen_cm__39_5", "colour__红 colour__木 screen_cm__0 x__m1_235e05"]
    assert column_words(cells).tolist() == words
    assert column_words(cells.subset(np.array([1]))).tolist() == words[1:]
    assert column_words(FieldTable((), np.empty((2, 0)))).tolist() == ["", ""]


LONGER = {"hidden": (32, 16), "seeds": 1, "epochs": 60, "patience": 60, "batch_rows": 32, "dropout": 0.0}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("additive", {"tune_rows": 100}),
        ("gaussian-process", {"tune_rows": 100}),
        ("sparse", {}),
        ("sparse-mlp", LONGER | {"learning_rate": 1e-2}),
    ],
)
def test_a_word_of_one_column_is_not_that_of_another_and_moves_the_price_of_its_column(name, params):
    draws = np.random.default_rng(0)
    is_red, says_red = draws.integers(0, 2, (2, 240)).astype(bool)

    def cells(chosen):
        return [
            f"{'red' if red else 'blue'} {chr(97 + i // 26)}{chr(97 + i % 26)}z"
            for i, red in enumerate(chosen)
        ]

    fields = table_of_columns(colour=cells(is_red), label=cells(says_red))
    words = np.array([f"thing{i % 7}" for i in range(240)], dtype=object)
    rows = replace(make_rows(240)[0], matrices=(), fields=fields, texts={"full": words, "name": words})
    log_price, seen = 2.0 + is_red, np.arange(160)
    head = make_head(name, params, seed=1).fit(rows.subset(seen), log_price[seen])
    unseen = rows.subset(np.arange(160, 240))
    assert smape_log(log_price[160:], head.predict(unseen)) < 25  # 46 where the column is not known
    if name != "sparse-mlp":
        for parts, red in zip(explain_rows([head], unseen, 2.0).parts, is_red[160:], strict=True):
            assert (parts["category", "categorical:colour"] > 0) == red


def test_a_head_that_was_fitted_on_words_without_names_is_fitted_again():
    rows, _ = make_rows(20)
    with pytest.raises(
        HeadError, match="fitted by an earlier version, which read further columns in another way"
    ):
        texts_of(rows, "columns")


@pytest.mark.parametrize("n_new", [MANY_TEXTS, 3])
def test_the_columns_of_a_row_are_in_order_whatever_other_rows_were_counted(n_new):
    """Sums over a row have the same rounding errors then, which trees would amplify."""
    texts = np.array([f"zinc {at} apple {at % 7} mango" for at in range(2 * MANY_TEXTS)], object)
    for analyzer, longest in (("char_wb", 4), ("word", 2)):
        counter, counts = Terms("full", analyzer, 1, longest).count(texts, 2)
        for found in (counts, counts_of(counter, texts[:n_new])):
            rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
            assert (np.diff(found.indices)[np.diff(rows) == 0] > 0).all()


def test_the_first_word_of_each_text_is_a_known_one_or_none():
    words = WordPairs()
    words.fit_transform(np.array(["acme blue mug", "", "blue mug"], dtype=object))
    found = words.first_words(np.array(["Blue plate", "", "plate blue", "acme"], dtype=object))
    assert found.tolist() == [words.words_["blue"], -1, -1, words.words_["acme"]]
