import subprocess
import sys

import numpy as np
import pytest
from scipy.linalg import cho_solve
from threadpoolctl import ThreadpoolController

from heads.folds.crossfit import crossfit
from heads.folds.parallel import each_on_a_core, n_cores
from heads.linear import path
from heads.linear.lapack import Tridiagonal, cholesky
from heads.linear.layout import ColumnLayout
from heads.linear.ridge import Ridge
from heads.testing import folds_of, make_rows


def positive(n, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, n + 5))
    return X @ X.T


@pytest.mark.parametrize("n", [2, 3, 70, 150])
def test_a_matrix_is_taken_apart_and_put_together_again(n):
    A = positive(n)
    parts = Tridiagonal(A.copy())
    T = np.diag(parts.diagonal) + np.diag(parts.beside, 1) + np.diag(parts.beside, -1)
    np.testing.assert_allclose(parts.rotate_back(parts.rotate_back(T).T), A, atol=1e-9 * n)
    np.testing.assert_allclose(parts.rotate(parts.rotate_back(np.eye(n))), np.eye(n), atol=1e-12 * n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_factor_is_what_cho_solve_takes(dtype):
    A, b = (positive(90) + 90 * np.eye(90)).astype(dtype), np.arange(90).astype(dtype)
    factor = A.copy()
    assert cholesky(factor)
    np.testing.assert_allclose(
        A @ cho_solve((factor.T, True), b), b, atol=1e-2 if dtype == "float32" else 1e-8
    )


def test_a_matrix_that_is_not_positive_definite_is_told():
    assert not cholesky(np.diag([1.0, -1.0, 2.0]))


def test_items_come_back_in_order_each_having_seen_one_core():
    assert each_on_a_core(lambda i: (i, n_cores(), n_cores(3)), range(5), cores=3) == [
        (i, 1, 1) for i in range(5)
    ]
    assert n_cores(3) == 3


def test_the_first_error_of_an_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        each_on_a_core(lambda i: 1 // i, [1, 0, 2], cores=2)


def test_one_core_is_taken_for_a_while_alone():
    program = """
import numpy
from threadpoolctl import ThreadpoolController, threadpool_limits
from heads.folds.parallel import n_cores, on_one_core

libraries = ThreadpoolController()

def threads():
    return {one["num_threads"] for one in libraries.info() if one["user_api"] == "blas"}, n_cores(5)

threadpool_limits(3)
try:
    with on_one_core(libraries), on_one_core(libraries):
        assert threads() == ({1}, 1), threads()
        raise KeyError
except KeyError:
    assert threads() == ({3}, 5), threads()
"""  # alone: a thread of another test may hold the limit of BLAS
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_core_taken_by_threads_at_once_is_given_back():
    program = """
import threading
import numpy
from threadpoolctl import ThreadpoolController, threadpool_limits
from heads.folds.parallel import on_one_core

libraries = ThreadpoolController()
is_in, others_in, is_out = threading.Event(), threading.Event(), threading.Event()

def threads():
    return {one["num_threads"] for one in libraries.info() if one["user_api"] == "blas"}

def first():
    with on_one_core(libraries):
        assert threads() == {1}, threads()
        is_in.set()
        assert others_in.wait(60)
    is_out.set()

def second():
    assert is_in.wait(60)
    with on_one_core(libraries):
        others_in.set()
        assert is_out.wait(60)

setting = threading.Thread(target=threadpool_limits, args=(3,))  # a thread that ends, and leaves the limit to others
both = [threading.Thread(target=one) for one in (first, second)]
for one in (setting, *both):
    one.start()
    if one is setting:
        one.join()
for one in both:
    one.join()
assert is_out.is_set()
assert threads() == {3}, threads()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ridge_keeps_one_core_a_product_so_that_two_runs_do_not_fight(monkeypatch):
    rows, log_price = make_rows(600)
    libraries, seen, raw = ThreadpoolController(), set[int](), ColumnLayout.raw

    def watched(*arguments):
        seen.update(one["num_threads"] for one in libraries.info() if one["user_api"] == "blas")
        return raw(*arguments)

    monkeypatch.setattr(ColumnLayout, "raw", watched)
    monkeypatch.setattr(path, "BLOCK_ROWS", 64)
    with libraries.limit(limits=2):
        crossfit(Ridge(), rows, log_price, folds_of(rows), rows)
    assert seen == {1}
