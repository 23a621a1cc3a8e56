"""Ingest to submission on a demo catalogue of many rows, off made-up vectors: each head by itself, time and memory.

As many test rows as training rows. Vectors are random ones with the product's price, size and wrapping mixed in, so that
nothing is embedded. Each step is a process of its own; its processor seconds are alike on a busy machine. With `--work`
what was measured is kept, and a measurement that was cut off goes on where it stopped.
"""

import csv
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.report import Result, main, scratch

ROWS = 75_000  # of training, and as many of the test set: the challenge's size
SETS = {("text", "structured"): 384, ("image", "full"): 2848}  # as wide as the default encoders'
HIDDEN = 48  # directions that say nothing of the price, beside the four that do
MOST_MINUTES, MOST_GIGABYTES = 15.0, 8.0
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Step:
    """What one command took, the start of its process included."""

    seconds: float
    processor_seconds: float
    gigabytes: float  # peak resident
    smape: float | None = None  # out of fold


OPTIONS = (
    click.option(
        "--head", "heads", multiple=True, help="This head, again for more. Default: those of a run."
    ),
    click.option(
        "--work", type=click.Path(path_type=Path), help="Keep the workspace here, and go on with it."
    ),
)


def measure(
    data: Path, rows: int | None, heads: tuple[str, ...] = (), work: Path | None = None
) -> list[Result]:
    """Every step that was not measured before, in the order of a run; named heads alone are not blended."""
    if work is None:
        with scratch() as folder:
            return measure(data, rows, heads, folder)
    from heads.defaults import configured_heads
    from store.config import load_config
    from store.workspace import Workspace

    n_rows, root = rows or ROWS, work / "workspace"
    steps = _Steps(work / "measured.json", root)
    if not (work / "train.csv").is_file():
        _write_catalogue(work, n_rows)
    steps.run("ingest", "catalog", "ingest", "--train", f"{work}/train.csv", "--test", f"{work}/test.csv")
    if not (root / "vectors").is_dir():
        _publish_vectors(work)
    workspace = Workspace(str(root))
    defaults = configured_heads(workspace, load_config(workspace))
    for head in heads or defaults:
        steps.run(head, "heads", "run", "--head", head)
    if not heads:
        steps.run("blend", "ensemble", "blend")
        steps.run("submit", "ensemble", "submit")
    return _results(steps.found, (*defaults, "ingest", "blend", "submit"), n_rows)


def _results(found: dict[str, Step], job: tuple[str, ...], n_rows: int) -> list[Result]:
    results = [
        Result.at_most(
            f"{name}, gigabytes at {n_rows:,} rows", step.gigabytes, MOST_GIGABYTES, **asdict(step)
        )
        for name, step in found.items()
    ]
    if not set(job) <= set(found):
        return results
    of_job = [found[name] for name in job]
    return [
        *results,
        Result.at_most(
            f"ingest to submission, minutes at {n_rows:,} rows",
            sum(step.seconds for step in of_job) / 60,
            MOST_MINUTES,
            f"{len(os.sched_getaffinity(0))} cores",
            processor_minutes=sum(step.processor_seconds for step in of_job) / 60,
        ),
    ]


class _Steps:
    """Runs commands, each once, and keeps what they took."""

    def __init__(self, file: Path, root: Path) -> None:
        self._file, self._root = file, root
        self.found = self._kept()

    def run(self, name: str, *arguments: str) -> None:
        """One command of `shelfprice`, unless it was measured before."""
        if name in self.found:
            return
        command = [sys.executable, "-m", "store.cli", *arguments, "-w", str(self._root), "--json"]
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{name} ended with code {child.returncode}")
        smape = json.loads(said)["heads"][0]["smape"] if arguments[0] == "heads" else None
        seconds = round(time.perf_counter() - started, 1)
        processor_seconds = round(usage.ru_utime + usage.ru_stime, 1)
        step = Step(seconds, processor_seconds, round(usage.ru_maxrss / 2**20, 2), smape)
        self.found = self._kept() | {name: step}  # another process may have measured another head meanwhile
        print(f"{name}: {self.found[name]}", file=sys.stderr)
        self._file.write_text(json.dumps({key: asdict(step) for key, step in self.found.items()}, indent=1))

    def _kept(self) -> dict[str, Step]:
        known = json.loads(self._file.read_text()) if self._file.is_file() else {}
        return {name: Step(**one) for name, one in known.items()}


# ---- the catalogue -------------------------------------------------------------------------------


def _write_catalogue(work: Path, n_rows: int) -> None:
    """`train.csv`, `test.csv`, and in `known.npz` what vectors are to carry of each row."""
    from store.catalog.demo.generate import rows_of_demo
    from store.catalog.demo.writing import write

    work.mkdir(parents=True, exist_ok=True)
    ids, known = [], []
    for split, rows in zip(("test", "train"), rows_of_demo(42, n_rows, n_rows)[::-1], strict=True):
        with (work / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sample_id", "catalog_content", *(["price"] if split == "train" else [])])
            for row in rows:
                product, text = row.listing.product, write(row.listing.product, row.listing.title_seed)
                writer.writerow([row.sample_id, text, *([row.price] if split == "train" else [])])
                ids.append(row.sample_id)
                image = product.image
                known.append(
                    [product.log_price - 3, math.log(product.size) - 3, image.is_rich, image.gift_count]
                )
    np.savez(work / "known.npz", ids=np.array(ids), known=np.array(known, np.float32))


def _publish_vectors(work: Path) -> None:
    """Both vector sets of all rows that were ingested, and that heads read them."""
    from dataclasses import replace

    from store.catalog.read import read_split
    from store.config import load_config, save_config
    from store.vectors.sets import VectorSet
    from store.workspace import Workspace
    from tests.fakes import publish_vectors

    workspace, rng = Workspace(str(work / "workspace")), np.random.default_rng(0)
    with np.load(work / "known.npz") as file:
        known: dict[str, Any] = dict(zip(file["ids"].tolist(), file["known"], strict=True))
    hidden = {}
    for split in ("train", "test"):
        ids = read_split(workspace, split, ["sample_id"])["sample_id"].to_pylist()
        of_price = np.array([known[str(one)] for one in ids], np.float32)
        of_price[:, 0] += rng.normal(0.0, 0.6, len(ids))
        hidden[split] = np.concatenate(
            [of_price, rng.standard_normal((len(ids), HIDDEN), np.float32)], axis=1
        )
    for (encoder, composition), dim in SETS.items():
        spread = rng.standard_normal((4 + HIDDEN, dim), np.float32)
        spread /= np.sqrt(1.0 + np.arange(4 + HIDDEN, dtype=np.float32))[:, None]
        vectors = {split: _mixed(of_rows, spread, rng) for split, of_rows in hidden.items()}
        publish_vectors(workspace, VectorSet(encoder, composition), vectors)
    config = load_config(workspace)
    names = tuple("@".join(one) for one in SETS)
    save_config(workspace, replace(config, heads=replace(config.heads, vectors=names)))


def _mixed(hidden: np.ndarray, spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shape (n_rows, dim) float16."""
    X = np.empty((len(hidden), spread.shape[1]), np.float16)
    for start in range(0, len(X), BLOCK_ROWS):
        part = hidden[start : start + BLOCK_ROWS]
        X[start : start + BLOCK_ROWS] = part @ spread + rng.standard_normal(
            (len(part), spread.shape[1]), np.float32
        )
    return X


if __name__ == "__main__":
    main(measure, options=OPTIONS)
