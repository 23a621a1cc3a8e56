"""Text compositions: named ways to write a catalogue row for an encoder. What enters is what is hashed.

`Value:` and `Unit:` stand at the end of a challenge row, where truncation loses them, so `structured`
puts the quantity first.
"""

from collections.abc import Callable

import pyarrow as pa

DEFAULT_COMPOSITION = "structured"


def _full(rows: pa.Table | pa.RecordBatch) -> list[str | None]:
    texts: list[str | None] = rows.column("text").to_pylist()
    return texts


def _name(rows: pa.Table | pa.RecordBatch) -> list[str | None]:
    names: list[str | None] = rows.column("name").to_pylist()
    return names


def _structured(rows: pa.Table | pa.RecordBatch) -> list[str | None]:
    columns = [rows.column(c).to_pylist() for c in composition_columns("structured")]
    texts: list[str | None] = []
    for value, unit, pack_count, name, bullets, description in zip(*columns, strict=True):
        parts = []
        if value is not None:
            parts.append(f"{value:g} {unit}" if unit else f"{value:g}")
        if pack_count is not None and pack_count > 1:
            parts.append(f"pack of {pack_count:g}")
        parts.extend(part for part in (name, *(bullets or ()), description) if part)
        texts.append(". ".join(parts))
    return texts


COMPOSITIONS: dict[str, tuple[Callable[[pa.Table | pa.RecordBatch], list[str | None]], tuple[str, ...]]] = {
    "full": (_full, ("text",)),
    "name": (_name, ("name",)),
    "structured": (_structured, ("value", "unit", "pack_count", "name", "bullets", "description")),
}


def composition_columns(composition: str) -> tuple[str, ...]:
    """The catalogue columns a composition reads."""
    return COMPOSITIONS[composition][1]


def compose(composition: str, rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """Composed texts, shape (n_rows,), null where nothing is left to embed.

    Args:
        composition: a key of `COMPOSITIONS`.
        rows: catalogue rows holding at least `composition_columns(composition)`.
    """
    return pa.array([text or None for text in COMPOSITIONS[composition][0](rows)], pa.string())
