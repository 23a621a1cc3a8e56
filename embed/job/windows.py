"""Rows that still lack a vector, streamed from the catalogue: memory holds one window."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embed.inputs.batch import RowWindow
from embed.job.plan import EncoderPlan
from store.catalog.images.links import digests_of, known_links
from store.catalog.parse.compose import compose
from store.catalog.read import present_splits
from store.vectors.keys import key_array, key_bytes, locate
from store.vectors.sets import VectorSet, iter_row_keys
from store.workspace import Workspace

WINDOW_ROWS = 4096  # enough to sort texts by length within


@dataclass(frozen=True)
class Places:
    """Where rows that lack a vector stand in the catalogue, a row for each key."""

    vector_set: VectorSet
    split: str
    positions: np.ndarray  # (n_rows,) rows of the split, ascending
    batch: pa.RecordBatch  # those rows, with the columns that decide their content
    keys: np.ndarray  # (n_rows,)


def iter_places(workspace: Workspace, plan: EncoderPlan) -> Iterator[Places]:
    """Every missing key of a plan exactly once, by the first row that has it; a catalogue batch at a time."""
    taken = np.zeros(len(plan.missing), dtype=bool)
    for one in plan.sets:
        for split in present_splits(workspace):
            start = 0
            for batch, row_keys in iter_row_keys(workspace, one.vector_set, split):
                filled = np.flatnonzero(row_keys.is_valid().to_numpy(zero_copy_only=False))
                keys = key_array(row_keys)
                at = locate(plan.missing, keys)
                new = np.flatnonzero(at >= 0)
                new = new[~taken[at[new]]]
                _, first = np.unique(at[new], return_index=True)
                new = new[np.sort(first)]
                taken[at[new]] = True
                if len(new):
                    chosen = batch.take(pa.array(filled[new]))
                    yield Places(one.vector_set, split, start + filled[new], chosen, keys[new])
                start += batch.num_rows


def iter_windows(workspace: Workspace, plan: EncoderPlan, rows: int = WINDOW_ROWS) -> Iterator[RowWindow]:
    """Every missing key of a plan exactly once, with its content."""
    known: dict[str, str | None] = {}
    for vector_set, places in itertools.groupby(iter_places(workspace, plan), lambda one: one.vector_set):
        keys: list[bytes] = []
        contents: list[str] = []
        for place in places:
            if vector_set.composition is None and not known:
                known = known_links(workspace)
            keys += key_bytes(place.keys)
            contents += contents_of(vector_set, place.batch, known)
            while len(keys) >= rows:
                yield RowWindow(str(vector_set), keys[:rows], contents[:rows])
                del keys[:rows], contents[:rows]
        if keys:
            yield RowWindow(str(vector_set), keys, contents)


def contents_of(
    vector_set: VectorSet, rows: pa.RecordBatch | pa.Table, known: Mapping[str, str | None]
) -> list[str]:
    """What enters the encoder for rows that have content: composed texts, or hex SHA-256 of images."""
    if vector_set.composition is None:
        contents: list[str] = digests_of(known, rows.column("image")).to_pylist()
    else:
        contents = compose(vector_set.composition, rows).to_pylist()
    return contents
