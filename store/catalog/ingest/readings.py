"""How the training file was read, on record, and rows of other products read in the same way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from store.catalog.ingest.cells import is_none
from store.catalog.ingest.rows import ValidatedRows
from store.catalog.ingest.source import TableSource
from store.catalog.ingest.texts import texts_of
from store.catalog.parse.column import ColumnReading, read_column
from store.catalog.parse.extras import flattened
from store.catalog.parse.fields import field_columns
from store.config import ImagePolicy
from store.errors import CatalogError
from store.schema import CATALOG_COLUMNS
from store.workspace import Workspace

READINGS_FILE = "catalog/readings.json"


@dataclass(frozen=True)
class Readings:
    """Which columns of the user's table become which columns of the catalogue."""

    text: tuple[str, ...]  # columns of text, the main one first
    image: str | None  # column of images; None: the file had none
    columns: dict[str, ColumnReading]  # further columns that are read
    currency: str | None  # as written beside the prices
    images_per_row: ImagePolicy = "all"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        columns = {name: reading.to_json() for name, reading in self.columns.items()}
        return {
            "text": list(self.text),
            "image": self.image,
            "columns": columns,
            "currency": self.currency,
            "images_per_row": self.images_per_row,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Readings":
        """What `to_json` gave."""
        columns = {name: ColumnReading.from_json(one) for name, one in value["columns"].items()}
        return cls(tuple(value["text"]), value["image"], columns, value["currency"], value["images_per_row"])


def publish_readings(workspace: Workspace, readings: Readings) -> None:
    """Put them on record, where they are not yet."""
    record = readings.to_json()
    if not workspace.is_sound(READINGS_FILE) or workspace.read_json(READINGS_FILE) != record:
        workspace.publish_json(READINGS_FILE, record)


def read_readings(workspace: Workspace) -> Readings:
    """How the catalogue was read.

    Raises:
        CatalogError: it was ingested by a version that did not say so; names the command.
    """
    if not workspace.exists(READINGS_FILE):
        raise CatalogError(
            f"{workspace.root} has no record of how its columns were read: run 'shelfprice catalog ingest' with the same "
            "files again; nothing else changes"
        )
    return Readings.from_json(workspace.read_json(READINGS_FILE))


@dataclass(frozen=True)
class NewRows:
    """Rows of other products, by the catalogue's columns."""

    table: pa.Table  # what `text` says, fields, further columns; no id, image or price
    images: list[Any]  # what stands in the image column; None where nothing does
    stray: dict[int, tuple[str, ...]]  # position -> columns whose value is not what it should be


def read_new_rows(source: TableSource, readings: Readings) -> NewRows:
    """A table of other products, read as the training file was; a column that it lacks is missing in every row.

    Raises:
        CatalogError: it has none of the columns that were read.
    """
    source = source.with_fields([*readings.text, *([readings.image] if readings.image else [])])
    known = {one for name in readings.columns for one in (name, name.partition(".")[0])}
    if not {*readings.text, readings.image, *known} & source.columns.keys():
        wanted = dict.fromkeys(
            [*readings.text, *([readings.image] if readings.image else []), *readings.columns]
        )
        raise CatalogError(
            f"{source.path} has none of the columns that the model reads ({', '.join(map(repr, wanted))}), its columns are "
            f"{', '.join(map(repr, source.columns)) or 'none'}: rename them as in the training file"
        )
    columns = {
        name: source.columns.get(name, pa.chunked_array([pa.nulls(source.n_rows, pa.string())]))
        for name in readings.text
    }
    whole = TableSource(source.path, {**source.columns, **columns}, source.lines, (), 0)
    rows = ValidatedRows(whole, np.arange(source.n_rows), [], None, ())
    table = {"text": texts_of(rows, readings.text[0], readings.text[1:], [])}
    given = dict(pair for name, cells in source.columns.items() for pair in flattened(name, cells))
    stray: dict[int, list[str]] = {}
    for name, reading in readings.columns.items():
        cells = given.get(name, pa.chunked_array([pa.nulls(source.n_rows, pa.string())]))
        try:
            parts, wrong = read_column(cells, reading, name)
        except (CatalogError, pa.ArrowException):  # a column of another kind than that of the training file
            cells = pa.chunked_array([pa.array([_written(one) for one in cells.to_pylist()], pa.string())])
            parts, wrong = read_column(cells, reading, name)
        table |= parts
        for at, _ in wrong:
            stray.setdefault(at, []).append(name)
    parsed = field_columns(table["text"].to_pylist())
    ordered = {name: parsed[name] for name in CATALOG_COLUMNS if name in parsed}
    images = source.columns[readings.image].to_pylist() if readings.image in source.columns else None
    return NewRows(
        pa.table({"text": table.pop("text"), **ordered, **table}),
        images if images is not None else [None] * source.n_rows,
        {at: tuple(names) for at, names in stray.items()},
    )


def source_of_mappings(
    rows: Sequence[Mapping[str, Any]], readings: Readings, name: str = "the rows"
) -> tuple[TableSource, list[Any]]:
    """Rows given one by one as a table, and what each has as its image."""
    wanted = dict.fromkeys([*readings.text, *readings.columns])
    columns = {
        column: pa.chunked_array([pa.array([_written(row.get(column)) for row in rows], pa.string())])
        for column in wanted
    }
    images = [row.get(readings.image) if readings.image is not None else None for row in rows]
    return TableSource(name, columns, np.arange(1, len(rows) + 1), (), 0), images


def _written(value: Any) -> str | None:
    """One value as a cell of a table; None where there is none."""
    if is_none(value):
        return None
    if isinstance(value, float):  # as a column of numbers becomes text
        return str(pa.scalar(value).cast(pa.string()))
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(str(one) for one in value if one is not None)
    text = str(value)
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text
