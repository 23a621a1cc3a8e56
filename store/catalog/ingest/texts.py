"""The text of each row: one column, or several written one below the other under their names."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import MISSING, as_text, holds_lists
from store.catalog.ingest.rows import ValidatedRows
from store.catalog.parse.fields import is_labelled
from store.catalog.parse.html import MAY_HOLD_HTML, without_html


def texts_of(rows: ValidatedRows, text: str, more: tuple[str, ...], notes: list[str]) -> pa.Array:
    """The catalogue texts of one file's usable rows, "" where missing.

    Words that stand for none (`nan`, `N/A`) are none. HTML is taken out of texts in free form; those in the labelled
    form of the challenge stay as given. Of further columns each is a line, `name: text`.

    Args:
        more: further columns of strings, or of lists of strings.
    """
    is_list = holds_lists(rows.source.columns[text].type)
    first = pa.array(_words(rows, text, notes), pa.string()) if is_list else _texts(rows, text, notes)
    found = first if not more else _joined(rows, first, more, notes)
    if len(found) and not pc.any(pc.not_equal(found, "")).as_py():
        notes.append(f"not one row of {rows.source.path} has a text in {', '.join(map(repr, (text, *more)))}")
    return found


def _joined(rows: ValidatedRows, first: pa.Array, more: tuple[str, ...], notes: list[str]) -> pa.Array:
    columns = [first.to_pylist(), *(_words(rows, name, notes) for name in more)]
    names = ("", *(f"{name}: " for name in more))
    return pa.array(
        [
            "\n".join(f"{name}{cell}" for name, cell in zip(names, cells, strict=True) if cell)
            for cells in zip(*columns, strict=True)
        ],
        pa.string(),
    )


def _words(rows: ValidatedRows, name: str, notes: list[str]) -> list[str]:
    """A further column's texts; the words of a list are parted by commas."""
    column = rows.source.columns[name]
    if holds_lists(column.type):  # of which Arrow can't take rows from every kind
        lists = column.to_pylist()
        return [
            ", ".join(_word(one) for one in lists[at] or () if one is not None and one != "")
            for at in rows.index
        ]
    texts: list[str] = _texts(rows, name, notes).to_pylist()
    return texts


def _word(one: Any) -> str:
    """An item of a list; of a map its key and value."""
    return ": ".join(map(str, one)) if isinstance(one, tuple) else str(one).strip()


def _texts(rows: ValidatedRows, name: str, notes: list[str]) -> pa.Array:
    column = rows.take(rows.source.columns[name])
    text = as_text(column, name).fill_null("").combine_chunks()
    short = pc.utf8_lower(pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(text, 0, 20)))
    words = pc.is_in(short, value_set=pa.array(sorted(MISSING - {""})))
    is_none = pc.and_(words, pc.less_equal(pc.utf8_length(text), 20))
    if n := pc.sum(is_none).as_py():
        notes.append(f"{n} texts of {rows.source.path} are words such as 'nan' or 'N/A': taken as missing")
        text = pc.if_else(is_none, "", text)
    may_hold = np.flatnonzero(np.array(pc.match_substring_regex(text, MAY_HOLD_HTML), dtype=bool)).tolist()
    changed = {}
    for at in may_hold:
        given = text[at].as_py()
        if not is_labelled(given) and (plain := without_html(given)) != given:
            changed[at] = plain
    if not changed:
        return text
    notes.append(f"HTML was taken out of {len(changed)} texts of column {name!r} in {rows.source.path}")
    cells = text.to_pylist()
    for at, plain in changed.items():
        cells[at] = plain
    return pa.array(cells, pa.string())
