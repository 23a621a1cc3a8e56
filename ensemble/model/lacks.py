"""By how much prices move where a row lacks its text, its image or its further columns."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ensemble.model.pricing import FURTHER, Pricer
from ensemble.model.rows import RowShape, composed, with_further_columns
from heads.features.fields import field_table
from heads.features.inputs import Inputs
from heads.features.rows import Rows
from store.catalog.parse.fields import field_columns
from store.catalog.read import read_split
from store.vectors.matrix import Matrix
from store.vectors.sets import VectorSet
from store.workspace import Workspace

MOVED_ROWS = 200  # rows that this is measured on


def lacks(
    pricer: Pricer, shape: RowShape, workspace: Workspace, found: Inputs, train: pa.Table
) -> dict[str, np.ndarray]:
    """By how much log prices move where text, image or further columns are taken away, each (n_rows,)."""
    rows, table = found.train, train
    if found.test is not None and len(found.test) >= MOVED_ROWS:
        rows, table = found.test, read_split(workspace, "test").combine_chunks()
    index = np.arange(0, len(rows), max(1, len(rows) // MOVED_ROWS))
    rows, table = rows.subset(index), table.take(pa.array(index))
    before = pricer.log_price(rows)
    without: dict[str, Rows] = {}
    if any(one.has_image for one in shape.sets):
        without["image"] = replace(rows, matrices=_taken(rows, shape, lambda one: one.has_image))
    wordless = _wordless(table)
    without["text"] = replace(
        rows,
        matrices=_taken(rows, shape, lambda one: one.text is not None),
        texts={name: composed(wordless, name) for name in shape.compositions},
        fields=field_table(wordless, columns=shape.columns),
    )
    if further := [*shape.columns.numeric, *shape.columns.categorical]:
        bare = with_further_columns(
            table.drop_columns([n for n in further if n in table.column_names]), shape.columns
        )
        without[FURTHER] = replace(rows, fields=field_table(bare, columns=shape.columns))
    return {name: np.abs(pricer.log_price(lacking) - before) for name, lacking in without.items()}


def _wordless(table: pa.Table) -> pa.Table:
    """Catalogue rows as they would be read with an empty text."""
    texts = [""] * len(table)
    for name, column in {"text": pa.array(texts), **field_columns(texts)}.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _taken(rows: Rows, shape: RowShape, which: Callable[[VectorSet], bool]) -> tuple[Matrix, ...]:
    chosen = {str(one) for one in shape.sets if which(one)}
    return tuple(
        replace(matrix, X=np.zeros_like(np.asarray(matrix.X)), valid=np.zeros(len(rows), bool))
        if matrix.name in chosen
        else matrix
        for matrix in rows.matrices
    )
