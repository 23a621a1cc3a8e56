"""Numbers of a column that are no measure of anything, such as 1e39 or -1e300: clipped by the column's own spread."""

import numpy as np

GREATEST = float(np.finfo(np.float32).max)  # models compute with single precision
REACH = 4.0  # robust standard deviations, of the logarithm


def signed_log(values: np.ndarray) -> np.ndarray:
    """Logarithm of 1 + the size, with the sign."""
    return np.sign(values) * np.log1p(np.abs(values))


def clip_extremes(values: np.ndarray, n_train: int) -> tuple[np.ndarray, int]:
    """The column with values beyond single precision brought to where its other values could lie at most.

    That is 4 robust standard deviations (median absolute deviation) from the median, of the logarithm, over the
    training rows. Where those hold no other value, such a value is missing.

    Args:
        values: shape (n_rows,), NaN where missing, never infinite.
        n_train: the first so many rows are training rows.

    Returns:
        The column, untouched where it holds no such value, and how many it held.
    """
    extreme = np.abs(values) > GREATEST
    if not extreme.any():
        return values, 0
    usual = values[:n_train][~extreme[:n_train] & np.isfinite(values[:n_train])]
    clipped = values.copy()
    clipped[extreme] = np.nan
    if len(usual):
        logs = signed_log(usual)
        middle = np.median(logs)
        reach = REACH * max(1.4826 * float(np.median(np.abs(logs - middle))), 1e-3)
        ends = middle + np.sign(values[extreme]) * reach
        clipped[extreme] = np.sign(ends) * np.expm1(np.minimum(np.abs(ends), np.log(GREATEST)))
    return clipped, int(extreme.sum())


def extremes_note(column: str, count: int, n_rows: int) -> str:
    """What is said of a column whose values were clipped."""
    return f"{column}: {count} of {n_rows} values lie beyond {GREATEST:.1e} and are clipped to the spread of the others"
