import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import WorkspaceError
from store.vectors.keys import KeyBuffer, KeyedRows, among, contains, key_array, sorting, union, without
from store.vectors.ondisk import Spool

# few bytes, so that keys often share their first eight
KEYS = st.lists(
    st.tuples(st.sampled_from([b"a" * 8, b"b" * 8, b"\0" * 8]), st.binary(min_size=8, max_size=8)).map(
        b"".join
    ),
    max_size=40,
)


def array_of(keys):
    return key_array(pa.array(keys, pa.binary(16)))


@pytest.fixture(scope="module")
def run_keys(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.vectors.keys.RUN_KEYS", request.param)
        yield request.param


def gathered(keys):
    buffer = KeyBuffer()
    for i in range(0, len(keys), 3):
        buffer.add(pa.array([*keys[i : i + 3], None], pa.binary(16)))
    assert len(buffer) == len(keys)
    return buffer


RUN_KEYS = pytest.mark.parametrize("run_keys", [4, 2**20], indirect=True, ids=["files", "memory"])


@RUN_KEYS
@settings(deadline=None)
@given(KEYS)
def test_counts_tell_how_often_each_key_was_added(run_keys, keys):
    found, counts = gathered(keys).counted()
    expected, times = np.unique(array_of(keys), return_counts=True)
    assert found.tolist() == expected.tolist()
    assert (np.ones(len(found)) if counts is None else counts).tolist() == times.tolist()


@settings(deadline=None)
@given(KEYS)
def test_sorting_sorts_keys_that_share_their_first_bytes_too(keys):
    held = array_of(keys)
    assert held[sorting(held)].tolist() == np.sort(held).tolist()


@RUN_KEYS
@settings(deadline=None)
@given(KEYS, KEYS)
def test_sets_of_keys_behave_as_sets(run_keys, some, others):
    a, b = gathered(some).distinct(), gathered(others).distinct()
    assert union([a, b]).tolist() == np.unique(np.concatenate([a, b])).tolist()
    assert without(a, b).tolist() == [key for key in a.tolist() if key not in set(b.tolist())]
    assert contains(b, a).tolist() == [key in set(b.tolist()) for key in a.tolist()]


def test_many_keys_take_no_memory_of_their_own(monkeypatch):
    monkeypatch.setattr("store.vectors.keys.RUN_KEYS", 1000)
    keys = np.random.default_rng(0).bytes(16 * 5000)
    buffer = KeyBuffer()
    buffer.add(array_of([keys[at : at + 16] for at in range(0, len(keys), 16)]))
    found = buffer.distinct()
    assert isinstance(found, np.memmap)
    assert isinstance(union([found[::2], found[1::2]]), np.memmap)
    assert bool((found[1:] > found[:-1]).all())


def test_a_full_disk_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(WorkspaceError, match=r"no space left to write .*TMPDIR"):
        Spool(np.dtype(np.int32)).add(np.arange(9))


@settings(deadline=None)
@given(KEYS)
def test_among_a_null_is_no_key(keys):
    some = gathered(keys[::2]).distinct()
    expected = [key in set(keys[::2]) for key in keys]
    assert among(some, pa.array([*keys, None], pa.binary(16))).tolist() == [*expected, False]


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
