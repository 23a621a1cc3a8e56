import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from heads.features.tfidf import Tokens
from heads.kernels.names import RESPECTS, NameSimilarities, numbers_of

WORDS = st.lists(
    st.sampled_from(["acme", "blue", "mug", "8gb", "8 GB", "1.5", "256", "Zen"]), max_size=5
).map(" ".join)
SHARED = ["acme blue 8gb mug", "acme 8gb"]


def names(*texts):
    return np.array(texts, dtype=object)


def compared(known, asked, similarities=None):
    position = np.tile(np.arange(len(known)), (len(asked), 1))
    fitted = (similarities or NameSimilarities()).fit(names(*known), None)
    return fitted.compare(names(*asked), None, position)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), st.lists(WORDS, min_size=1, max_size=4))
def test_words_alone_and_numbers_alone_are_compared_as_scikit_learns_tfidf_does(known, asked):
    known = [*known, *SHARED]
    found = compared(known, asked)
    for at, cut in ((1, lambda text: re.findall(r"\w+", text.lower())), (2, numbers_of)):
        peer = TfidfVectorizer(analyzer=cut, sublinear_tf=True)
        expected = peer.fit_transform(known) @ peer.transform(asked).T
        np.testing.assert_allclose(found[at], expected.toarray().T, atol=1e-5)


def test_a_number_is_alike_however_its_unit_is_written_and_however_much_of_it_there_is():
    found = compared(["cola 1.5 L", "cola 2 L", "cola"], ["Lemonade, 1.5l", "soda"])[2]
    assert found[0, 0] == pytest.approx(1, abs=1e-6)
    assert found[0, 1] == found[0, 2] == 0
    assert not found[1].any()


def test_the_first_word_is_the_same_or_not():
    found = compared(["acme mug", "", "blue acme"], ["Acme plate", "", "new mug"])[3]
    assert found.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_only_as_many_respects_as_are_asked_for():
    known, asked = [*SHARED, "blue mug"], ["acme blue mug", "8gb"]
    one, all_of_them = compared(known, asked, NameSimilarities(1)), compared(known, asked)
    assert (len(one), len(all_of_them)) == (1, len(RESPECTS))
    np.testing.assert_array_equal(one[0], all_of_them[0])


@pytest.mark.parametrize("n_rows", [3, 2500])
def test_blocks_of_rows_and_texts_that_were_cut_before_change_nothing(n_rows):
    known, asked = names(*SHARED, "blue mug"), names(*(f"acme blue {i % 7}gb" for i in range(n_rows)))
    position = np.arange(2 * n_rows).reshape(n_rows, 2) % len(known)
    fitted = NameSimilarities().fit(known, Tokens.of(known))
    found = fitted.compare(asked, Tokens.of(asked), position)
    for i in (0, n_rows // 2, n_rows - 1):
        np.testing.assert_array_equal(fitted.compare(asked[[i]], None, position[[i]])[:, 0], found[:, i])
