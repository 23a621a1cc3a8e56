"""Weights of rows: what each counts in fits, in scores and in the blend."""

import numpy as np
import pyarrow as pa

from store.schema import WEIGHT

TIMES = 2.0  # that a row of mean weight is repeated: the finer, the slower


def row_weights(table: pa.Table) -> np.ndarray | None:
    """Weights of the rows of a catalogue table; None where it has none, or see `relative_weights`."""
    if WEIGHT.name not in table.column_names:
        return None
    return relative_weights(table[WEIGHT.name].to_numpy())


def relative_weights(weight: np.ndarray | None) -> np.ndarray | None:
    """The weights divided by their mean, shape (n_rows,); None where all rows count alike."""
    if weight is None or np.ptp(weight) == 0:
        return None
    return np.asarray(weight / weight.mean())


def repetitions(weight: np.ndarray) -> np.ndarray:
    """How many times each row is taken where weights can't be used, int64, shape (n_rows,).

    In proportion to `weight`, > 0, and at least once, so that a row below half of the mean weight counts as much as one
    of half of it. Rounded so that rows above it are together off by less than one.
    """
    wanted = np.maximum(weight * (TIMES / weight.mean()), 1.0)
    return np.diff(np.floor(np.cumsum(wanted) + 0.5), prepend=0.0).astype(np.int64)


def weighted_median(values: np.ndarray, weight: np.ndarray | None) -> float:
    """The median, each value counting its weight, both of shape (n_values,); None: all alike."""
    if weight is None:
        return float(np.median(values))
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])
