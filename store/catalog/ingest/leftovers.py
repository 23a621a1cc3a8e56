"""Rows that are no product: a header repeated in the middle of a file, a line of totals at its end."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.ingest.cells import is_missing, is_number
from store.catalog.ingest.source import TableSource
from store.catalog.parse.written import CORE, PLAIN

_TOTALS = frozenset(
    "total totals subtotal sum sums average mean count summe gesamt gesamtsumme insgesamt mittelwert totale somma "
    "moyenne somme suma promedio media soma итого всего 合计 总计 合計".split()
)
_TOTAL_WORDS = frozenset(("grand total", "sub total", "sub-total", "total general", "total général"))
_NUMBER = re.compile(rf"[^\w]*{CORE}[^\w]*")
_LAST_ROWS = 3  # among which totals are looked for


def rows_of_no_product(source: TableSource, id_column: str, text_column: str) -> dict[int, str]:
    """Position -> what the row is instead.

    Args:
        id_column: may be missing in the file.
    """
    return _repeated_headers(source, text_column) | _totals(source, id_column)


def _repeated_headers(source: TableSource, text_column: str) -> dict[int, str]:
    column = source.columns[text_column]
    if (
        not pa.types.is_string(column.type) or not source.n_rows
    ):  # PyArrow 17 crashes on an empty column of a CSV
        return {}
    alike = pc.indices_nonzero(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), text_column), False))
    return {
        at: "header repeated"
        for at in alike.to_pylist()
        if all(_cell(source, name, at) == name for name in source.columns)
    }


def _totals(source: TableSource, id_column: str) -> dict[int, str]:
    """Rows at the end that hold a word such as "Total" where others have their first cell, and else numbers alone."""
    found: dict[int, str] = {}
    for at in range(max(1, source.n_rows - _LAST_ROWS), source.n_rows):
        cells = ((name, cell) for name in source.columns if not is_missing(cell := _cell(source, name, at)))
        first, word = next(cells, ("", ""))
        if not _is_total(word):
            continue
        others = dict(cells)
        is_first = first == id_column or id_column not in others
        if is_first and all(_is_amount(cell) for cell in others.values()):
            found[at] = f"a line of totals: {word!r}"
    return found


def _is_total(cell: str) -> bool:
    word = " ".join(cell.lower().strip(" :*=").split())
    return word in _TOTALS or word in _TOTAL_WORDS


def _is_amount(cell: str) -> bool:
    return PLAIN.fullmatch(cell) is not None or _NUMBER.fullmatch(cell) is not None


def _cell(source: TableSource, name: str, at: int) -> str:
    """A cell as text; of a column that holds neither text nor numbers only whether there is one."""
    column = source.columns[name]
    if not column[at].is_valid:
        return ""
    is_plain = pa.types.is_string(column.type) or is_number(column.type)
    return str(column[at].as_py()).strip() if is_plain else "a value"
