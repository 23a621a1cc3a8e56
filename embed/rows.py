"""Rows that still lack a vector, streamed from the catalogue: memory holds one window."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from embed.inputs.batch import Window
from embed.plan import EncoderPlan
from store.catalog.compose import compose
from store.catalog.images import image_digests
from store.catalog.read import present_splits
from store.vectors.keys import key_array, key_bytes, locate
from store.vectors.sets import VectorSet, iter_row_keys
from store.workspace import Workspace

WINDOW_ROWS = 4096  # enough to sort texts by length within


def iter_windows(workspace: Workspace, plan: EncoderPlan, rows: int = WINDOW_ROWS) -> Iterator[Window]:
    """Every missing key of a plan exactly once, with its content."""
    taken = np.zeros(len(plan.missing), dtype=bool)
    for one in plan.sets:
        keys: list[bytes] = []
        contents: list[str] = []
        for split in present_splits(workspace):
            for more_keys, more_contents in _missing(workspace, one.vector_set, split, plan.missing, taken):
                keys += more_keys
                contents += more_contents
                while len(keys) >= rows:
                    yield Window(str(one.vector_set), keys[:rows], contents[:rows])
                    del keys[:rows], contents[:rows]
        if keys:
            yield Window(str(one.vector_set), keys, contents)


def _missing(
    workspace: Workspace, vector_set: VectorSet, split: str, missing: np.ndarray, taken: np.ndarray
) -> Iterator[tuple[list[bytes], list[str]]]:
    digests = image_digests(workspace) if vector_set.composition is None else {}
    for batch, row_keys in iter_row_keys(workspace, vector_set, split):
        filled = np.flatnonzero(row_keys.is_valid().to_numpy(zero_copy_only=False))
        keys = key_array(row_keys)
        at = locate(missing, keys)
        new = np.flatnonzero(at >= 0)
        new = new[~taken[at[new]]]
        _, first = np.unique(at[new], return_index=True)
        new = new[np.sort(first)]
        if not len(new):
            continue
        taken[at[new]] = True
        chosen = batch.take(pa.array(filled[new]))
        if vector_set.composition is None:
            contents = [digests[reference] for reference in chosen.column("image").to_pylist()]
        else:
            contents = compose(vector_set.composition, chosen).to_pylist()
        yield key_bytes(keys[new]), contents
