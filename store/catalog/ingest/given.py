"""Columns that say something of the rows and are no features: the user's own groups, time, and weights."""

import numpy as np
import pyarrow as pa

from store.catalog.ingest.cells import as_text, is_missing, is_number
from store.catalog.ingest.rows import ValidatedRows
from store.catalog.parse.column import read_numbers
from store.catalog.parse.dates import day_of, find_dates, part_of_day
from store.catalog.parse.written import Mark
from store.config import ColumnConfig
from store.errors import CatalogError
from store.schema import OWN_GROUP, TIME, WEIGHT


def given_columns(
    rows: ValidatedRows, columns: ColumnConfig, told: Mark | None = None
) -> dict[str, pa.Array]:
    """Those of one file that the configuration names, each of shape (n_rows,); test rows need neither time nor weight.

    Args:
        told: the mark before decimals in the prices of the training file; None: they do not tell.

    Raises:
        CatalogError: a column is missing, a training row has no time, or a weight is not above 0.
    """
    is_train = rows.price is not None
    found: dict[str, pa.Array] = {}
    if columns.group and (is_train or columns.group in rows.source.columns):
        cells = as_text(rows.take(rows.source.require(columns.group, "--group-column")), columns.group)
        found[OWN_GROUP.name] = pa.array(
            [None if is_missing(cell) else cell for cell in cells.to_pylist()], OWN_GROUP.type
        )
    for name, field, option, read in (
        (columns.time, TIME, "--time-column", _times),
        (columns.weight, WEIGHT, "--weight-column", read_numbers),
    ):
        if not name or (not is_train and name not in rows.source.columns):
            continue
        values = read(rows.take(rows.source.require(name, option)), name, told)
        bad = ~np.isfinite(values) | ((values <= 0) if field is WEIGHT else False)
        if is_train and bad.any():
            at = int(np.flatnonzero(bad)[0])
            rule = "a weight above 0" if field is WEIGHT else "a date or a number"
            raise CatalogError(
                f"{option} {name}: each training row needs {rule}, and {int(bad.sum())} rows of {rows.source.path} "
                f"lack it (first: line {rows.source.lines[rows.index[at]]}): correct the file or leave the option out"
            )
        found[field.name] = pa.array(values, field.type, from_pandas=True)
    return found


def _times(cells: pa.ChunkedArray, name: str, told: Mark | None) -> np.ndarray:
    """Days since 1970, or the numbers of a column that holds numbers."""
    if pa.types.is_date(cells.type) or pa.types.is_timestamp(cells.type):
        seconds = cells.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
        return np.asarray(seconds, np.float64) / 86_400_000
    if is_number(cells.type):
        return read_numbers(cells, name, told)
    written = [None if is_missing(cell) else cell for cell in as_text(cells, name).to_pylist()]
    kind = find_dates([cell for cell in written if cell is not None])
    if kind is None:
        return read_numbers(cells, name, told)
    read = [None if cell is None else (day_of(cell, kind[0]), part_of_day(cell, kind[0])) for cell in written]
    return np.array(
        [np.nan if one is None or np.isnat(one[0]) else one[0].astype(np.int64) + one[1] for one in read]
    )
