"""Numbers of a column that are no measure of anything, such as 1e39, or 99999 among ages: clipped, or missing."""

import numpy as np

GREATEST = float(np.finfo(np.float32).max)  # models compute with single precision
REACH = 4.0  # robust standard deviations, of the logarithm
MOST_APART = 3  # distinct values that may stand for `unknown`
LEAST_BESIDE = 10  # distinct values beside them, that tell how far values of the column are from one another


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


def set_apart(logs: np.ndarray, n_train: int) -> tuple[np.ndarray, int]:
    """A column of logarithms without values that stand for something else, such as 99999 or -1e9, which become missing.

    Those are at most 3 distinct values, each further from all others than those from one another. The first `n_train` rows decide; where they hold few distinct values, none is set apart.

    Args:
        logs: of `signed_log`, shape (n_rows,), NaN where missing.

    Returns:
        The column, untouched where no value is set apart, and how many were.
    """
    levels = np.unique(logs[:n_train][np.isfinite(logs[:n_train])])
    for count in range(min(MOST_APART, len(levels) - LEAST_BESIDE), 0, -1):
        for n_low in range(count + 1):
            others = levels[n_low : len(levels) - count + n_low]
            spread = others[-1] - others[0]
            apart = (logs < others[0] - spread) | (logs > others[-1] + spread)
            if len(np.unique(logs[:n_train][apart[:n_train]])) == count:
                return np.where(apart, np.nan, logs), int(apart.sum())
    return logs, 0


def apart_note(column: str, count: int, n_rows: int) -> str:
    """What is said of a column of which values were set apart."""
    return (
        f"{column}: {count} of {n_rows} values lie further from the others than those from one another: "
        "taken as missing"
    )
