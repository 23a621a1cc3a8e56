"""The catalogue as a source: texts composed of its rows, images that its rows name. Memory holds one window."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embed.inputs.batch import ImageReader, RowWindow
from embed.job.source import WINDOW_ROWS, SplitKeys, WantedKeys
from store.catalog.images.blobs import blob_path, read_blob
from store.catalog.images.links import known_links, row_images
from store.catalog.parse.compose import compose
from store.catalog.read import present_splits
from store.errors import StoreError, WorkspaceError
from store.vectors.keys import KeyBuffer, key_array, key_bytes, locate
from store.vectors.sets import VectorSet, iter_image_keys
from store.workspace import Workspace


@dataclass(frozen=True)
class Places:
    """Where rows that lack a vector stand in the catalogue, a row for each key."""

    vector_set: VectorSet
    split: str
    positions: np.ndarray  # (n_rows,) rows of the split, ascending
    batch: pa.RecordBatch  # those rows, with the columns that decide their content
    keys: np.ndarray  # (n_rows,)


@dataclass(frozen=True)
class CatalogSource:
    """Every row of every split, as some vector sets of one encoder see it. Implements `embed.job.source.Source`."""

    workspace: Workspace
    vector_sets: tuple[VectorSet, ...]

    def wanted(self) -> WantedKeys:
        """Stream every split once per set."""
        splits = present_splits(self.workspace)
        return WantedKeys(
            {str(s): {split: self._split_keys(s, split) for split in splits} for s in self.vector_sets}
        )

    def places(self, missing: np.ndarray) -> Iterator[Places]:
        """Every missing key exactly once, by the first row that has it; a catalogue batch at a time."""
        taken = np.zeros(len(missing), dtype=bool)
        for vector_set in self.vector_sets:
            for split in present_splits(self.workspace):
                start = 0
                for parts in iter_image_keys(self.workspace, vector_set, split):
                    for batch, row_keys in parts:
                        filled = np.flatnonzero(row_keys.is_valid().to_numpy(zero_copy_only=False))
                        keys = key_array(row_keys)
                        at = locate(missing, keys)
                        new = np.flatnonzero(at >= 0)
                        new = new[~taken[at[new]]]
                        _, first = np.unique(at[new], return_index=True)
                        new = new[np.sort(first)]
                        taken[at[new]] = True
                        if len(new):
                            chosen = batch.take(pa.array(filled[new]))
                            yield Places(vector_set, split, start + filled[new], chosen, keys[new])
                    start += parts[0][0].num_rows

    def windows(self, missing: np.ndarray) -> Iterator[RowWindow]:
        """See `Source`."""
        known: dict[str, str | None] = {}
        for vector_set, places in itertools.groupby(self.places(missing), lambda one: one.vector_set):
            if vector_set.has_image and not known:
                known = known_links(self.workspace)
            images = blob_reader(self.workspace) if vector_set.has_image else None
            keys: list[bytes] = []
            contents: list[str] = []
            for place in places:
                keys += key_bytes(place.keys)
                contents += contents_of(vector_set, place.batch, known)
                while len(keys) >= WINDOW_ROWS:
                    yield RowWindow(str(vector_set), keys[:WINDOW_ROWS], contents[:WINDOW_ROWS], images)
                    del keys[:WINDOW_ROWS], contents[:WINDOW_ROWS]
            if keys:
                yield RowWindow(str(vector_set), keys, contents, images)

    def _split_keys(self, vector_set: VectorSet, split: str) -> SplitKeys:
        found, n_rows, n_filled = KeyBuffer(), 0, 0
        for parts in iter_image_keys(self.workspace, vector_set, split):
            n_rows += parts[0][0].num_rows
            has_content = np.zeros(parts[0][0].num_rows, dtype=bool)
            for _, keys in parts:
                has_content |= keys.is_valid().to_numpy(zero_copy_only=False)
                found.add(keys)
            n_filled += int(has_content.sum())
        keys, rows = found.counted()
        return SplitKeys(n_rows, n_filled, keys, rows)


def contents_of(
    vector_set: VectorSet, rows: pa.RecordBatch | pa.Table, known: Mapping[str, str | None]
) -> list[str]:
    """What enters the encoder for rows that have content, as `RowWindow.contents` holds it."""
    images: list[str] = row_images(rows.column("image"), known).to_pylist() if vector_set.has_image else []
    texts: list[str] = compose(vector_set.text, rows).to_pylist() if vector_set.text else []
    if images and texts:
        return [f"{image or ''}\n{text or ''}" for image, text in zip(images, texts, strict=True)]
    return images or texts


def blob_reader(workspace: Workspace) -> ImageReader:
    """Images of a workspace by their hex SHA-256."""

    def read(sha256_hex: str) -> bytes:
        try:
            return read_blob(workspace, sha256_hex)
        except StoreError:
            raise
        except WorkspaceError as error:
            raise WorkspaceError(f"{error}, then 'shelfprice embed run --retry-failed'") from error

    if not workspace.is_local:
        return ImageReader(read, waits=True)
    return ImageReader(read, file=lambda sha256_hex: (workspace.path(blob_path(sha256_hex)), sha256_hex))
