"""LAPACK's routines for symmetric matrices, called so that other threads run meanwhile.

SciPy's wrappers hold the interpreter for as long as a routine takes, so that folds could not be solved side by
side. The routines are SciPy's own, by the addresses that it publishes for compiled code.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 64  # columns that a blocked routine takes at once


def cholesky(A: np.ndarray) -> bool:
    """Overwrite one triangle of a symmetric matrix by its factor, as `scipy.linalg.cho_solve` takes it.

    Args:
        A: shape (n, n), C-ordered, float32 or float64; read by its upper triangle. With `(A.T, True)` the
            factor goes to `cho_solve`.

    Returns:
        False where the matrix is not positive definite; it is spoiled then.
    """
    info = ctypes.c_int()
    _call(f"{_letter(A)}potrf", b"L", len(A), A, len(A), info)
    return info.value == 0


def invert(factor: np.ndarray) -> None:
    """Overwrite a factor of `cholesky` by the inverse of the matrix that it is of: the upper triangle alone."""
    info = ctypes.c_int()
    _call(f"{_letter(factor)}potri", b"L", len(factor), factor, len(factor), info)
    if info.value:
        raise np.linalg.LinAlgError(f"the factor is singular at {info.value}")


class Tridiagonal:
    """A symmetric matrix as Q T Q', T tridiagonal: about four Cholesky factorisations."""

    def __init__(self, A: np.ndarray) -> None:
        """Args:
        A: shape (n, n), n at least 2, C-ordered float64; overwritten and kept.
        """
        n = len(A)
        self._A, self._tau = A, np.empty(n - 1)
        self.diagonal, self.beside = np.empty(n), np.empty(n - 1)
        info, work = ctypes.c_int(), np.empty(BLOCK * n)
        _call("dsytrd", b"L", n, A, n, self.diagonal, self.beside, self._tau, work, len(work), info)
        assert info.value == 0

    def rotate(self, X: np.ndarray) -> np.ndarray:
        """Q'X, of shape (n, m)."""
        return self._applied(X, b"T")

    def rotate_back(self, X: np.ndarray) -> np.ndarray:
        """QX, of shape (n, m)."""
        return self._applied(X, b"N")

    def _applied(self, X: np.ndarray, transpose: bytes) -> np.ndarray:
        n, m = X.shape
        C = np.array(X, dtype=np.float64, order="F")
        info, work = ctypes.c_int(), np.empty(BLOCK * m + BLOCK * (BLOCK + 1))
        below = ctypes.c_void_p(self._A.ctypes.data + self._A.itemsize)  # Q leaves the first row as it is
        first = ctypes.c_void_p(C.ctypes.data + C.itemsize)
        _call(
            "dormqr", b"L", transpose, n - 1, m, n - 1, below, n, self._tau, first, n, work, len(work), info
        )
        assert info.value == 0
        return C


def _letter(A: np.ndarray) -> str:
    return {"float32": "s", "float64": "d"}[A.dtype.name]


def _call(name: str, *arguments: Any) -> None:
    """One routine, every argument by reference as Fortran wants it."""
    held, passed = [], []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous or argument.flags.f_contiguous
            passed.append(ctypes.c_void_p(argument.ctypes.data))
        elif isinstance(argument, ctypes.c_void_p):
            passed.append(argument)
        else:
            if isinstance(argument, bytes):
                argument = ctypes.create_string_buffer(argument)
            elif isinstance(argument, int):
                argument = ctypes.c_int(argument)
            held.append(argument)
            passed.append(ctypes.cast(ctypes.byref(argument), ctypes.c_void_p))
    _routine(name, len(passed))(*passed)


@functools.cache
def _routine(name: str, n_arguments: int) -> Callable[..., None]:
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[name]
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = address_of(capsule, name_of(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address)
