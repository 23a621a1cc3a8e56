"""Cells of the user's files as text."""

from typing import Any

import pyarrow as pa

from store.errors import CatalogError

MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>"))  # cells that stand for none, lower case


def is_missing(cell: str | None) -> bool:
    """Whether a cell stands for none."""
    return cell is None or cell.strip().lower() in MISSING


def is_none(value: Any) -> bool:
    """None, NaN, and what pandas puts in their place."""
    return (
        value is None
        or (isinstance(value, float) and value != value)
        or type(value).__name__ in ("NAType", "NaTType")
    )


def is_number(kind: pa.DataType) -> bool:
    """True for integers, floats and decimals."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def holds_lists(kind: pa.DataType) -> bool:
    """Whether cells of an Arrow type are lists, of whatever, or maps."""
    is_kind = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(one(kind) for one in (*is_kind, *views))


def as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column as strings.

    Raises:
        CatalogError: it holds lists, structs or bytes that are not UTF-8.
    """
    if pa.types.is_string(column.type):
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(
            f"column {name!r} holds {column.type}, which can't be read as text: {_instead(column.type, name)}"
        ) from error


def _instead(kind: pa.DataType, name: str) -> str:
    """What to do about a column that can't be read as text."""
    if pa.types.is_struct(kind) and kind.num_fields:
        return f"name one of its fields: {', '.join(repr(f'{name}.{field.name}') for field in kind)}"
    return "write one value in each row" if holds_lists(kind) else "write it as text in UTF-8"
