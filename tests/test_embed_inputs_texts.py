import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embed.encoders.base import Tokens
from embed.inputs.batch import BatchLimit, RowWindow
from embed.inputs.texts import TextPreparer, plan_batches

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
