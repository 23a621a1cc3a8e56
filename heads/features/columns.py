"""Further columns as words, each after its column's name, beside the texts that the catalogue composes."""

import re
from math import isfinite

import numpy as np

from heads.features.rows import FieldTable, Rows
from heads.features.tfidf import COLUMNS, UNSPACED_CHARACTER_OR_WORD
from store.errors import HeadError
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX

__all__ = ["COLUMNS", "column_words", "texts_of", "word_prefix"]

BEFORE_NAMES = "columns"  # what `COLUMNS` was when words of different columns were the same
BETWEEN = "__"  # between a column's name and a word; one run of letters, digits and _ is one term
DIGITS = 4  # of numbers, so that numbers that are nearly the same are one word
_MARKS = str.maketrans({".": "_", "-": "m", "+": None})


def word_prefix(name: str) -> str:
    """What stands before the words of a further column.

    >>> word_prefix("categorical:Screen size")
    'screen_size__'
    """
    plain = name.removeprefix(CATEGORICAL_PREFIX).removeprefix(NUMERIC_PREFIX)
    return re.sub(r"[\W_]+", "_", plain.lower()).strip("_") + BETWEEN


def column_words(fields: FieldTable) -> np.ndarray:
    """The words and numbers of all further columns, one text a row, shape (n_rows,) of str: "colour__red ram__16"."""
    further, written = fields.further(), []
    for name, column in further.categories.items():
        before, (held, at) = word_prefix(name), np.unique(column.codes, return_inverse=True)
        levels = [column.levels[code].lower() if code >= 0 else "" for code in held]
        cells = [" ".join(before + w for w in re.findall(UNSPACED_CHARACTER_OR_WORD, one)) for one in levels]
        written.append(np.array(cells, dtype=object)[at])
    for name, logs in zip(further.names, further.X.T, strict=True):
        before, (numbers, at) = word_prefix(name), np.unique(_rounded(logs), return_inverse=True)
        spelled = [f"{n:.{DIGITS}g}".translate(_MARKS) if isfinite(n) else "" for n in numbers.tolist()]
        written.append(np.array([one and before + one for one in spelled], dtype=object)[at])
    texts = [" ".join(cell for cell in cells if cell) for cells in zip(*written, strict=True)]
    return np.array(texts if written else [""] * len(fields.X), dtype=object)


def _rounded(logs: np.ndarray) -> np.ndarray:
    """The numbers that `signed_log` made these of, to `DIGITS` digits."""
    numbers = np.sign(logs) * np.expm1(np.abs(logs))
    with np.errstate(divide="ignore"):
        step = 10.0 ** (np.floor(np.log10(np.abs(numbers))) - DIGITS + 1)
    return np.where(numbers == 0, 0.0, np.round(numbers / np.where(numbers == 0, 1.0, step)) * step)


def texts_of(rows: Rows, composition: str) -> np.ndarray:
    """Texts of a composition, or the words of further columns, shape (n_rows,) of str.

    Raises:
        HeadError: an earlier version fitted the head on words of columns without their names.
    """
    if composition == BEFORE_NAMES:
        raise HeadError(
            "this head was fitted by an earlier version, which read further columns in another way: fit it again"
        )
    return column_words(rows.fields) if composition == COLUMNS else rows.text(composition)
