"""Workspaces of real rows, and the embed job on them, as the command runs it."""

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Result
from store.workspace import Workspace

csv.field_size_limit(2**27)


def myntra_rows(data: Path, rows: int) -> list[dict[str, str]]:
    """The first rows of the Myntra catalogue; none where it is absent."""
    path = data / "myntra/train.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row, _ in zip(csv.DictReader(file), range(rows), strict=False)]


def first_rows(source: Path, rows: int, target: Path) -> Path:
    """The first rows of a CSV as a file of its own."""
    with (
        source.open(encoding="utf-8", newline="") as file,
        target.open("w", encoding="utf-8", newline="") as out,
    ):
        reader = csv.DictReader(file)
        writer = csv.DictWriter(out, list(reader.fieldnames or []))
        writer.writeheader()
        writer.writerows(row for row, _ in zip(reader, range(rows), strict=False))
    return target


def ingested(folder: Path, rows: Sequence[dict[str, str]], images: Path | None = None) -> Workspace:
    """A workspace of these rows; called again with more rows, the same one with more to embed."""
    from store.catalog.ingest.run import ingest

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    workspace = Workspace(folder / "workspace")
    ingest(workspace, str(path), images=str(images) if images else None)
    return workspace


def growing(rows: Sequence[dict[str, str]], rounds: int) -> Iterator[list[dict[str, str]]]:
    """The first part of the rows, then more and more: what is compared takes turns, and noise falls on both."""
    for turn in range(1, rounds + 1):
        yield list(rows[: len(rows) * turn // rounds])


@dataclass(frozen=True)
class EmbedRun:
    """One `embed run` of one encoder."""

    n_rows: int  # that were embedded
    seconds: float  # from nothing: model load, measuring, and publishing included
    steady_seconds: float  # from the first batch to the last shard
    precision: str
    over_fp32: float  # rows a second of the chosen mode over torch's in fp32, as measured at the start
    over_torch: float  # and over torch's fastest mode

    def __add__(self, later: "EmbedRun") -> "EmbedRun":
        return EmbedRun(
            self.n_rows + later.n_rows,
            self.seconds + later.seconds,
            self.steady_seconds + later.steady_seconds,
            later.precision,
            self.over_fp32,
            self.over_torch,
        )


def embed(workspace: Workspace, name: str, **settings: Any) -> EmbedRun:
    """One `embed run` in this process; `settings` are those of `embed.forward.devices.DeviceSettings`."""
    from embed.encoders.base import Sources
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import load_engines
    from embed.job.request import find_requests
    from embed.job.run import EmbedOptions, run

    engines: list[Any] = []

    def load(resolved: Any) -> Any:
        engines.extend(load_engines(workspace, resolved, DeviceSettings(**settings)))
        return engines

    start = time.perf_counter()
    requests = find_requests(workspace, [name], Sources(offline=True))
    (outcome,) = run(workspace, requests, EmbedOptions(), load, lambda line: print(line, file=sys.stderr))
    seconds = time.perf_counter() - start
    precision = engines[0].provenance()["precision"]
    rates = _measured(workspace, outcome.plan.spec.folder)
    return EmbedRun(
        outcome.n_embedded,
        seconds,
        outcome.seconds,
        precision,
        rates.get(precision, 1.0) / rates.get("fp32", 1.0),
        rates.get(precision, 1.0)
        / max([rate for mode, rate in rates.items() if "openvino" not in mode] or [1.0]),
    )


def copy_measurement(first: Path, workspace: Workspace) -> None:
    """What a first run measured and converted, for a workspace that is to be like the second one's."""
    for pattern in ("vectors/*/measured-*.json", "vectors/*/openvino/*"):
        for path in first.glob(pattern):
            workspace.publish_bytes(str(path.relative_to(first)), path.read_bytes())


def bare_seconds(engine: Any, batches: Sequence[Any]) -> float:
    """Seconds of the forward passes alone of an engine that has begun: OpenVINO's own side by side where it runs on it."""
    from embed.forward.openvino import side_by_side

    passes = engine._ready()

    def run(some: Sequence[Any]) -> None:
        if passes.mode.engine == "torch":
            list(engine.encode(iter(some)))
        elif len(some) <= passes.n_streams:
            for batch in some:
                passes.alone(batch)
        else:
            list(side_by_side((passes, batch) for batch in some))

    run([batches[0]] * (1 + passes.most_waiting))  # to warm up
    start = time.perf_counter()
    run(batches)
    return time.perf_counter() - start


def native_type() -> str:
    """The fastest type that this processor computes in: which a ratio against a peer in fp32 depends on."""
    from embed.forward.converted import installed_version
    from embed.forward.openvino import native_types

    return native_types()[0] if installed_version() else "fp32"


def chosen_mode(name: str, run: EmbedRun) -> Result:
    """The mode that was chosen must not be slower than the fastest of torch."""
    title = f"{name}, chosen mode against torch's fastest"
    return Result.at_least(title, run.over_torch, 1.0, precision=run.precision, over_fp32=run.over_fp32)


def least_over_fp32(gain: float) -> float:
    """What is wanted of the job over a peer that computes in fp32: most of what the faster type is worth here."""
    return 0.9 * gain if native_type() == "bf16" else 1.2


def _measured(workspace: Workspace, folder: str) -> dict[str, float]:
    (record,) = workspace.names(folder, "measured-", ".json")
    rates: dict[str, float] = workspace.read_json(f"{folder}/{record}")["rows_per_second"]
    return rates


def bf16_gain(edge: int = 2048) -> float:
    """How many times faster a bare matrix product is in bf16 than in fp32 here: what no encoder can much exceed."""
    import torch

    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.ones(edge, edge, dtype=dtype) for _ in range(2))
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(a, b)
            taken.append(time.perf_counter() - start)
        seconds[dtype] = min(taken)
    return seconds[torch.float32] / seconds[torch.bfloat16]
