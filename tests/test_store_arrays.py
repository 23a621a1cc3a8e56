"""NumPy archives of others: read as NumPy reads them, or refused by name."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_arrays

from store.arrays import arrays_of, read_arrays
from store.errors import CorruptFileError

KINDS = st.sampled_from([np.float16, np.float64, np.int64, np.uint8, np.bool_, "<U3", "S2", ">i4"])


@given(st.lists(KINDS.flatmap(lambda kind: st_arrays.arrays(kind, st_arrays.array_shapes(min_dims=0, min_side=0))), max_size=3), st.booleans())  # fmt: skip
def test_what_numpy_wrote_is_read_as_numpy_reads_it(arrays, is_small):
    out = io.BytesIO()
    (np.savez_compressed if is_small else np.savez)(out, **{f"a{at}": one for at, one in enumerate(arrays)})
    found = arrays_of(out, "x.npz")
    assert list(found) == [f"a{at}" for at in range(len(arrays))]
    for one, other in zip(found.values(), arrays, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def zipped(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("a.npy", content)
    return out.getvalue()


def array(value: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """An array as NumPy writes it, with another shape in its header."""
    out = io.BytesIO()
    np.save(out, value)
    if shape is None:
        return out.getvalue()
    header = io.BytesIO()
    stated = {"descr": value.dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, stated)
    return header.getvalue() + value.tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        zipped(b""),
        zipped(b"no array"),
        zipped(array(np.ones(3))[:-1]),
        zipped(array(np.ones(3), (200_000_000_000,))),
        zipped(array(np.ones(3), (2**62, 2**62))),
        zipped(array(np.array([{"a": 1}], object))),
        zipped(array(np.ones(2, complex))),
        zipped(array(np.zeros(2, [("x", "i4")]))),
        zipped(array(np.zeros(2**25)), zipfile.ZIP_DEFLATED),
        zipped(array(np.ones(30)))[:-40],
    ],
)
def test_what_is_no_archive_of_arrays_as_long_as_they_state_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"x\.npz is not what shelfprice wrote \("):
        read_arrays(tmp_path / "x.npz")
