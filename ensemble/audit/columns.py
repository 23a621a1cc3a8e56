"""Checks further columns for leaks: the price, prices of other rows, a mark of the row, statistics of the test set."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ensemble.audit.check import Check
from ensemble.audit.target_means import LEAST_ROWS, follows_noise, is_in_price_unit, is_mean_of_others
from heads.features.fields import field_table
from store.catalog.clean.duplicates import codes
from store.catalog.read import extra_columns, present_splits, read_split
from store.workspace import Workspace

SAME_ORDER = 0.995  # rank correlation with the price from which on a column is the price
CENTRED = 2e-3  # mean and standard deviation less 1 of a column that was scaled by its own rows
LEAST_SCALED = 5  # rows of a split that was scaled
MEASURED_DECIMALS = 6  # of numbers that were measured; hashes have more


def check_columns(workspace: Workspace, seed: int, max_rows: int) -> Check:
    """Each further column: is it the price, made of prices, a mark of the row, or scaled by test rows?

    Args:
        max_rows: numbers that heads read out of words are looked at in so many rows.
    """
    rows = read_split(workspace, "train").combine_chunks()
    test = read_split(workspace, "test").combine_chunks() if "test" in present_splits(workspace) else None
    numeric, categorical = extra_columns(rows.schema)
    price = rows["price"].to_numpy()
    values = {_plain(name): _numbers(rows, name) for name in numeric}
    labels = {_plain(name): codes(rows[name])[0] for name in categorical}
    said = [*_marks_of_rows(labels), *_prices_in_words(rows, seed, max_rows)]
    labels |= {name: level for name, one in values.items() if (level := _levels(one)) is not None}
    for name, column in zip(numeric, values, strict=True):
        others = {label: codes_ for label, codes_ in labels.items() if label != column}
        found = (
            _the_price(column, values[column], price)
            or _made_of_prices(column, values[column], price, others)
            or _row_hash(column, values[column], price)
            or _scaled(column, values[column], None if test is None else _numbers(test, name))
        )
        if found:
            said.append(found)
    figures = {"n_columns": len(numeric) + len(categorical), "kinds": {name: kind for kind, name, _ in said}}
    if not said:
        if not numeric and not categorical:
            return Check("columns", "skipped", "The catalogue has no further columns.")
        return Check(
            "columns", "ok", "No further column reveals the price, the row or the test set.", figures
        )
    fails = any(kind in ("price", "mean price") for kind, _, _ in said)
    words = " ".join(words for _, _, words in said)
    advice = (
        "Ingest without such a column (--leave-out NAME), or compute it from training rows inside each fold."
    )
    return Check("columns", "fail" if fails else "caution", f"{words} {advice}", figures)


Finding = tuple[str, str, str]  # kind, column, words


def _the_price(name: str, values: np.ndarray, price: np.ndarray, what: str | None = None) -> Finding | None:
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
    return "price", name, f"{what or f'Column {name!r}'} is the price itself: {how}."


def _prices_in_words(rows: pa.Table, seed: int, max_rows: int) -> Iterator[Finding]:
    """Numbers that heads read out of texts and out of columns of words, where those are the price."""
    numeric, _ = extra_columns(rows.schema)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:max_rows]
    table, price = field_table(rows.take(chosen)), rows["price"].to_numpy()[chosen]
    known = set(numeric)
    for name, logs in zip(table.names, table.X.T, strict=True):
        column = name.partition(" (")[0]
        what = f"The number before {_plain(name)!r} in the text" if name.startswith("number:") else None
        found = None
        if column not in known:
            found = _the_price(_plain(name), np.sign(logs) * np.expm1(np.abs(logs)), price, what)
        if found:
            known.add(column)
            yield found


def _made_of_prices(
    name: str, values: np.ndarray, price: np.ndarray, labels: dict[str, np.ndarray]
) -> Finding | None:
    """Whether a column was computed from the prices of categories, see `ensemble.audit.target_means`."""
    if follows_noise(values, price):
        category = _category_of(values, labels)
        of = "each group of rows that share its value" if category is None else f"each {category!r}"
        words = (
            f"Column {name!r} is the mean price of {of}, or another statistic of it, taken with the row's own price and "
            "those of held-out rows."
        )
        return "mean price", name, words
    if is_in_price_unit(values, price) and (category := _category_of(values, labels)) is not None:
        words = (
            f"Column {name!r} is a mean price of each {category!r}, which is sound only if it was taken from other rows than "
            "those of the catalogue."
        )
        return "mean of prices", name, words
    for category, label in labels.items():
        if is_mean_of_others(values, price, label):
            words = (
                f"Column {name!r} is the mean price of the other rows of each {category!r}: it falls as the row's own "
                "price rises."
            )
            return "mean price", name, words
    return None


def _category_of(values: np.ndarray, labels: dict[str, np.ndarray]) -> str | None:
    """The column of fewest levels within each of which the values are the same."""
    here, best = np.isfinite(values), None
    for name, label in labels.items():
        shown = here & (label >= 0)
        pairs = np.unique(np.stack([label[shown], np.unique(values[shown], return_inverse=True)[1]]), axis=1)
        n_levels = len(np.unique(label[shown]))
        if shown.any() and pairs.shape[1] == n_levels and (best is None or n_levels < best[0]):
            best = n_levels, name
    return None if best is None else best[1]


def _levels(values: np.ndarray) -> np.ndarray | None:
    """Codes of a column of numbers that may stand for categories, -1 where missing; None: it has too many values."""
    here = np.isfinite(values)
    levels, codes_ = np.unique(values[here], return_inverse=True)
    if len(levels) > here.sum() / 2:
        return None
    label = np.full(len(values), -1)
    label[here] = codes_
    return label


def _marks_of_rows(labels: dict[str, np.ndarray]) -> Iterator[Finding]:
    for name, label in labels.items():
        present = label[label >= 0]
        if len(present) >= LEAST_ROWS and len(np.unique(present)) == len(present):
            yield "row", name, _mark(name)


def _row_hash(name: str, values: np.ndarray, price: np.ndarray) -> Finding | None:
    """Whether numbers are drawn from so many that no two rows have the same, and say nothing of the price."""
    present = values[np.isfinite(values)]
    if len(present) < LEAST_ROWS or len(np.unique(present)) < len(present):
        return None
    with np.errstate(over="ignore"):
        is_whole = bool((present == np.round(present)).all())
    if not (np.ptp(present) > 100 * len(present) if is_whole else _is_even(present)):
        return None
    if abs(_rank_correlation(present, price[np.isfinite(values)])) >= 3 / np.sqrt(len(present)):
        return None
    return "row", name, _mark(name)


def _is_even(values: np.ndarray) -> bool:
    """Whether numbers with more decimals than are measured lie evenly between their ends, as hashes do."""
    from scipy.stats import kstest

    with np.errstate(over="ignore", invalid="ignore"):
        is_exact = bool((np.round(values, MEASURED_DECIMALS) != values).mean() > 0.9)
        place = (values - values.min()) / np.ptp(values)
    return is_exact and bool(kstest(place, "uniform").pvalue > 0.01)


def _mark(name: str) -> str:
    return f"Column {name!r} is another in every row, such as a hash: it marks rows and says nothing of new ones."


def _scaled(name: str, values: np.ndarray, test: np.ndarray | None) -> Finding | None:
    if test is None:
        return None
    train, test = values[np.isfinite(values)], test[np.isfinite(test)]
    if min(len(train), len(test)) < LEAST_SCALED:
        return None
    both = np.concatenate([train, test])
    for is_scaled in (_is_standard, _fills_a_range):
        each = is_scaled(train) and is_scaled(test)
        if each or (is_scaled(both) and not is_scaled(train)):
            how = "train and test each by their own rows" if each else "train and test rows together"
            return (
                "test statistics",
                name,
                f"Column {name!r} was scaled with statistics of test rows ({how}).",
            )
    return None


def _is_standard(values: np.ndarray) -> bool:
    """Whether mean and standard deviation, by n or n - 1 rows, are 0 and 1: exactly where the rows are few."""
    nearly = CENTRED if len(values) >= LEAST_ROWS else 1e-6
    with np.errstate(over="ignore", invalid="ignore"):
        spreads = [abs(values.std(ddof=ddof) - 1) for ddof in (0, 1)]
        return bool(abs(values.mean()) < nearly and min(spreads) < nearly)


def _fills_a_range(values: np.ndarray) -> bool:
    """Whether measurements, not shares that many rows have in full, run from exactly 0 or -1 to exactly 1."""
    low, high = values.min(), values.max()
    is_continuous = len(np.unique(values)) > len(values) / 2
    return bool(low in (0.0, -1.0) and high == 1.0 and is_continuous and (values == high).sum() == 1)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    if name not in rows.column_names:
        return np.full(len(rows), np.nan)
    return np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _plain(name: str) -> str:
    return name.partition(":")[2] or name
