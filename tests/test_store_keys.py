import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.vectors.keys import KeyBuffer, KeyedRows, contains, key_array, sorting, union, without

# few bytes, so that keys often share their first eight
KEYS = st.lists(
    st.tuples(st.sampled_from([b"a" * 8, b"b" * 8, b"\0" * 8]), st.binary(min_size=8, max_size=8)).map(
        b"".join
    ),
    max_size=40,
)


def array_of(keys):
    return key_array(pa.array(keys, pa.binary(16)))


def gathered(keys):
    buffer = KeyBuffer(capacity=1)
    for i in range(0, len(keys), 3):
        buffer.add(pa.array([*keys[i : i + 3], None], pa.binary(16)))
    return buffer.distinct()


@settings(deadline=None)
@given(KEYS)
def test_counts_tell_how_often_each_key_was_added(keys):
    buffer = KeyBuffer()
    buffer.add(array_of(keys))
    found, counts = buffer.counted()
    expected, times = np.unique(array_of(keys), return_counts=True)
    assert found.tolist() == expected.tolist()
    assert (np.ones(len(found)) if counts is None else counts).tolist() == times.tolist()


@settings(deadline=None)
@given(KEYS)
def test_sorting_sorts_keys_that_share_their_first_bytes_too(keys):
    held = array_of(keys)
    assert held[sorting(held)].tolist() == np.sort(held).tolist()


@settings(deadline=None)
@given(KEYS, KEYS)
def test_sets_of_keys_behave_as_sets(some, others):
    a, b = gathered(some), gathered(others)
    assert union([a, b]).tolist() == np.unique(np.concatenate([a, b])).tolist()
    assert without(a, b).tolist() == [key for key in a.tolist() if key not in set(b.tolist())]
    assert contains(b, a).tolist() == [key in set(b.tolist()) for key in a.tolist()]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 9))), st.sets(st.integers(0, 12)))
def test_keyed_rows_find_every_row_of_a_key_and_no_other(rows, asked):
    def key(i):
        return bytes([i]) * 16

    found = KeyedRows.of(pa.array([None if i is None else key(i) for i in rows], pa.binary(16)))
    keys = sorted(asked, reverse=True)
    at, source = found.holding(array_of([key(i) for i in keys]))
    expected = [(row, keys.index(i)) for row, i in enumerate(rows) if i in asked]
    assert list(zip(at.tolist(), source.tolist(), strict=True)) == expected


@pytest.mark.parametrize("n", [0, 1])
def test_no_keys_and_one_key_are_sets_too(n):
    assert len(union([array_of([b"x" * 16] * n)])) == n
