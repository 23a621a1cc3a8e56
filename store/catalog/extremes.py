"""Numbers of a column that are no measurements: 1e39 is clipped, 99999 among ages becomes missing."""

import numpy as np

GREATEST = float(np.finfo(np.float32).max)  # models compute with single precision
REACH = 4.0  # robust standard deviations, of the logarithm
MOST_APART = 3  # distinct values that may stand for `unknown`
LEAST_BESIDE = 10  # distinct values beside them, that tell how far values of the column are from one another
LEAST_OF_FEW = 3  # distinct values where there are fewer, one of three of which may be apart …
FAR = 5.0  # … so many times as far from the others as those from one another


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


def usual_range(logs: np.ndarray) -> tuple[float, float] | None:
    """Beyond what values of training rows stand for something else, such as 99999 or -1e9.

    Those are at most 3 distinct values, each further from all others than those from one another; beside fewer than 10
    others, such as ratings of 1 to 5, five times as far.

    Args:
        logs: of `signed_log`, shape (n_rows,), NaN where missing.

    Returns:
        Lowest and highest usual value; None where no value is apart, or few distinct ones are there.
    """
    levels = np.unique(logs[np.isfinite(logs)])
    for count in range(min(MOST_APART, len(levels) - LEAST_OF_FEW), 0, -1):
        n_others = len(levels) - count
        if n_others < LEAST_BESIDE and count > n_others // 3:
            continue
        reach = 1.0 if n_others >= LEAST_BESIDE else FAR
        for n_low in range(count + 1):
            others = levels[n_low : len(levels) - count + n_low]
            spread = reach * (others[-1] - others[0])
            low, high = float(others[0] - spread), float(others[-1] + spread)
            if int(((levels < low) | (levels > high)).sum()) == count:
                return low, high
    return None


def within_range(logs: np.ndarray, usual: tuple[float, float] | None) -> tuple[np.ndarray, int]:
    """A column of logarithms without values beyond a range, which become missing, and how many those were."""
    if usual is None:
        return logs, 0
    apart = (logs < usual[0]) | (logs > usual[1])
    return (np.where(apart, np.nan, logs) if apart.any() else logs), int(apart.sum())


def apart_note(column: str, count: int, n_rows: int) -> str:
    """What is said of a column of which values were set apart."""
    return (
        f"{column}: {count} of {n_rows} values lie further from the others than those from one another: "
        "taken as missing"
    )
