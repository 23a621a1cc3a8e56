"""Plan, publish, a plan with nothing to do and the matrix of a sample at 0.2, 2 and 20 million rows, with a fake encoder.

Time must grow with the rows and memory must hardly; the plan of 20 million rows has limits of its own. Each step is a
process of its own, whose peak memory is measured, and the seconds that processors worked for it: those are alike on a
busy machine. The image goes to docs/scale.svg.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.scale_chart import Taken, draw
from embed.forward.local import LocalRunner
from store.workspace import Workspace

ROWS = 20_000_000
STEPS = ("plan", "publish", "no-op plan", "matrix of a sample")
DIM = 8
SAMPLE_ROWS = 10_000
BATCH_ROWS = 4096
SHARD_BYTES = 2 * 2**20  # 65,536 rows, as many as of a usual encoder make 64 MiB
MOST_SECONDS, MOST_GIGABYTES = 60.0, 2.0
LINEAR = 1.5  # a row may cost so much more at ten times the rows
IMAGE = Path(__file__).parent.parent / "docs/scale.svg"


def measure(data: Path, rows: int | None) -> list[Result]:
    """Three sizes, ten times apart."""
    most = rows or ROWS
    found: dict[int, dict[str, Taken]] = {}
    for n_rows in (most // 100, most // 10, most):
        with scratch() as folder:
            made_catalog(Workspace(folder / "workspace"), n_rows)
            found[n_rows] = {step: _run(step, folder / "workspace") for step in STEPS}
        print(json.dumps({n_rows: {s: asdict(t) for s, t in found[n_rows].items()}}), file=sys.stderr)
    if most == ROWS:
        IMAGE.write_text(draw(found))
    noop = found[most]["no-op plan"]
    what = f"no-op plan of {most:,} rows"
    results = [
        Result.at_most(f"{what}, seconds", noop.seconds, MOST_SECONDS, "process start included"),
        Result.at_most(f"{what}, gigabytes", noop.gigabytes, MOST_GIGABYTES, "peak resident"),
    ]
    for step in STEPS:
        few, many = (found[n][step].processor_seconds / n for n in (most // 10, most))
        figures = {f"seconds_{n}": found[n][step].seconds for n in found}
        figures |= {f"processor_seconds_{n}": found[n][step].processor_seconds for n in found}
        figures |= {f"gigabytes_{n}": found[n][step].gigabytes for n in found}
        results.append(
            Result.at_most(
                f"{step}, processor seconds a row at ten times the rows", many / few, LINEAR, **figures
            )
        )
    return results


def made_catalog(workspace: Workspace, n_rows: int) -> None:
    """A catalogue of names and quantities, written in batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from store.catalog.read import split_path
    from store.digests import METADATA_KEY
    from store.schema import CATALOG_COLUMNS, PRICE

    schema = pa.schema(
        [pa.field("sample_id", pa.int64()), *(pa.field(n, t) for n, t in CATALOG_COLUMNS.items()), PRICE]
    ).with_metadata({METADATA_KEY: b'{"digest": "made"}'})

    def write(out: Any) -> None:
        with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
            for start in range(0, n_rows, 65_536):
                ids = range(start, min(start + 65_536, n_rows))
                n = len(ids)
                columns = {name: pa.nulls(n, schema.field(name).type) for name in schema.names}
                columns["sample_id"] = pa.array(ids, pa.int64())
                columns["name"] = pa.array([f"Farm kitchen smoked something, number {i}" for i in ids])
                columns["value"] = pa.array([float(1 + i % 40) for i in ids])
                columns["unit"] = pa.array(["ounce"] * n)
                columns["pack_count"] = pa.array([float(1 + i % 6) for i in ids])
                columns["price"] = pa.array([1.0 + i % 100 for i in ids])
                writer.write_table(pa.table(columns, schema=schema), row_group_size=8192)

    workspace.publish(split_path("train"), write)


def _run(step: str, root: Path) -> Taken:
    """One step in a process of its own."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.scale", "--step", step, str(root)])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{step} ended with code {child.returncode}")
    return Taken(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


# ---- the steps -----------------------------------------------------------------------------------


def _request(workspace: Workspace) -> Any:
    from embed.encoders.base import Address, Resolved
    from embed.job.catalog import CatalogSource
    from embed.job.run import EncodeRequest
    from store.vectors.sets import VectorSet
    from store.vectors.spec import EncoderSpec

    spec = EncoderSpec("fake", "text", "fake", "fake", "0" * 64, DIM, {}, "mean", False)
    resolved = Resolved(Address("fake", "fake", "fake"), spec, {}, "1")
    return EncodeRequest(resolved, CatalogSource(workspace, (VectorSet("fake", "structured"),)))


class FakeEncoder(LocalRunner):
    """Vectors without a model: what is measured is all the rest."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def begin(self, window: Any, n_rows: int) -> str:
        return "no model"

    def batches(self, windows: Iterator[Any]) -> Iterator[Any]:
        from embed.inputs.batch import Batch

        for window in windows:
            yield Batch(window.vector_set, window.keys, ())

    def encode(self, batches: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        import numpy as np

        for batch in batches:
            yield (
                batch,
                np.frombuffer(b"".join(batch.keys), np.uint8).reshape(-1, 16)[:, :DIM].astype(np.float32),
            )

    def provenance(self) -> dict[str, Any]:
        return {}


def plan(workspace: Workspace) -> None:
    """What `shelfprice embed plan` does."""
    from embed.job.plan import plan_encoder

    request = _request(workspace)
    plan_encoder(workspace, request.resolved, request.source)


def publish(workspace: Workspace) -> None:
    """What `shelfprice embed run` does, but for the model."""
    from embed.job.run import EmbedOptions, run

    options = EmbedOptions(shard_bytes=SHARD_BYTES, shard_seconds=1e9)
    run(
        workspace,
        [_request(workspace)],
        options,
        lambda found: [FakeEncoder(one.spec) for one in found],
        lambda line: None,
    )


def matrix(workspace: Workspace) -> None:
    """Vectors of rows spread over the catalogue, out of all shards."""
    import numpy as np
    import pyarrow as pa

    from store.vectors.matrix import gather
    from store.vectors.shard import iter_shards

    request, kept = _request(workspace), []
    n_shards = len(workspace.names(request.resolved.spec.folder, "part-"))
    for keys, _ in iter_shards(workspace, request.resolved.spec.folder):
        kept.append(
            keys.take(pa.array(np.linspace(0, len(keys) - 1, SAMPLE_ROWS // n_shards, dtype=np.int64)))
        )
    _, found = gather(workspace, request.resolved.spec, pa.concat_arrays(kept))
    assert found.all()


DO: dict[str, Callable[[Workspace], None]] = {
    "plan": plan,
    "publish": publish,
    "no-op plan": plan,
    "matrix of a sample": matrix,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        DO[sys.argv[2]](Workspace(sys.argv[3]))
    else:
        main(measure)
