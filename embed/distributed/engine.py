"""Runs a plan on Ray Data and hands the vectors to the job as they come: the job publishes them, as those of a local run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from embed.distributed.cluster import Cluster, clear_errors
from embed.distributed.layout import ClusterLayout
from embed.distributed.stages import EncoderActor, Work, decode, hand_on, probe, read
from embed.distributed.wire import batches_of, items_table, places_table
from embed.encoders.base import PREPARED_BY, Resolved
from embed.forward.devices import DeviceSettings
from embed.inputs.batch import Batch
from embed.job.catalog import CatalogSource, contents_of
from embed.job.source import Source
from store.catalog.images.links import known_links
from store.errors import EngineError, ShelfpriceError
from store.vectors.keys import key_bytes
from store.workspace import Workspace

PIXEL_BYTES = 16 * 2**20  # of decoded images that one call of an actor takes
TASK_BYTES = 4 * PIXEL_BYTES
ITEM_ROWS = (32, 1024)  # fewest and most rows of a task that reads or decodes
ITEMS_PER_ACTOR = 8
SAMPLE_ROWS = 64


@dataclass
class RayEncoder:
    """One encoder in a pool of actors. Implements `embed.job.run.Runner`."""

    workspace: Workspace
    resolved: Resolved
    cluster: Cluster
    settings: DeviceSettings

    def start(self, source: Source, missing: np.ndarray) -> str:
        """Connect, load the model in one worker and measure there; in words.

        Raises:
            EngineError: nothing could be scheduled.
            EncoderError: the weights can't be loaded.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        assert isinstance(source, CatalogSource)  # whose rows workers read by their place
        self._source, self._missing = source, missing
        layout = self.cluster.connect()
        self._work = self._describe(layout)
        options = _resources(layout)
        patience = self.cluster.give_up_seconds
        with clear_errors(f"{self.resolved.spec.name}: Ray failed"):
            task = ray.remote(probe).options(**options, max_retries=3).remote(self._work)
            try:
                found = ray.get(task, timeout=patience)
            except GetTimeoutError as error:
                ray.cancel(task, force=True)
                free = ray.available_resources()
                raise EngineError(
                    f"{self.resolved.spec.name}: no actor was ready in {patience:g} s. It wants {options['num_cpus']:g} CPUs and "
                    f"{options['num_gpus']:g} GPUs; free are {free.get('CPU', 0):g} and {free.get('GPU', 0):g}: is "
                    "the cluster busy, or the model slow to load (--give-up-after)?"
                ) from error
        if isinstance(found, ShelfpriceError):
            raise found
        chosen, self._provenance = found
        return f"{layout} on Ray {ray.__version__}, {chosen}"

    @contextmanager
    def results(self) -> Iterator[Iterator[tuple[Batch, np.ndarray]]]:
        """Vectors of every missing key, in any order, as workers finish them."""
        with clear_errors(f"{self.resolved.spec.name}: Ray failed"):
            yield self._stream()

    @property
    def still_seconds(self) -> float:
        """How long nothing may move, once the actors have started."""
        return self.cluster.give_up_seconds

    def provenance(self) -> dict[str, Any]:
        """Of the worker that measured; `host` is no single machine."""
        import ray

        layout = self.cluster.connect()
        engine = f"ray {ray.__version__}"
        return {**self._provenance, "engine": engine, "actors": layout.actors, "host": f"ray of {layout}"}

    # ---- the pipeline ----------------------------------------------------------------------------

    def _stream(self) -> Iterator[tuple[Batch, np.ndarray]]:
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        layout = self.cluster.connect()
        context = DataContext.get_current()
        context.target_max_block_size = PIXEL_BYTES
        context.wait_for_min_actors_s = int(self.cluster.give_up_seconds)
        context.execution_no_progress_timeout_s = self.still_seconds
        work, prepare = self._work, decode if self.resolved.spec.modality == "image" else read
        if PREPARED_BY in self.resolved.spec.preprocessing:
            prepare = hand_on
        items = [ray.put(table) for table in self._items(_item_rows(len(self._missing), layout))]
        rows: Any = ray.data.from_arrow_refs(items)  # type: ignore[arg-type]
        prepared = rows.map_batches(
            prepare,
            fn_args=(work,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=layout.task_cpus,
            memory=TASK_BYTES,  # another demand than the actors': Ray would fold decoding into them
        )
        encoded = prepared.map_batches(
            EncoderActor,
            fn_constructor_args=(work,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=layout.actors),
            **_resources(layout),
        )
        for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            yield from batches_of(table)

    def _items(self, rows: int) -> Iterator[pa.Table]:
        """What is to do, in parts of about `rows` rows that no one has to read twice."""
        spec = self.resolved.spec
        known = known_links(self.workspace) if spec.modality != "text" else {}
        for place in self._source.places(self._missing):
            name = str(place.vector_set)
            goes_along = place.vector_set.has_image or PREPARED_BY in spec.preprocessing
            contents = contents_of(place.vector_set, place.batch, known) if goes_along else []
            for start in range(0, len(place.keys), rows):
                part = slice(start, start + rows)
                if goes_along:
                    yield items_table(name, key_bytes(place.keys[part]), contents[part])
                else:
                    yield places_table(name, place.split, place.positions[part])

    def _describe(self, layout: ClusterLayout) -> Work:
        root = os.path.abspath(self.workspace.root) if self.workspace.is_local else self.workspace.root
        settings = self.settings
        if settings.devices == ("auto",):
            settings = replace(settings, devices=("all" if layout.actor_gpus > 1 else "auto",))
        if not layout.actor_gpus:
            settings = replace(settings, devices=("cpu",))
        n_rows = -(-len(self._missing) // layout.actors)
        first = next(self._source.windows(self._missing)).sample(SAMPLE_ROWS)
        sample = replace(first, images=None)  # which each worker opens for itself: no credentials are sent
        return Work(root, self.resolved, PIXEL_BYTES, n_rows, settings, layout.threads, sample)


def load_on_ray(
    workspace: Workspace, resolved: Sequence[Resolved], cluster: Cluster, settings: DeviceSettings
) -> list[RayEncoder]:
    """Encoders of one model; nothing is loaded until a plan begins."""
    return [RayEncoder(workspace, one, cluster, settings) for one in resolved]


def _resources(layout: ClusterLayout) -> dict[str, Any]:
    return {"num_cpus": layout.actor_cpus, "num_gpus": layout.actor_gpus}


def _item_rows(n_rows: int, layout: ClusterLayout) -> int:
    """Rows of one task: few enough that every actor has several to come."""
    return int(np.clip(n_rows // (ITEMS_PER_ACTOR * layout.actors), *ITEM_ROWS))
