"""Numbers of a column that are no measure of anything, such as 1e39 or -1e300: clipped by the column's own spread."""

import numpy as np

GREATEST = float(np.finfo(np.float32).max)  # models compute with single precision
REACH = 4.0  # robust standard deviations, of the logarithm


def signed_log(values: np.ndarray) -> np.ndarray:
    """Logarithm of 1 + the size, with the sign."""
    return np.sign(values) * np.log1p(np.abs(values))


Spread = tuple[float, float]  # middle and reach of a column's usual values, as signed logarithms


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
    n_extreme = int((np.abs(values) > GREATEST).sum())
    return (clip_to(values, usual_spread(values[:n_train])) if n_extreme else values), n_extreme


def usual_spread(values: np.ndarray) -> Spread | None:
    """Where the usual values of training rows lie; None where there are none."""
    usual = values[np.abs(values) <= GREATEST]
    if not len(usual):
        return None
    logs = signed_log(usual)
    middle = float(np.median(logs))
    return middle, REACH * max(1.4826 * float(np.median(np.abs(logs - middle))), 1e-3)


def clip_to(values: np.ndarray, spread: Spread | None) -> np.ndarray:
    """Values beyond single precision brought to the end of a spread; missing where there is none."""
    extreme = np.abs(values) > GREATEST
    clipped = values.copy()
    clipped[extreme] = np.nan
    if spread is not None:
        middle, reach = spread
        ends = middle + np.sign(values[extreme]) * reach
        clipped[extreme] = np.sign(ends) * np.expm1(np.minimum(np.abs(ends), np.log(GREATEST)))
    return clipped


def extremes_note(column: str, count: int, n_rows: int) -> str:
    """What is said of a column whose values were clipped."""
    return f"{column}: {count} of {n_rows} values lie beyond {GREATEST:.1e} and are clipped to the spread of the others"
