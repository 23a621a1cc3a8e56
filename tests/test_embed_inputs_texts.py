import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embed.encoders.base import Item, Tokens
from embed.inputs import tokenizer
from embed.inputs.batch import BatchLimit, RowWindow
from embed.inputs.items import stacked
from embed.inputs.texts import TextPreparer, plan_batches
from embed.inputs.tokenizer import FastTokenizer
from tests.fake_models import save_tiny_tokenizer

TEXTS = st.lists(st.tuples(st.integers(1, 512), st.integers(1, 4)), max_size=80)


@given(TEXTS, st.integers(1, 4096))
def test_every_text_is_in_exactly_one_batch(texts, budget):
    lengths, counts = np.array(texts, dtype=int).reshape(-1, 2).T
    batches = plan_batches(lengths, counts, budget)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(texts)))


@given(TEXTS, st.integers(1, 4096))
def test_a_batch_stays_within_the_budget_unless_one_text_alone_exceeds_it(texts, budget):
    lengths, counts = np.array(texts, dtype=int).reshape(-1, 2).T
    for rows in plan_batches(lengths, counts, budget):
        assert len(rows) == 1 or lengths[rows].max() * counts[rows].sum() <= budget


@given(TEXTS, st.integers(1, 4096))
def test_the_longest_come_first_so_that_memory_peaks_at_the_start(texts, budget):
    lengths, counts = np.array(texts, dtype=int).reshape(-1, 2).T
    in_order = [int(lengths[row]) for rows in plan_batches(lengths, counts, budget) for row in rows]
    assert in_order == sorted(in_order, reverse=True)


@given(TEXTS, st.integers(1, 4096))
def test_no_batch_could_take_the_next_ones_first_text_as_well(texts, budget):
    lengths, counts = np.array(texts, dtype=int).reshape(-1, 2).T
    batches = plan_batches(lengths, counts, budget)
    for rows, following in itertools.pairwise(batches):
        assert lengths[rows].max() * (counts[rows].sum() + counts[following[0]]) > budget


def characters(texts):
    """A tokenizer of one token a character, cut at 4; longer texts own several sequences."""
    parts = [[text[i : i + 4] for i in range(0, len(text), 4)] for text in texts]
    owner = [row for row, chunks in enumerate(parts) for _ in chunks]
    sequences = [np.frombuffer(c.encode(), np.uint8).astype(np.int32) for chunks in parts for c in chunks]
    return Tokens(sequences, np.array(owner), 0)


@given(st.lists(st.text("abc", min_size=1, max_size=11), min_size=1, max_size=20, unique=True))
def test_each_key_keeps_its_own_tokens_through_sorting_padding_and_chunks(texts):
    window = RowWindow("fake@name", [text.encode() for text in texts], texts)
    preparer = TextPreparer(characters, pad_id=0, limit=BatchLimit(16))
    found = {}
    for batch in preparer.batches(iter([window])):
        ids, mask = batch.arrays
        assert ((ids != 0) == (mask == 1)).all()
        owner = batch.owner if batch.owner is not None else range(len(batch.keys))
        for row, sequence in zip(owner, ids, strict=True):
            text = bytes(sequence[sequence != 0].astype(np.uint8).tolist())
            found[batch.keys[row]] = found.get(batch.keys[row], b"") + text
    assert found == {text.encode(): text.encode() for text in texts}


def letters(texts):
    """A tokenizer of one token a character."""
    sequences = [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]
    return Tokens(sequences, np.arange(len(texts)), 0)


@pytest.mark.parametrize("max_tokens, width", [(128, 34), (33, 33), (0, 33)])
def test_batches_avoid_the_length_that_attention_on_cuda_gets_wrong_where_the_model_takes_more(
    max_tokens, width
):
    texts = ["a" * 33, "b" * 12, "c" * 33]
    window = RowWindow("fake@name", [text.encode() for text in texts], texts)
    preparer = TextPreparer(letters, 0, BatchLimit(3 * width), max_tokens)
    (batch,) = preparer.batches(iter([window]))
    ids, mask = batch.arrays
    assert ids.shape == mask.shape == (3, width)
    for row, (sequence, is_token) in enumerate(zip(ids, mask == 1, strict=True)):
        assert bytes(sequence[is_token].astype(np.uint8)) == batch.keys[row]
        assert not sequence[~is_token].any()
    preparer.limit.units -= 1  # the one more is counted
    assert [len(batch.keys) for batch in preparer.batches(iter([window]))] == [2, 1]


def test_rows_of_images_and_texts_avoid_it_and_their_patches_stay_as_many():
    tokens, patches = np.arange(1, 34), np.ones((33, 2))
    items = [Item((tokens, patches[:9]), False), Item((tokens[:5], patches[:0]), False)]
    ids, found, lengths = stacked(items, (0, 0), max_tokens=128)
    assert ids.shape == (2, 34)
    assert found.shape == (2, 9, 2)
    assert lengths.tolist() == [[33, 9], [5, 0]]
    assert stacked(items, (0, 0), max_tokens=33)[0].shape == (2, 33)


@pytest.mark.parametrize(
    "text", ["(" * 300_000, "red shirt " * 30_000, "x" * 300_000], ids=["signs", "words", "one word"]
)
@pytest.mark.parametrize("long", ["truncate", "chunks"])
def test_a_text_of_any_length_gives_the_tokens_that_it_gives_uncut(tmp_path, monkeypatch, text, long):
    backend = Tokenizer.from_file(str(save_tiny_tokenizer(tmp_path) / "tokenizer.json"))
    bounded = FastTokenizer(backend, 16, long)
    monkeypatch.setattr("embed.inputs.tokenizer.MOST_CHUNKS", 3)
    kept = bounded([text, "red shirt"])
    seen = []
    monkeypatch.setattr(FastTokenizer, "shortened", lambda self, text: seen.append(len(text)) or text)
    whole = FastTokenizer(backend, 16, long)([text, "red shirt"])
    assert [s.tolist() for s in kept.sequences] == [s.tolist() for s in whole.sequences]
    assert (kept.owner.tolist(), kept.n_truncated) == (whole.owner.tolist(), whole.n_truncated)
    assert seen == [len(text), 9]


def test_a_cell_of_megabytes_reaches_the_tokenizer_as_kilobytes(tmp_path, monkeypatch):
    fast = FastTokenizer(Tokenizer.from_file(str(save_tiny_tokenizer(tmp_path) / "tokenizer.json")), 16)
    assert len(fast.shortened("(" * 5_000_000)) < 10_000
    assert len(fast.shortened(" " * 5_000_000)) == 1_000_000
    assert fast.shortened("red shirt") == "red shirt"


@pytest.mark.parametrize("asked", [None, "false"])
def test_texts_are_tokenised_on_every_core_whatever_open_clip_set_unless_the_user_did(
    asked, tmp_path, monkeypatch
):
    monkeypatch.setenv(tokenizer.PARALLELISM, "false")
    monkeypatch.setattr(tokenizer, "ASKED", asked)
    fast = FastTokenizer(Tokenizer.from_file(str(save_tiny_tokenizer(tmp_path) / "tokenizer.json")), 16)
    fast(["red shirt"])
    assert os.environ.get(tokenizer.PARALLELISM) == asked


def test_many_texts_are_tokenised_ahead_in_order(tmp_path):
    fast = FastTokenizer(Tokenizer.from_file(str(save_tiny_tokenizer(tmp_path) / "tokenizer.json")), 16)
    texts = [f"red shirt {'of a kind ' * (at % 7)}" for at in range(3 * tokenizer.CHUNK_TEXTS + 5)]
    together = fast(texts)
    assert together.owner.tolist() == list(range(len(texts)))
    for at in (0, 255, 256, 500, len(texts) - 1):
        np.testing.assert_array_equal(together.sequences[at], fast([texts[at]]).sequences[0])
