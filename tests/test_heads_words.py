import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from heads.features.tfidf import WordPairs

TEXTS = st.lists(st.text(alphabet="ab é1-_A ", max_size=20), min_size=1, max_size=12)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_cosines_are_those_of_scikit_learns_tfidf(known, new):
    peer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    mine = WordPairs()
    left = mine.fit_transform(np.array(known, dtype=object))
    right = mine.transform(np.array(new, dtype=object))
    if not re.search(r"\w", " ".join(known)):
        assert left.shape == (len(known), 0)
        return
    expected = peer.fit_transform(known) @ peer.transform(new).T
    np.testing.assert_allclose((left @ right.T).toarray(), expected.toarray(), atol=1e-5)


def test_a_word_never_seen_parts_its_neighbours():
    words = WordPairs()
    words.fit_transform(np.array(["red silk scarf", "red scarf"], dtype=object))
    with_gap, without = words.transform(np.array(["red wool scarf", "red scarf"], dtype=object)).toarray()
    assert np.count_nonzero(with_gap) == 2
    assert np.count_nonzero(without) == 3
    assert np.linalg.norm(without) == pytest.approx(1.0)
