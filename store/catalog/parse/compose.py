"""Text compositions: named ways to write a catalogue row for an encoder; the key is a digest of the composed text.

`Value:` and `Unit:` stand at the end of a challenge row, where truncation loses them, so `structured`
puts the quantity first.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

DEFAULT_COMPOSITION = "structured"


def _full(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    return _whole(rows.column("text"))


def _name(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    return _whole(rows.column("name"))


def _structured(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    value, unit, pack_count, name, bullets, description = (
        _whole(rows.column(c)) for c in composition_columns("structured")
    )
    amount = _written(value)
    quantity = pc.if_else(
        pc.fill_null(pc.greater(pc.binary_length(unit), 0), False),
        pc.binary_join_element_wise(amount, unit, " "),
        amount,
    )
    packs = _written(pc.if_else(pc.greater(pack_count, 1), pack_count, pa.scalar(None, pa.float64())))
    pack = pc.binary_join_element_wise(pa.scalar("pack of "), packs, "")
    parts = [quantity, pack, _filled(name), _joined(bullets), _filled(description)]
    # Arrow drops a row whose parts are all null: an empty part is put first, and its separator is cut off again.
    joined = pc.binary_join_element_wise(pa.scalar(""), *parts, ". ", null_handling="skip")
    return pc.utf8_slice_codeunits(joined, 2)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _filled(texts: pa.Array) -> pa.Array:
    """Null where a text is empty."""
    return pc.if_else(pc.greater(pc.binary_length(texts), 0), texts, pa.scalar(None, texts.type))


def _written(numbers: pa.Array) -> pa.Array:
    """Numbers as `%g` writes them; each distinct one is written once."""
    encoded = numbers.dictionary_encode()
    spelled = pa.array([None if v is None else f"{v:g}" for v in encoded.dictionary.to_pylist()], pa.string())
    return spelled.take(encoded.indices)


def _joined(lists: pa.Array) -> pa.Array:
    """Texts of each list in a row, empty ones left out; null where none is left."""
    flat = pc.list_flatten(lists)
    if flat.null_count or pc.any(pc.equal(pc.binary_length(flat), 0)).as_py():
        kept = [[text for text in texts or () if text] for texts in lists.to_pylist()]
        lists = pa.array(kept, pa.list_(pa.string()))
    return _filled(pc.binary_join(lists, ". "))


COMPOSITIONS: dict[str, tuple[Callable[[pa.Table | pa.RecordBatch], pa.Array], tuple[str, ...]]] = {
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
    return _filled(COMPOSITIONS[composition][0](rows))
