"""Rows a second from JPEG files and texts to shards, as a ratio to the bare forward pass on tensors that are ready."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.finetune import device_clock
from benchmarks.gpu.checks import check_chosen, resolved_of
from benchmarks.gpu.models import CLIP_L, DECODER, Scale, save_photos, texts
from benchmarks.report import Result
from embed.encoders.base import Resolved
from embed.forward.devices import DeviceSettings, cores
from embed.forward.engine import START_UNITS, Engine
from embed.forward.fleet import load_engines
from embed.inputs.batch import Batch, RowWindow
from embed.inputs.decoders import DecoderProcesses
from embed.job.items import ITEMS, ItemSource, image_items, text_items
from embed.job.run import EmbedOptions, EncodeRequest, run
from embed.job.source import WINDOW_ROWS
from store.workspace import Workspace

OF_BARE = 0.9
BARE_SECONDS = 3.0  # that the bare pass is measured for
READY_BATCHES = 4  # of images that are on the device at once
TEXTS_PER_IMAGE = 4  # of an end-to-end figure
MANY_ROWS = 10**9  # of work ahead, as the autotuner is told: compiling is tried
CARD_GB = 24.0  # that an 8B model is to fit, with room for a batch
H100_IMAGES = 640.0  # a second, of ViT-L/14


def measure(folder: Path, address: str, name: str, device: str, scale: Scale, compiles: bool) -> list[Result]:
    """One encoder: chosen as a run chooses, then the job and the bare pass on the same rows."""
    import torch

    one = resolved_of(folder, address)
    is_cuda, is_image = device.startswith("cuda"), one.spec.modality == "image"
    most = scale.most_rows if is_image else TEXTS_PER_IMAGE * scale.most_rows
    settings = DeviceSettings((device,), openvino=False, always_measured=True)
    (found,) = load_engines(Workspace(folder / "memory"), [one], settings)
    engine = cast(Engine, found)
    before = torch.cuda.memory_allocated(device) if is_cuda else 0
    start = time.perf_counter()
    first = _window(folder, one, min(256 if is_image else WINDOW_ROWS, scale.most_rows), scale)
    said = engine.begin(first, len(first.keys))
    decoded = decode_rate(folder, one, scale) if is_image else np.inf
    if compiles and decoded > _measured_rate(engine):  # or the job would not be faster
        said = engine.begin(first, MANY_ROWS)
    start_seconds = time.perf_counter() - start
    results = [check_chosen(folder, engine, address, name, scale)] if name != DECODER else []
    rows = _window(folder, one, min(2 * engine.units, most) if is_image else len(first.keys), scale)
    # Texts come sorted by length: all of them, or the longest alone would be measured.
    batches = list(itertools.islice(engine.batches(iter([rows])), READY_BATCHES if is_image else None))
    bare = bare_rate(engine, batches, min(BARE_SECONDS, scale.seconds))
    n_rows = int(np.clip(bare * scale.seconds, min(64, most), most))
    source = _source(folder, one, n_rows, scale)
    job = end_to_end(folder / f"run-{name.replace(' ', '-')}", engine, one, source)
    rate = job["job_rows_per_second"]
    figures: dict[str, Any] = {
        **job,
        "bare_rows_per_second": bare,
        "batch_units": engine.units,
        "start_seconds": start_seconds,
    }
    limit, note = bare, said.partition(": ")[2]
    if is_image:
        figures |= {"decoded_per_second_and_core": decoded / cores(), "cores": cores()}
        if decoded < bare:
            limit = decoded
            note = f"decoding is the limit, of {limit:.0f} images a second; {note}"
    results.append(Result.at_least(f"{name}: job against its limit", rate / limit, OF_BARE, note, **figures))
    if (
        CLIP_L in name
        and one.spec.modality == "image"
        and is_cuda
        and "H100" in torch.cuda.get_device_name(device)
    ):
        results.append(Result.at_least(f"{name}: images a second", rate, H100_IMAGES, "an H100"))
    if name == DECODER and is_cuda:
        weights = (one.memory_bytes or 0) / 1e9
        results.append(
            Result.at_most(
                f"{name}: GB of memory with one batch",
                _peak_gb(engine, batches[0], device, before),
                CARD_GB,
                weights_gb=weights,
            )
        )
    return results


def _measured_rate(engine: Engine) -> float:
    """Rows a second of the mode that was chosen."""
    choice = engine._choice
    return choice.rows_per_second.get(str(choice.mode), 0.0) if choice else 0.0


def bare_rate(engine: Any, batches: list[Any], seconds: float) -> float:
    """Rows a second of the chosen network alone, on tensors that are on the device, scaled and padded."""
    import torch

    from embed.forward.passes import n_tokens_of, scaled

    passes = engine._ready()
    device = passes._device
    ready = []
    for batch in batches:
        inputs = tuple(torch.from_numpy(array).to(device) for array in batch.arrays)
        if passes._spec.modality == "image":
            inputs = (scaled(inputs[0], passes._spec.preprocessing, passes.mode.channels_last),)
        ready.append((inputs, n_tokens_of(batch)))
    with passes.running():
        for _ in range(3):  # compiled, recorded, replayed
            for inputs, n_tokens in ready:
                passes.compute(inputs, n_tokens)
        n_rows, start = 0, device_clock(device)
        while n_rows == 0 or device_clock(device) - start < seconds:
            for batch, (inputs, n_tokens) in zip(batches, ready, strict=True):
                passes.compute(inputs, n_tokens)
                n_rows += len(batch.keys)
        return n_rows / (device_clock(device) - start)


def end_to_end(folder: Path, engine: Any, one: Resolved, source: ItemSource) -> dict[str, Any]:
    """A job, from the first batch to the last shard, by an engine that has begun: its mode, rows a second, and times."""
    times = JobTimes(engine.encode)
    engine.begin = lambda window, n_rows: ""
    engine.encode = times.encode
    try:
        (outcome,) = run(
            Workspace(folder),
            [EncodeRequest(one, source)],
            EmbedOptions(is_current=False, progress=False),
            lambda resolved: [engine],
            lambda line: None,
        )
    finally:
        del engine.begin, engine.encode
    return {
        "precision": engine.provenance()["precision"],
        "rows": outcome.n_embedded,
        "job_rows_per_second": outcome.n_embedded / outcome.seconds,
        **times.figures(outcome.seconds),
    }


class JobTimes:
    """When a job's vectors come, and how long the model waits for inputs.

    Args:
        encode: of the engine.
    """

    def __init__(self, encode: Callable[[Iterator[Batch]], Iterator[tuple[Batch, np.ndarray]]]) -> None:
        self._encode = encode
        self._waited: list[float] = []  # for each batch
        self._came: list[tuple[float, int]] = []  # time and rows of each batch's vectors
        self._start = 0.0

    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """As the engine does."""
        self._start = time.perf_counter()
        for batch, vectors in self._encode(self._timed(batches)):
            self._came.append((time.perf_counter(), len(batch.keys)))
            yield batch, vectors

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited.append(time.perf_counter() - start)
            yield batch

    def figures(self, seconds: float) -> dict[str, float]:
        """Of a job that took so long: until its first vectors, from its last ones on, and what it does in between."""
        (first, n_first), (last, _) = self._came[0], self._came[-1]
        found = {
            "first_vectors_after_seconds": first - self._start,
            "waited_for_inputs_seconds": sum(self._waited[2:]),  # two are prepared before the first is done
            "seconds_after_last_vectors": seconds - (last - self._start),
        }
        if last > first:
            n_rows = sum(n for _, n in self._came) - n_first
            found["rows_per_second_in_between"] = n_rows / (last - first)
        return found


def decode_rate(folder: Path, one: Resolved, scale: Scale) -> float:
    """JPEG files a second that every core together reads, decodes and resizes for an encoder, and nothing else."""
    source = image_items(save_photos(folder / "photos-decoded", 64, scale.photo_edge))
    keys = source.wanted().sets[ITEMS][ITEMS].keys
    (window,) = source.windows(keys)
    assert window.images is not None
    with DecoderProcesses(one.spec.preprocessing) as decode, ThreadPoolExecutor(cores()) as pool:
        parts = [window.contents[at : at + decode.at_once] for at in range(0, 64, decode.at_once)]
        parts *= max(1, 16 * cores() // len(parts))
        decoded = partial(decode, window.images)
        list(pool.map(decoded, parts))  # they have begun
        n, start = 0, time.perf_counter()
        while n == 0 or time.perf_counter() - start < min(2.0, scale.seconds):
            n += sum(len(found.pixels) for found in pool.map(decoded, parts))
        return n / (time.perf_counter() - start)


def _source(folder: Path, one: Resolved, n_rows: int, scale: Scale) -> ItemSource:
    if one.spec.modality == "image":
        return image_items(save_photos(folder / "photos", n_rows, scale.photo_edge))
    return text_items(texts(n_rows))


def _window(folder: Path, one: Resolved, n_rows: int, scale: Scale) -> RowWindow:
    source = _source(folder, one, n_rows, scale)
    return next(source.windows(source.wanted().sets[ITEMS][ITEMS].keys))


def _peak_gb(engine: Any, batch: Any, device: str, before: int) -> float:
    """Of the weights and a pass over as many tokens as a run begins with."""
    import torch

    n = max(1, START_UNITS["text", "gpu"] // batch.arrays[0].shape[1])
    few = replace(batch, keys=batch.keys[:n], arrays=tuple(array[:n] for array in batch.arrays))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    list(engine.encode(iter([few])))
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9
