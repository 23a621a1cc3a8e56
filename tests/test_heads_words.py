import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from heads.features import tfidf
from heads.features.tfidf import (
    WORD,
    Terms,
    Tokens,
    VocabularyCounter,
    WordPairs,
    counts_of,
    is_unspaced,
    token_pattern,
)

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
