"""EfficientNet-Lite0: the whole embed job against timm in fp32 behind a DataLoader, and against what the cores allow."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from io import BytesIO
from operator import add
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import (
    bare_seconds,
    chosen_mode,
    embed,
    growing,
    ingested,
    myntra_rows,
    native_type,
)

ENCODER = "efficientnet-lite0"
ROWS = 4000
PEER_ROWS = 600
ROUNDS = 3
PEER_BATCH = 32
OVER_PEER = {"bf16": 5.0, "fp32": 2.0}  # by what the processor computes in; the peer is in fp32


def measure(data: Path, rows: int | None) -> list[Result]:
    """Rows a second, on photos of 224 x 224 pixels."""
    images = data / "myntra/images"
    found = myntra_rows(data, rows or ROWS)
    if not found or not images.is_dir():
        return [Result.skipped("images", f"no photos in {images}")]
    runs, decode_seconds, forward_seconds, peer_seconds, n_peer = [], 0.0, 0.0, 0.0, 0
    with scratch() as folder:
        done: set[str] = set()
        for part in growing(found, ROUNDS):
            workspace = ingested(folder, part, images)
            runs.append(embed(workspace, ENCODER))
            spec, contents = _new_inputs(workspace, done)
            decode, forward = _limit(workspace, spec, contents)
            peer = contents[: PEER_ROWS // ROUNDS]
            peer_seconds += _peer(workspace, peer)
            decode_seconds, forward_seconds = decode_seconds + decode, forward_seconds + forward
            n_peer += len(peer)
    run = reduce(add, runs)
    peer_rate = n_peer / peer_seconds
    limit = run.n_rows / (decode_seconds + forward_seconds)
    whole, steady = run.n_rows / run.seconds, run.n_rows / run.steady_seconds
    figures: dict[str, Any] = {"rows": run.n_rows, "precision": run.precision}
    return [
        Result.at_least(
            "images against timm fp32 behind a DataLoader",
            whole / peer_rate,
            OVER_PEER[native_type()],
            f"on a processor of {native_type()}",
            **figures,
            job_rows_per_second=whole,
            peer_rows_per_second=peer_rate,
        ),
        Result.at_least(
            "images against the limit",
            steady / limit,
            0.9,
            "from the first batch to the last shard",
            **figures,
            job_rows_per_second=steady,
            limit_rows_per_second=limit,
            decode_seconds=decode_seconds,
            forward_seconds=forward_seconds,
        ),
        chosen_mode("images", run),
    ]


def _new_inputs(workspace: Any, done: set[str]) -> tuple[Any, list[bytes]]:
    """The encoder's spec, and the bytes of every image of the catalogue that is not done yet."""
    from store.catalog.images.blobs import read_blob
    from store.catalog.images.links import known_links
    from store.vectors.sets import current_spec

    digests = sorted(set(filter(None, known_links(workspace).values())) - done)
    done.update(digests)
    return current_spec(workspace, ENCODER), [read_blob(workspace, digest) for digest in digests]


def _limit(workspace: Any, spec: Any, contents: list[bytes]) -> tuple[float, float]:
    """Seconds of decoding alone and of forward passes alone, each with all the cores to itself."""
    import numpy as np

    from embed.encoders.base import Sources
    from embed.encoders.resolve import resolve
    from embed.forward.devices import DeviceSettings, cores
    from embed.forward.fleet import load_engines
    from embed.inputs.batch import Batch, RowWindow
    from embed.inputs.images import decode_image

    start = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        decoded = list(pool.map(partial(decode_image, preprocessing=spec.preprocessing), contents))
    decode_seconds = time.perf_counter() - start
    pixels = [one for one in decoded if isinstance(one, np.ndarray)]
    del decoded
    resolved = resolve(workspace, ENCODER, Sources(offline=True))
    (engine,) = load_engines(workspace, resolved, DeviceSettings())
    engine.begin(RowWindow(ENCODER, [], []), 0)  # what the job measured is remembered
    size = engine.provenance()["units"]
    batches = [
        Batch(ENCODER, [b""] * len(part), (np.stack(part),))
        for part in (pixels[at : at + size] for at in range(0, len(pixels), size))
    ]
    return decode_seconds, bare_seconds(engine, batches)


def _peer(workspace: Any, contents: list[bytes]) -> float:
    """Seconds of the same model in fp32 behind a DataLoader with two workers, as timm's users run it."""
    import timm
    import torch
    from PIL import Image

    from embed.encoders.base import Sources
    from embed.encoders.registry import library_of
    from embed.encoders.resolve import resolve

    resolved = resolve(workspace, ENCODER, Sources(offline=True))
    model: Any = library_of(resolved[0].address).load(resolved)[0].module
    transform: Any = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))

    class Photos(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(contents)

        def __getitem__(self, at: int) -> Any:
            return transform(Image.open(BytesIO(contents[at])).convert("RGB"))

    def run(loader: Iterator[Any]) -> None:
        with torch.inference_mode():
            for pixels in loader:
                model(pixels).numpy()

    run(iter([torch.zeros(PEER_BATCH, 3, *resolved[0].spec.preprocessing["size"])]))
    start = time.perf_counter()
    run(iter(torch.utils.data.DataLoader(Photos(), PEER_BATCH, num_workers=2)))
    return time.perf_counter() - start


if __name__ == "__main__":
    main(measure, embeds=True)
