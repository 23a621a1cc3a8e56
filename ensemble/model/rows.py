"""New products -> the rows that heads take, with what each of them lacks."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.model.answers import (
    BAD_NUMBER,
    NO_IMAGE,
    NO_TEXT,
    OTHER_CURRENCY,
    UNKNOWN_CATEGORY,
    UNREADABLE_IMAGE,
)
from ensemble.model.encoders import ModelEncoders
from heads.features.fields import FieldColumns, field_table
from heads.features.rows import Rows
from store.catalog.download.addresses import split_links
from store.catalog.ingest.cells import is_none
from store.catalog.ingest.readings import NewRows, Readings, read_new_rows
from store.catalog.ingest.source import TableSource
from store.catalog.parse.compose import compose, composition_columns
from store.catalog.parse.currencies import currency_of
from store.catalog.parse.levels import in_known_spelling
from store.config import ImagePolicy
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX
from store.vectors.sets import VectorSet

_CURRENCY = r"[$€£₹¥₩₽₺₫฿₱₦₪₴]|USD|EUR|GBP|INR|JPY|CNY|CHF|AUD|CAD"
_AMOUNT = re.compile(rf"(?<![\w.])({_CURRENCY})\s?\d|\d\s?({_CURRENCY})(?!\w)")


@dataclass(frozen=True)
class RowShape:
    """What a model's rows are made of; of the manifest."""

    readings: Readings
    columns: FieldColumns
    sets: tuple[VectorSet, ...]
    compositions: tuple[str, ...]  # texts that heads read
    levels: Mapping[str, frozenset[str]]  # categorical column, with prefix -> levels of the training rows

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "readings": self.readings.to_json(),
            "columns": dataclasses.asdict(self.columns),
            "sets": [{"encoder": one.encoder, "composition": one.composition} for one in self.sets],
            "compositions": list(self.compositions),
            "levels": {name: sorted(levels) for name, levels in self.levels.items()},
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RowShape":
        """What `to_json` gave."""
        return cls(
            Readings.from_json(record["readings"]),
            FieldColumns.from_json(record["columns"]),
            tuple(VectorSet(one["encoder"], one["composition"]) for one in record["sets"]),
            tuple(record["compositions"]),
            {name: frozenset(levels) for name, levels in record["levels"].items()},
        )


@dataclass(frozen=True)
class ModelRows:
    """Rows that can be priced, and what is to be said of each."""

    rows: Rows
    table: pa.Table  # the catalogue's columns
    flags: list[set[str]]
    refused: list[str | None]
    images: list[list[str]]  # hex SHA-256 of each row's images
    has_image: np.ndarray  # (n_rows,) bool: one that can be read, as far as encoders have looked
    stray: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def model_rows(
    shape: RowShape,
    encoders: ModelEncoders,
    source: TableSource,
    images: Sequence[Any] | None = None,
) -> ModelRows:
    """Rows of a table of new products.

    Args:
        images: what each row has as its image (a path, bytes, a Pillow image); None: its cell of the image column.
    """
    new = read_new_rows(source, shape.readings)
    cells = new.images if images is None else list(images)
    flags: list[set[str]] = [set() for _ in cells]
    policy = shape.readings.images_per_row
    contents = [image_contents(cell, said, policy) for cell, said in zip(cells, flags, strict=True)]
    table = with_further_columns(_spelled(new.table, shape.levels), shape.columns)
    texts = {name: composed(table, name) for name in shape.compositions}
    composed_texts = {one: compose_rows(table, one.text) for one in shape.sets if one.text is not None}
    matrices = encoders.matrices(shape.sets, composed_texts, contents)
    for one, matrix in zip(shape.sets, matrices, strict=True):
        for at, content in enumerate(contents):
            if one.has_image and content and not matrix.valid[at]:
                flags[at].add(UNREADABLE_IMAGE)
    has_images = any(one.has_image for one in shape.sets)
    rows = Rows(
        sample_id=pa.array(np.arange(table.num_rows)),
        matrices=tuple(matrices),
        fields=field_table(table, columns=shape.columns),
        texts=texts,
        group=-1 - np.arange(table.num_rows),
    )
    _flag(shape, new, table, flags)
    images_of = [[hashlib.sha256(content).hexdigest() for content in row] for row in contents]
    seen = np.array([bool(row) and not has_images for row in contents], bool)
    for one, matrix in zip(shape.sets, matrices, strict=True):
        seen |= matrix.valid if one.has_image else False
    refused: list[str | None] = []
    for at, said in enumerate(flags):
        if has_images and not seen[at] and UNREADABLE_IMAGE not in said:
            said.add(NO_IMAGE)
        known = NO_TEXT not in said or seen[at] or _has_values(table, at)
        refused.append(
            None if known else "nothing is known of this row: no text, no image, no value of any column"
        )
    return ModelRows(rows, table, flags, refused, images_of, seen, new.stray)


def compose_rows(table: pa.Table, composition: str) -> list[str | None]:
    """Composed texts, None where nothing is left to embed."""
    texts: list[str | None] = compose(
        composition, table.select(list(composition_columns(composition)))
    ).to_pylist()
    return texts


def composed(table: pa.Table, composition: str) -> np.ndarray:
    """Composed texts as heads read them, "" where there is none; shape (n_rows,) of str objects."""
    return np.array([text or "" for text in compose_rows(table, composition)], dtype=object)


def _spelled(table: pa.Table, levels: Mapping[str, frozenset[str]]) -> pa.Table:
    """With categories as the training rows write them."""
    for name in levels.keys() & set(table.column_names):
        at, cells = table.column_names.index(name), table[name].combine_chunks()
        table = table.set_column(at, name, in_known_spelling(cells, levels[name]))
    return table


def with_further_columns(table: pa.Table, columns: FieldColumns) -> pa.Table:
    """With nulls for a further column that these rows lack."""
    for name in (*columns.numeric, *columns.categorical):
        if name not in table.column_names:
            kind = pa.float64() if name.startswith(NUMERIC_PREFIX) else pa.string()
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    return table


def image_contents(cell: Any, flags: set[str], policy: ImagePolicy = "all") -> list[bytes]:
    """The bytes of a row's images; what is there and can't be read is flagged."""
    from embed.job.items import image_bytes

    found: list[bytes] = []
    for one in image_items(cell):
        if is_link(one):
            continue  # nothing here fetches a link
        try:
            found.append(one() if callable(one) else image_bytes(one))
        except (OSError, TypeError, ValueError, AttributeError):
            flags.add(UNREADABLE_IMAGE)
    return found[:1] if policy == "first" else found


def image_items(cell: Any) -> list[Any]:
    """What a cell of the image column holds: paths, links, bytes, Pillow images, or what reads one's bytes."""
    if isinstance(cell, str) and cell.strip():
        cell = split_links(cell.strip()) or cell.strip()
    cells = cell if isinstance(cell, (list, tuple, np.ndarray)) else [cell]
    # As Hugging Face's tables hold images.
    given = [(one.get("bytes") or one.get("path")) if isinstance(one, dict) else one for one in cells]
    return [one for one in given if not is_none(one) and one != ""]


def is_link(item: Any) -> bool:
    """Whether an image is given by its address."""
    return isinstance(item, str) and "://" in item


def _flag(shape: RowShape, new: NewRows, table: pa.Table, flags: list[set[str]]) -> None:
    own = currency_of(shape.readings.currency) if shape.readings.currency else None
    for at, text in enumerate(table["text"].to_pylist()):
        if not (text or "").strip():
            flags[at].add(NO_TEXT)
        elif own is not None and any(
            currency_of(before or after) != own for before, after in _AMOUNT.findall(text)
        ):
            flags[at].add(OTHER_CURRENCY)
    for at, names in new.stray.items():
        if names:
            flags[at].add(BAD_NUMBER)
    for name, known in shape.levels.items():
        for at, level in enumerate(table[name].to_pylist()):
            if level is not None and level not in known:
                flags[at].add(UNKNOWN_CATEGORY)


def _has_values(table: pa.Table, at: int) -> bool:
    names = [name for name in table.column_names if name.startswith((NUMERIC_PREFIX, CATEGORICAL_PREFIX))]
    return any(table[name][at].is_valid for name in names)
