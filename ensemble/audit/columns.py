"""Checks further columns for leaks: the price, prices of other rows, a mark of the row, statistics of the test set."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ensemble.audit.check import Check
from store.catalog.clean.duplicates import codes
from store.catalog.read import extra_columns, present_splits, read_split
from store.workspace import Workspace

LEAST_ROWS = 30  # with a value in the column
SAME_ORDER = 0.995  # rank correlation with the price from which on a column is the price
LEAST_GROUPS = 5  # categories
SAME_MEANS = 0.8  # correlation of a column with mean prices of categories
WITHIN_NOISE = (
    0.75  # distance from those means, in their own standard errors: means of other rows are sqrt(2) off
)
CENTRED = 2e-3  # mean and standard deviation less 1 of a column that was scaled by its own rows


def check_columns(workspace: Workspace) -> Check:
    """Each further column: is it the price, a mean of prices, a mark of the row, or scaled by test rows?"""
    rows = read_split(workspace, "train").combine_chunks()
    test = read_split(workspace, "test").combine_chunks() if "test" in present_splits(workspace) else None
    numeric, categorical = extra_columns(rows.schema)
    if not numeric and not categorical:
        return Check("columns", "skipped", "The catalogue has no further columns.")
    price = rows["price"].to_numpy()
    labels = {_plain(name): codes(rows[name])[0] for name in categorical}
    said = [*_marks_of_rows(labels)]
    for name in numeric:
        values = _numbers(rows, name)
        found = (
            _the_price(_plain(name), values, price)
            or _mean_price(_plain(name), values, price, labels)
            or _row_hash(_plain(name), values, price)
            or _scaled(_plain(name), values, None if test is None else _numbers(test, name))
        )
        if found:
            said.append(found)
    figures = {"n_columns": len(numeric) + len(categorical), "kinds": {name: kind for kind, name, _ in said}}
    if not said:
        return Check(
            "columns", "ok", "No further column reveals the price, the row or the test set.", figures
        )
    fails = any(kind in ("price", "mean price") for kind, _, _ in said)
    words = " ".join(words for _, _, words in said)
    advice = "Leave such a column out of the file that is ingested, or compute it from training rows inside each fold."
    return Check("columns", "fail" if fails else "caution", f"{words} {advice}", figures)


Finding = tuple[str, str, str]  # kind, column, words


def _the_price(name: str, values: np.ndarray, price: np.ndarray) -> Finding | None:
    known = np.isfinite(values)
    if known.sum() < LEAST_ROWS:
        return None
    order = _rank_correlation(values[known], price[known])
    if abs(order) < SAME_ORDER:
        return None
    positive = known & (values > 0)
    ratio = values[positive] / price[positive]
    steady = order > 0 and len(ratio) > 0 and np.std(np.log(ratio)) < 0.05
    how = (
        f"about {np.median(ratio):.4g} times the price, as in another currency"
        if steady
        else f"in the {'' if order > 0 else 'reverse '}order of the price"
    )
    return "price", name, f"Column {name!r} is the price itself: {how}."


def _mean_price(
    name: str, values: np.ndarray, price: np.ndarray, labels: dict[str, np.ndarray]
) -> Finding | None:
    """Whether a column is the mean price of each category, the row's own price among them."""
    for category, label in labels.items():
        here = np.isfinite(values) & (label >= 0)
        _, group = np.unique(label[here], return_inverse=True)
        count = np.bincount(group)
        often = count >= 2
        if here.sum() < LEAST_ROWS or often.sum() < LEAST_GROUPS or len(count) > here.sum() / 2:
            continue
        low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
        np.minimum.at(low, group, values[here])
        np.maximum.at(high, group, values[here])
        if (high - low > 1e-6 * np.maximum(np.abs(high), 1e-12)).any():
            continue
        for target in (price[here], np.log(price[here])):
            for coded in (low, np.log(np.maximum(low, 1e-300))):
                mean = np.bincount(group, target) / count
                spread = np.maximum(np.bincount(group, target**2) / count - mean**2, 0)
                if _are_means(coded[often], mean[often], (spread / np.maximum(count - 1, 1))[often]):
                    return (
                        "mean price",
                        name,
                        f"Column {name!r} is the mean price of each {category!r}, taken with the row's own price and those "
                        "of held-out rows.",
                    )
    return None


def _are_means(coded: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> bool:
    """Whether values of categories are nearer to mean prices of these rows than means of other rows would be."""
    off = (coded - mean) ** 2
    return bool(np.ptp(coded) > 0) and bool(
        off.sum() <= WITHIN_NOISE**2 * variance.sum() + 1e-12 * (mean**2).sum()
    )


def _marks_of_rows(labels: dict[str, np.ndarray]) -> Iterator[Finding]:
    for name, label in labels.items():
        present = label[label >= 0]
        if len(present) >= LEAST_ROWS and len(np.unique(present)) == len(present):
            yield "row", name, _mark(name)


def _row_hash(name: str, values: np.ndarray, price: np.ndarray) -> Finding | None:
    present = np.isfinite(values)
    whole = values[present]
    is_mark = (
        len(whole) >= LEAST_ROWS
        and (whole == np.round(whole)).all()
        and len(np.unique(whole)) == len(whole)
        and np.ptp(whole) > 100 * len(whole)
        and abs(_rank_correlation(whole, price[present])) < 3 / np.sqrt(len(whole))
    )
    return ("row", name, _mark(name)) if is_mark else None


def _mark(name: str) -> str:
    return f"Column {name!r} is another in every row, such as a hash: it marks rows and says nothing of new ones."


def _scaled(name: str, values: np.ndarray, test: np.ndarray | None) -> Finding | None:
    if test is None:
        return None
    train, test = values[np.isfinite(values)], test[np.isfinite(test)]
    if min(len(train), len(test)) < LEAST_ROWS:
        return None
    each = _is_standard(train) and _is_standard(test)
    if not each and (_is_standard(train) or not _is_standard(np.concatenate([train, test]))):
        return None
    how = "train and test each by their own rows" if each else "train and test rows together"
    return "test statistics", name, f"Column {name!r} was scaled with statistics of test rows ({how})."


def _is_standard(values: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(abs(values.mean()) < CENTRED and abs(values.std() - 1) < CENTRED)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    if name not in rows.column_names:
        return np.full(len(rows), np.nan)
    return np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _plain(name: str) -> str:
    return name.partition(":")[2] or name
