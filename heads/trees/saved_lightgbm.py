"""LightGBM's trees from their text, priced by its library without its Python package.

To import the package imports scikit-learn, SciPy's statistics and pandas with it, which takes longer than to load all
the rest of a model. Everything but a plain prediction is done by the package, which is imported then.
"""

import ctypes
import os
import sys
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY_NAMES = ("lib_lightgbm.so", "lib_lightgbm.dylib", "lib_lightgbm.dll")
LIBRARY_FOLDERS = ("lib", "bin", ".")  # of the package
# LightGBM's own numbers (`LightGBM/c_api.h`).
FLOAT32, FLOAT64, BY_ROWS, PRICES = 0, 1, 1, 0


class SavedTrees:
    """A booster that predicts as `lightgbm.Booster` does."""

    def __init__(self, text: str) -> None:
        """Args:
        text: what `lightgbm.Booster.model_to_string` gave.

        Raises:
            ValueError: it is no model.
        """
        self.text = text
        self._handle = ctypes.c_void_p()
        library, trees = _library(), ctypes.c_int()
        if library is None:
            _ = self._full
            return
        content = ctypes.c_char_p(text.encode())
        made = library.LGBM_BoosterLoadModelFromString(
            content, ctypes.byref(trees), ctypes.byref(self._handle)
        )
        if made:
            raise ValueError(_last_error(library))

    def __del__(self) -> None:
        if (library := _library()) is not None and getattr(self, "_handle", None):
            library.LGBM_BoosterFree(self._handle)

    def __reduce__(self) -> tuple[type["SavedTrees"], tuple[str]]:
        return type(self), (self.text,)

    def model_to_string(self) -> str:
        """The text it was made of."""
        return self.text

    def predict(self, X: np.ndarray, *, num_threads: int = 0, pred_contrib: bool = False) -> np.ndarray:
        """Prediction of each row, shape (n_rows,); with `pred_contrib` as `lightgbm.Booster.predict`."""
        library = _library()
        if library is None or pred_contrib:
            found = self._full.predict(X, num_threads=num_threads, pred_contrib=pred_contrib)
            return np.asarray(found)
        kind = FLOAT32 if X.dtype == np.float32 else FLOAT64
        X = np.ascontiguousarray(X, np.float32 if kind == FLOAT32 else np.float64)
        out, length = np.empty(len(X)), ctypes.c_int64()
        if not len(X):
            return out
        failed = library.LGBM_BoosterPredictForMat(
            self._handle,
            X.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int(kind),
            ctypes.c_int32(X.shape[0]),
            ctypes.c_int32(X.shape[1]),
            ctypes.c_int(BY_ROWS),
            ctypes.c_int(PRICES),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_char_p(f"num_threads={num_threads}".encode()),
            ctypes.byref(length),
            out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        )
        if failed:
            raise ValueError(_last_error(library))
        return out

    @cached_property
    def _full(self) -> Any:
        """The same trees in LightGBM's own class."""
        import lightgbm

        try:
            return lightgbm.Booster(model_str=self.text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error)) from error


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _unheard(message: bytes) -> None:
    """What LightGBM writes to the terminal; its errors are raised."""


@cache
def _library() -> ctypes.CDLL | None:
    """LightGBM's library; None: it is not where it is known to lie, and its package is asked."""
    spec = find_spec("lightgbm")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    places = [folder / of / name for of in LIBRARY_FOLDERS for name in LIBRARY_NAMES]
    for place in places:
        if place.is_file():
            try:
                library = ctypes.cdll.LoadLibrary(os.fspath(place))
            except OSError:
                return None
            library.LGBM_GetLastError.restype = ctypes.c_char_p
            if "lightgbm" not in sys.modules:  # which says where its messages go
                library.LGBM_RegisterLogCallback(_unheard)
            return library
    return None


def _last_error(library: ctypes.CDLL) -> str:
    return str(library.LGBM_GetLastError().decode(errors="replace"))
