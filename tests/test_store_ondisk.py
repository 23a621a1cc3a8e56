import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.vectors.ondisk import OnDisk

N, WIDTH = 40, 3


@pytest.fixture(scope="module", autouse=True)
def small_pages():
    """Two rows a page, and two pages mapped at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.vectors.ondisk.PAGE_BYTES", 2 * WIDTH * 4)
        patch.setattr("store.vectors.ondisk.MAPPED_PAGES", 2)
        yield


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    X = np.arange(N * WIDTH, dtype=np.float32).reshape(N, WIDTH)
    filed = OnDisk.zeros(tmp_path_factory.mktemp("ondisk"), "X", X.shape, X.dtype)
    filed[np.arange(N)[::-1]] = X[::-1]
    return X, filed


@settings(deadline=None)
@given(st.lists(st.integers(0, N - 1)), st.slices(N), st.integers(0, 2**N - 1))
def test_rows_of_a_file_are_read_as_those_of_an_array(both, positions, part, bits):
    X, filed = both
    at, mask = np.array(positions, int), np.array([bool(bits >> i & 1) for i in range(N)])
    for index in (at, part, mask):
        np.testing.assert_array_equal(filed[index], X[index])
    np.testing.assert_array_equal(filed.rows(mask)[:], X[mask])
    np.testing.assert_array_equal(
        filed.rows(at).rows(np.arange(len(at))[::-1]).astype(np.float64), X[at[::-1]]
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, N - 1)))
def test_however_rows_are_scattered_few_pages_are_mapped_at_once(both, positions):
    at = np.array(positions, int)
    parts = list(both[1]._parts(at))
    assert np.concatenate([at[:0], *(at[part] for part in parts)]).tolist() == positions
    assert all(len(np.unique(at[part] // 2)) <= 2 for part in parts)
