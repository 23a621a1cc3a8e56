"""Rows that are no product: a header repeated in the middle of a file, lines of totals."""

import re

import numpy as np
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
_MEANS = frozenset("average mean mittelwert moyenne promedio media".split())
_WORD = re.compile(r"[\w-]+")
_BEGINS = (
    rf"(?i)^[\s:*=]*(?:{'|'.join(map(re.escape, sorted(_TOTALS | _TOTAL_WORDS)))})(?:[^\pL\pN]|$)"  # for RE2
)
_NUMBER = re.compile(rf"[^\w]*{CORE}[^\w]*")
_LAST_ROWS = 3  # among which totals are looked for


def rows_of_no_product(
    source: TableSource, id_column: str, text_column: str, prices: list[float | str] | None
) -> dict[int, str]:
    """Position -> what the row is instead.

    Args:
        id_column: may be missing in the file.
        prices: each as a number, or the reason why it is none; None where the file's prices do not matter.
    """
    found = _repeated_headers(source, text_column) | _totals(source, id_column)
    return found if prices is None else found | _sums(source, id_column, text_column, prices, found)


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


def _sums(
    source: TableSource, id_column: str, text_column: str, prices: list[float | str], known: dict[int, str]
) -> dict[int, str]:
    """Rows anywhere that begin with such a word, or have no text and no id, and whose price is that of the rows above.

    That is the sum, or the mean where the word is one for it, of the rows since the last such row or of all of them.
    """
    found: dict[int, str] = {}
    amounts = np.array([0.0 if isinstance(price, str) else price for price in prices])
    amounts[~np.isfinite(amounts) | np.isin(np.arange(len(amounts)), list(known))] = 0.0
    sums = np.concatenate([[0.0], np.cumsum(amounts)])  # of all rows before
    counts = np.concatenate([[0], np.cumsum(amounts != 0)])
    since, of_totals = 0, 0.0  # first row after the last sum, and what such sums add up to
    for at in sorted(_may_be_sums(source, id_column, text_column)):
        if at in known or isinstance(prices[at], str):
            continue
        cells = (cell for name in source.columns if not is_missing(cell := _cell(source, name, at)))
        word = next(cells)
        is_mean = bool(_first_words(word) & _MEANS)
        above = (
            (sums[at] - sums[since], counts[at] - counts[since]),
            (sums[at] - of_totals, counts[at] - len(found)),
        )
        for total, n in above:
            right = total / n if is_mean and n else total
            if n > 1 and abs(amounts[at] - right) <= 0.0051 + 1e-6 * abs(right):
                found[at] = f"a line of totals: {word!r}"
                since, of_totals = at + 1, of_totals + amounts[at]
                break
    return found


def _may_be_sums(source: TableSource, id_column: str, text_column: str) -> set[int]:
    """Rows whose first cell begins with a word for totals, and, in a file without ids, rows without a text."""
    found: set[int] = set()
    if not source.n_rows:
        return found
    for column in source.columns.values():
        if not pa.types.is_string(column.type):
            continue
        for at in pc.indices_nonzero(
            pc.fill_null(pc.match_substring_regex(column, _BEGINS), False)
        ).to_pylist():
            first = next(cell for name in source.columns if not is_missing(cell := _cell(source, name, at)))
            if first == column[at].as_py().strip():
                found.add(at)
    if id_column not in source.columns and pa.types.is_string(source.columns[text_column].type):
        text = pc.utf8_trim_whitespace(source.columns[text_column].fill_null(""))
        for at in pc.indices_nonzero(pc.equal(text, "")).to_pylist():
            if all(
                is_missing(cell) or _is_amount(cell)
                for name in source.columns
                if (cell := _cell(source, name, at))
            ):
                found.add(at)
    return found


def _first_words(cell: str) -> set[str]:
    words = _WORD.findall(cell.lower())
    return {*words[:1], " ".join(words[:2])}


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
