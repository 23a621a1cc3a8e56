"""The ways to cut training rows into slices: by price, unit, column, text, image, nearness, fold."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.report.rows import ReportRows
from heads.features.fields import facts_of
from store.catalog.read import extra_columns

MOST_LEVELS = 12  # of a category; the others are one slice
MOST_COLUMNS = 40  # of the user's file
LEAST_ROWS = 20  # of a level, below which it is among the others
MIN_SHARE = 0.05  # of the rows that must state a fact for it to be looked at
MOST_LABEL = 60  # characters of a column's or a slice's name that are shown
OTHERS, NONE = "all others", "none"


@dataclass(frozen=True)
class Dimension:
    """One way to cut the rows."""

    name: str
    labels: tuple[str, ...]
    codes: np.ndarray  # (n_rows,) int into `labels`, -1: in no slice
    is_tested: bool = True  # whether slices may be marked


def cut(text: str, most: int = MOST_LABEL) -> str:
    """The first characters of a text that may be of any length."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def dimensions_of(rows: ReportRows, nearness: np.ndarray | None = None) -> list[Dimension]:
    """Every dimension that cuts the rows in two parts at least.

    Args:
        nearness: cosine of each row with the nearest training row of another fold, shape (n_rows,), NaN where
            unknown; None: not known for any.
    """
    found = list(_all(rows, nearness))
    kept: list[Dimension] = []
    for one in found:
        sizes = np.bincount(one.codes[one.codes >= 0], minlength=len(one.labels))
        is_known = any(np.array_equal(one.codes, other.codes) for other in kept)
        if (sizes > 0).sum() > 1 and not is_known:
            kept.append(one)
    return kept


def _all(rows: ReportRows, nearness: np.ndarray | None) -> Iterator[Dimension]:
    table = rows.table
    yield bands("predicted price", np.exp(rows.log_price), 6, _rounded)
    yield _replaced(bands("true price", np.exp(rows.training.log_actual), 6, _rounded), is_tested=False)
    for name, title in (("unit", "unit"), ("quantity_unit", "unit of the quantity")):
        if table[name].null_count < len(table):
            yield levels(title, table[name])
    numeric, categorical = extra_columns(table.schema)
    for name in categorical[:MOST_COLUMNS]:
        yield levels(f"column {name.partition(':')[2]}", table[name])
    for name in numeric[:MOST_COLUMNS]:
        values = table[name].to_numpy()
        yield bands(f"column {name.partition(':')[2]}", values, 4, _plain)
    yield from _facts(table)
    yield bands("characters of text", pc.utf8_length(table["text"]).to_numpy().astype(float), 5, _whole)
    yield _images(rows)
    if nearness is not None:
        yield _replaced(bands("cosine with the nearest row of another fold", nearness, 5, _cosine))
    fold = rows.training.fold
    yield Dimension("fold", tuple(str(k) for k in range(int(fold.max()) + 1)), fold.astype(np.int64))


def bands(name: str, values: np.ndarray, n_bands: int, written: Callable[[float], str]) -> Dimension:
    """Bands of about equal size; rows without a value are a slice of their own."""
    known = np.isfinite(values)
    if not known.any():
        return Dimension(name, (), np.full(len(values), -1))
    edges = np.unique(np.quantile(values[known], np.arange(1, n_bands) / n_bands))
    edges = edges[(edges > values[known].min()) & (edges <= values[known].max())]
    codes = np.where(known, np.searchsorted(edges, values, side="right"), len(edges) + 1)
    words = [written(edge) for edge in edges.tolist()]
    labels = [f"below {words[0]}"] if words else ["any"]
    labels += [f"{low} to {high}" for low, high in itertools.pairwise(words)]
    labels += [f"{words[-1]} and more"] if words else []
    return Dimension(name, (*labels, NONE), codes.astype(np.int64))


def levels(name: str, column: pa.ChunkedArray | list[str | None]) -> Dimension:
    """The most frequent levels of a category, all others, and rows without one."""
    values = column if isinstance(column, list) else column.to_pylist()
    counts = Counter(value for value in values if value is not None)
    often = [level for level, n in counts.most_common(MOST_LEVELS) if n >= LEAST_ROWS]
    place = {level: at for at, level in enumerate(often)}
    codes = [len(often) + 1 if value is None else place.get(value, len(often)) for value in values]
    return Dimension(name, (*often, OTHERS, NONE), np.array(codes, np.int64))


def _facts(table: pa.Table) -> Iterator[Dimension]:
    """What bullets state, "Brand: Levis", where enough rows state it."""
    facts = [facts_of(bullets) for bullets in table["bullets"].to_pylist()]
    counts = Counter(key for row in facts for key in row)
    often = [key for key, n in counts.most_common(MOST_COLUMNS) if n >= MIN_SHARE * len(facts)]
    for key in often:
        found = levels(f"{key} in the text", [row.get(key) for row in facts])
        if len(found.labels) > 2:
            yield found


def _images(rows: ReportRows) -> Dimension:
    named = np.array(rows.table["image"].is_valid()) | np.array(rows.table["image_link"].is_valid())
    codes = np.where(rows.has_image, 0, np.where(named, 1, 2))
    return Dimension("image", ("with an image", "image unavailable", "no image"), codes)


def _replaced(one: Dimension, is_tested: bool = True) -> Dimension:
    """Rows without a value in no slice."""
    codes = np.where(one.codes == len(one.labels) - 1, -1, one.codes)
    return Dimension(one.name, one.labels[:-1], codes, is_tested)


def _plain(value: float) -> str:
    return f"{value:,.4g}"


def _rounded(value: float) -> str:
    """A price to three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _cosine(value: float) -> str:
    return f"{value:.2f}"
