"""Weights of rows, for every head alike: a row is fitted on as many times as it counts."""

import numpy as np

TIMES = 2.0  # that a row of mean weight is fitted on: the finer, the slower


def repetitions(weight: np.ndarray) -> np.ndarray:
    """How many times each row is taken, int64, shape (n_rows,), in proportion to `weight`, > 0.

    Rounded so that the rows together, and any run of them, are off by less than one. A row is there at least once as
    long as its weight is half of the mean or more.
    """
    ends = np.cumsum(weight * (TIMES / weight.mean()))
    return np.diff(np.floor(ends + 0.5), prepend=0.0).astype(np.int64)
