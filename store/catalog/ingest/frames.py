"""Tables in memory (pandas, Polars, Arrow) and Parquet files -> columns of types that are read everywhere."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import CatalogError


def is_frame(value: object) -> bool:
    """Whether a value is a table: it offers the Arrow PyCapsule interface, or is a pandas DataFrame."""
    return hasattr(value, "__arrow_c_stream__") or _is_pandas(value)


def table_of(frame: Any, name: str) -> pa.Table:
    """A table in memory as an Arrow table.

    Raises:
        CatalogError: a column holds values of several kinds.
    """
    try:
        if _is_pandas(frame):
            names = [str(column) for column in frame.columns]
            return pa.Table.from_pandas(frame.set_axis(names, axis=1))
        return pa.table(frame)
    except (TypeError, ValueError, NotImplementedError) as error:  # Arrow's errors are kinds of these
        raise CatalogError(f"{name} can't be read as an Arrow table: {error}") from error


def _is_pandas(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def plain_column(column: pa.ChunkedArray, path: str, name: str) -> pa.ChunkedArray:
    """A column without extension types, views and run-length encoding, its text proved to be UTF-8.

    Raises:
        CatalogError: its text is not UTF-8.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        return plain_column(column, path, name)
    if pa.types.is_run_end_encoded(kind):
        chunks = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return plain_column(pa.chunked_array(chunks, kind.value_type), path, name)
    if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
        chunks = [_decoded(chunk, path, name) for chunk in column.chunks]
        return plain_column(
            pa.chunked_array(chunks, chunks[0].type if chunks else kind.value_type), path, name
        )
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise CatalogError(
            f"{path}: column {name!r} can't be read: {error}. Write its text as UTF-8"
        ) from error
    if pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column.cast(pa.binary()) if pa.types.is_binary_view(kind) else column


def _decoded(chunk: pa.DictionaryArray, path: str, name: str) -> pa.Array:
    values = plain_column(pa.chunked_array([chunk.dictionary]), path, name)
    return values.combine_chunks().take(chunk.indices)
