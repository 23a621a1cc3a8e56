import numpy as np
import pytest

from store.errors import RowMismatchError
from store.metric import smape


def test_smape_is_on_the_scale_of_the_challenge():
    assert smape(np.array([100.0]), np.array([120.0])) == pytest.approx(18.181818)


def test_smape_never_overflows_and_never_passes_200():
    assert smape(np.array([1e-300]), np.array([1e300])) == pytest.approx(200.0)


def test_rows_that_do_not_match_are_an_error_showing_both_shapes():
    with pytest.raises(RowMismatchError, match=r"\(2,\) and \(3,\)"):
        smape(np.ones(2), np.ones(3))
