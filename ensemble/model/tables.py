"""Frames and files of products: read for pricing, and put into a workspace for fitting."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from store.catalog.ingest.prices import price_values, read_prices
from store.catalog.ingest.source import TableSource, read_source
from store.errors import CatalogError, PriceError

CHUNK_ROWS = 512  # priced together


def table_chunks(table: TableSource, rows: int = CHUNK_ROWS) -> Iterator[TableSource]:
    """A table in parts."""
    for start in range(0, table.n_rows, rows):
        part = {name: column.slice(start, rows) for name, column in table.columns.items()}
        yield replace(table, columns=part, lines=table.lines[start : start + rows], malformed=())


def read_products(table: Any) -> TableSource:
    """A frame or file of products, or a table as read; it may be empty.

    Raises:
        CatalogError: see `store.catalog.ingest.source.read_source`.
    """
    if isinstance(table, TableSource):
        return table
    if getattr(table, "shape", (1,))[0] == 0 and hasattr(table, "columns"):
        names = [str(name) for name in table.columns]
        empty = pa.chunked_array([pa.array([], pa.string())])
        return TableSource("the frame", dict.fromkeys(names, empty), np.array([], np.int64), (), 0)
    return read_source(table, "products", may_be_empty=True)


def read_with_images(table: Any, column: str | None) -> tuple[TableSource, list[Any] | None]:
    """As `read_products`, and what stands in a frame's image column where Arrow can't hold it; else None."""
    cells = _image_cells(table, column)
    return read_products(table if cells is None else _without_column(table, str(column))), cells


def _image_cells(table: Any, column: str | None) -> list[Any] | None:
    """What stands in a frame's image column, where Arrow can't hold it: Pillow images, or bytes beside paths."""
    if isinstance(table, TableSource) or column is None or column not in list(getattr(table, "columns", ())):
        return None
    cells = table[column]
    values = list(cells.to_pylist() if hasattr(cells, "to_pylist") else cells)
    from embed.job.items import is_image

    kinds = {
        str if isinstance(v, str) else bytes if isinstance(v, bytes) else None for v in values if is_image(v)
    }
    return values if None in kinds or len(kinds) > 1 else None


def _without_column(table: Any, column: str) -> Any:
    """A pandas or Polars frame less a column."""
    return table.drop(columns=[column]) if hasattr(table, "iloc") else table.drop(column)


def prices_of(source: TableSource, column: str) -> np.ndarray:
    """Prices of a column, NaN where there is none; shape (n_rows,)."""
    cells = source.require(column, "price=")
    values = price_values(cells, column, read_prices(cells, column))
    return np.array([np.nan if isinstance(value, str) else value for value in values], np.float64)


def with_prices(source: TableSource, y: Any, column: str) -> TableSource:
    """A table with prices that were given beside it.

    Raises:
        PriceError: they are not one for each row.
    """
    prices = np.asarray(y, np.float64).ravel()
    if len(prices) != source.n_rows:
        raise PriceError(f"fit needs one price a row, got {len(prices)} for {source.n_rows} rows")
    return replace(source, columns={**source.columns, column: pa.chunked_array([pa.array(prices)])})


def check_column(source: TableSource, column: str) -> None:
    """Raises CatalogError where a table lacks a column that a parameter names."""
    if column not in source.columns:
        raise CatalogError(
            f"{source.path} has no column {column!r}, its columns are {', '.join(map(repr, source.columns))}"
        )
