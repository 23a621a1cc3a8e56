"""Assembling 75,000 x 2,432 vectors out of the cache in another row order, against np.load plus the same gather."""

import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import Result, main, scratch
from store.vectors.matrix import gather
from store.vectors.shard import publish_shard
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

ROWS, DIM = 75_000, 2432
SHARD_ROWS = 8192
REPEATS = 7


def measure(data: Path, rows: int | None) -> list[Result]:
    """Both read warm files, in turns; the figures are medians."""
    n_rows = rows or ROWS
    random = np.random.default_rng(0)
    X = random.standard_normal((n_rows, DIM), dtype=np.float32).astype(np.float16)
    keys = [hashlib.sha256(str(i).encode()).digest()[:16] for i in range(n_rows)]
    order = random.permutation(n_rows)
    asked = pa.array([keys[i] for i in order], pa.binary(16))
    spec = EncoderSpec(
        name="random",
        modality="image",
        library="none",
        model="random",
        weights_sha256="0" * 64,
        dim=DIM,
        preprocessing={},
        pooling="none",
        normalize=False,
    )
    with scratch() as folder:
        workspace = Workspace(folder / "workspace")
        for start in range(0, n_rows, SHARD_ROWS):
            part = slice(start, start + SHARD_ROWS)
            publish_shard(workspace, spec.folder, pa.array(keys[part], pa.binary(16)), X[part], {})
        np.save(folder / "X.npy", X)
        del X

        def from_npy() -> np.ndarray:
            return np.load(folder / "X.npy")[order].astype(np.float32)

        def from_cache() -> np.ndarray:
            return gather(workspace, spec, asked, np.float32)[0]

        np.testing.assert_array_equal(from_npy(), from_cache())
        npy, cache = _medians(from_npy, from_cache)
    return [
        Result.at_most(
            "matrix", cache / npy, 2.0, rows=n_rows, dim=DIM, cache_seconds=cache, numpy_seconds=npy
        )
    ]


def _medians(*functions: Callable[[], object]) -> list[float]:
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for taken, function in zip(seconds, functions, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


if __name__ == "__main__":
    main(measure)
