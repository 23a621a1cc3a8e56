"""Further columns of categories as words, beside the texts that the catalogue composes."""

import numpy as np

from heads.features.rows import FieldTable, Rows
from store.schema import CATEGORICAL_PREFIX

COLUMNS = "columns"  # in place of a composition: the words of further columns


def column_words(fields: FieldTable) -> np.ndarray:
    """The words of all further columns of categories, one text a row, shape (n_rows,) of str."""
    columns = [c for name, c in fields.categories.items() if name.startswith(CATEGORICAL_PREFIX)]
    written = [np.array([*column.levels, ""], dtype=object)[column.codes] for column in columns]
    texts = [" ".join(cell for cell in cells if cell) for cells in zip(*written, strict=True)]
    return np.array(texts if columns else [""] * len(fields.X), dtype=object)


def texts_of(rows: Rows, composition: str) -> np.ndarray:
    """Texts of a composition, or the words of further columns, shape (n_rows,) of str."""
    return column_words(rows.fields) if composition == COLUMNS else rows.text(composition)
