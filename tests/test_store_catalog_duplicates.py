import itertools
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalog.clean.duplicates import NEAR_JACCARD, first_seen, group_rows
from store.catalog.clean.near import NearIndex, near_pairs, shingle_matrix

WORDS = "oil jar gold salt leaf tea cup rye mint plum fig oat nut bean rice corn milk cream lime pear".split()


def groups(texts, images=None, near=False):
    images = [None] * len(texts) if images is None else images
    return group_rows(pa.array(texts, pa.string()), pa.array(images, pa.string()), near=near).tolist()


def words(text):
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def jaccard(left, right):
    """The definition, word by word."""
    sets = []
    for text in (left, right):
        found = words(text)
        sets.append({tuple(found[i : i + 3]) for i in range(max(len(found) - 2, 1))} if found else set())
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


def linked(n, pairs):
    label = list(range(n))
    for a, b in pairs:
        label = [label[a] if one == label[b] else one for one in label]
    return first_seen(np.array(label)).tolist()


def test_rows_with_one_text_are_together():
    assert groups(["a", "b", "a"]) == [0, 1, 0]


def test_rows_with_one_image_are_together():
    assert groups(["a", "b", "c"], ["x", "y", "x"]) == [0, 1, 0]


def test_text_and_image_link_rows_through_others():
    assert groups(["a", "a", "b", "c"], ["x", "y", "y", "z"]) == [0, 0, 0, 1]


def test_a_text_is_never_taken_for_an_image():
    assert groups(["same", "b"], ["x", "same"]) == [0, 1]


@pytest.mark.parametrize("near", [False, True])
def test_missing_texts_and_images_link_nothing(near):
    assert groups(["", "", None, None, "a"], [None] * 5, near) == [0, 1, 2, 3, 4]


def test_a_sibling_in_another_size_is_a_near_duplicate_and_another_product_is_not():
    body = (
        "Cold pressed from late harvest fruit and bottled within the day, for salads, bread and grilled fish. "
        "Keep it in a cool and dark place, and use it within six months of opening the bottle."
    )
    texts = [f"Olive Oil 500 ml. {body}", f"Olive Oil 750 ml. {body}", f"Green Tea 20 bags. {body[::-1]}"]
    assert groups(texts, near=False) == [0, 1, 2]
    assert groups(texts, near=True) == [0, 0, 1]


def test_case_and_punctuation_make_no_other_text_when_near():
    assert groups(["Fig Jam, 8 oz (pack of 2)", "FIG JAM - 8 OZ | PACK OF 2"], near=True) == [0, 0]


def test_texts_shorter_than_a_shingle_match_only_when_equal_in_words():
    assert groups(["fig jam", "Fig-Jam!", "fig", "jam", "!!!", "???"], near=True) == [0, 0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=0, max_size=9).map(" ".join), min_size=1, max_size=12)
)
def test_shingles_give_the_true_jaccard(texts):
    matrix = shingle_matrix(pa.array(texts)).toarray().astype(bool)
    for a, b in itertools.combinations(range(len(texts)), 2):
        both, either = (matrix[a] & matrix[b]).sum(), (matrix[a] | matrix[b]).sum()
        assert both / max(either, 1) == pytest.approx(jaccard(texts[a], texts[b]))


def test_near_groups_are_those_of_comparing_every_pair():
    random = np.random.default_rng(3)
    texts = set()
    while len(texts) < 240:
        text = [WORDS[i] for i in random.integers(len(WORDS), size=int(random.integers(12, 60)))]
        texts.add(" ".join(text))
        for _ in range(int(random.integers(0, 3))):  # a copy in which a few words differ
            copy = list(text)
            for place in random.integers(len(copy), size=int(random.integers(1, 4))):
                copy[place] = WORDS[int(random.integers(len(WORDS)))]
            texts.add(" ".join(copy))
    ordered = sorted(texts)
    true = [
        pair
        for pair in itertools.combinations(range(len(ordered)), 2)
        if jaccard(ordered[pair[0]], ordered[pair[1]]) >= NEAR_JACCARD
    ]
    assert len(true) > 20
    found = near_pairs(pa.array(ordered), NEAR_JACCARD)
    assert {tuple(sorted(pair)) for pair in found.tolist()} <= set(true)
    assert groups(ordered, near=True) == linked(len(ordered), true)
    half = len(ordered) // 2
    index = NearIndex.of(pa.array(ordered[::2]))
    known = {a // 2 for a, b in true if a % 2 and not b % 2} | {
        b // 2 for a, b in true if b % 2 and not a % 2
    }
    near = index.has_near(pa.array(ordered[1::2]), NEAR_JACCARD)
    assert set(np.flatnonzero(near).tolist()) == known
    assert 10 < len(known) < half - 10


def test_thousands_of_texts_of_one_template_are_grouped_without_comparing_every_pair():
    body = " ".join(f"{word} {i}" for i, word in enumerate(WORDS * 3))
    assert set(groups([f"{body} number {i}" for i in range(4000)], near=True)) == {0}


@given(st.lists(st.integers(0, 6), max_size=30))
def test_groups_are_numbered_by_their_first_row(labels):
    found = first_seen(np.array(labels, int)).tolist()
    assert [g for i, g in enumerate(found) if g not in found[:i]] == list(range(len(set(labels))))
    assert len(set(zip(labels, found, strict=True))) == len(set(labels))
