"""Ray's workers: they read rows, decode images and encode. Each opens the workspace itself; no credentials are sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from embed.distributed.wire import failures_of, images_table, items_table, pixels_of, results_table
from embed.encoders.base import Resolved
from embed.forward.devices import DeviceSettings
from embed.inputs import InputFailure
from embed.inputs.batch import Batch, RowWindow
from embed.inputs.decoded import read_image
from embed.inputs.images import decode_image
from embed.job.catalog import blob_reader, contents_of
from store.catalog.images.open import quiet_pillow
from store.catalog.read import split_path
from store.errors import ShelfpriceError, WorkspaceError
from store.vectors.keys import key_array, key_bytes
from store.vectors.sets import VectorSet, columns_of, row_keys
from store.workspace import Workspace

DECODE_THREADS = 4  # of a task: while one waits for the disk or the store, another decodes


@dataclass(frozen=True)
class Work:
    """Everything that a worker needs to know; plain data."""

    root: str  # of the workspace, as every machine reaches it
    resolved: Resolved
    pixel_bytes: int  # decoded images are handed on in parts of about so many bytes
    n_rows: int  # that fall to each actor
    settings: DeviceSettings
    threads: int
    sample: RowWindow  # that precision is measured on, where a device was never measured; without what reads images


def opened(work: Work) -> Workspace:
    """The workspace, as this machine sees it.

    Raises:
        WorkspaceError: this machine does not see it.
    """
    import platform

    workspace = Workspace(work.root)
    if not any(workspace.exists(split_path(split)) for split in ("train", "test")):
        raise WorkspaceError(
            f"machine {platform.node()} of the Ray cluster sees no catalogue at {work.root}: put the workspace on an "
            "object store, or on a disk that every machine mounts at the same path"
        )
    return workspace


def read(places: pa.Table, work: Work) -> pa.Table:
    """Places in the catalogue -> composed texts."""
    workspace = opened(work)
    name, split = places["set"][0].as_py(), places["split"][0].as_py()
    vector_set = VectorSet.parse(name, work.resolved.spec.modality)
    rows = rows_at(workspace, split, places["position"].to_numpy(), columns_of(vector_set))
    keys = key_array(row_keys(vector_set, rows, {}))
    return items_table(name, key_bytes(keys), contents_of(vector_set, rows, {}))


def hand_on(items: pa.Table, work: Work) -> pa.Table:
    """Contents for an encoder that opens images itself."""
    return items


def decode(items: pa.Table, work: Work) -> Iterator[pa.Table]:
    """Digests of images -> pixels, in parts; a failure is a row without pixels."""
    images = blob_reader(opened(work))
    preprocessing = work.resolved.spec.preprocessing
    to_pixels = partial(decode_image, preprocessing=preprocessing)
    name, size = items["set"][0].as_py(), tuple(preprocessing["size"])
    rows = max(1, work.pixel_bytes // (3 * size[0] * size[1]))
    with quiet_pillow(), ThreadPoolExecutor(DECODE_THREADS) as pool:
        for start in range(0, items.num_rows, rows):
            part = items.slice(start, rows)
            keys: list[bytes] = []
            pixels: list[np.ndarray] = []
            failures: list[tuple[bytes, InputFailure]] = []
            digests = part["content"].to_pylist()
            decoded = pool.map(lambda digest: read_image(images, digest, to_pixels), digests)
            for key, found in zip(part["key"].to_pylist(), decoded, strict=True):
                if isinstance(found, InputFailure):
                    failures.append((key, found))
                else:
                    keys.append(key)
                    pixels.append(found)
            yield images_table(name, keys, pixels, failures, size)


class EncoderActor:
    """An actor: holds one loaded model."""

    def __init__(self, work: Work) -> None:
        self._work = work
        try:
            self._engine, _ = loaded(work)
        except ShelfpriceError as error:
            raise type(error)(str(error)) from None

    def __call__(self, inputs: pa.Table) -> Iterator[pa.Table]:
        name = inputs["set"][0].as_py()
        if "pixels" in inputs.column_names:
            batches = self._images(name, inputs)
        else:
            vector_set = VectorSet.parse(name, self._work.resolved.spec.modality)
            images = blob_reader(opened(self._work)) if vector_set.has_image else None
            window = RowWindow(name, inputs["key"].to_pylist(), inputs["content"].to_pylist(), images)
            batches = self._engine.batches(iter([window]))
        for batch, vectors in self._engine.encode(batches):
            yield results_table(batch, vectors)

    def _images(self, name: str, inputs: pa.Table) -> Iterator[Batch]:
        keys, pixels = pixels_of(inputs, tuple(self._engine.spec.preprocessing["size"]))
        if failures := failures_of(inputs):
            yield Batch(name, [], (), failures=failures)
        for start in range(0, len(keys), self._engine.units):
            part = slice(start, start + self._engine.units)
            yield Batch(name, keys[part], (pixels[part].copy(),))  # Ray's memory is read-only, torch's is not


def probe(work: Work) -> tuple[str, dict[str, Any]] | ShelfpriceError:
    """Load the model and measure, as an actor would: what was chosen in words, and as provenance; or why not."""
    try:
        engine, chosen = loaded(work)
    except ShelfpriceError as error:
        return type(error)(str(error))  # without its cause, which may not be picklable
    return chosen, engine.provenance()


def loaded(work: Work) -> tuple[Any, str]:
    """The encoder on this worker's device, ready to run, and what was chosen.

    Raises:
        EncoderError: its weights can't be loaded.
    """
    from embed.forward.fleet import load_engines

    workspace = opened(work)
    (engine,) = load_engines(workspace, [work.resolved], replace(work.settings, threads=work.threads))
    is_image = work.resolved.spec.modality == "image"
    sample = replace(work.sample, images=blob_reader(workspace)) if is_image else work.sample
    return engine, engine.begin(sample, work.n_rows)


def rows_at(workspace: Workspace, split: str, positions: np.ndarray, columns: list[str]) -> pa.Table:
    """Catalogue rows at ascending positions; only row groups that hold some are read."""
    parts, start = [], 0
    with workspace.parquet(split_path(split)) as file:
        for group in range(file.metadata.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            here = positions[(positions >= start) & (positions < stop)]
            if len(here):
                parts.append(file.read_row_group(group, columns=columns).take(pa.array(here - start)))
            start = stop
    return pa.concat_tables(parts)
