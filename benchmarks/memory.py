"""Peak memory of `shelfprice embed run` on 10,000 and on 100,000 texts: it must not grow with the rows."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import ingested
from tests.fake_models import WORDS, save_tiny_sentence_model

ROWS = 100_000
GROWTH = 1.1


def measure(data: Path, rows: int | None) -> list[Result]:
    """A tiny model, so that what grows would be the job's own."""
    most = rows or ROWS
    with scratch() as folder:
        model = save_tiny_sentence_model(folder / "model", max_tokens=32)
        peaks = {n: _peak_megabytes(folder / str(n), model, n) for n in (most // 10, most)}
    few, many = peaks.values()
    return [
        Result.at_most(
            "peak memory of embed run on ten times the rows",
            many / few,
            GROWTH,
            "resident megabytes of the whole process",
            **{f"rows_{n}_megabytes": peak for n, peak in peaks.items()},
        )
    ]


def _peak_megabytes(folder: Path, model: Path, n_rows: int) -> float:
    workspace = ingested(
        folder, [{"sample_id": str(i), "catalog_content": _text(i), "price": "1"} for i in range(n_rows)]
    )
    command = [sys.executable, "-m", "store.cli", "embed", "run", "-e", f"{model}@full", "--offline"]
    child = subprocess.Popen(
        [*command, "--precision", "fp32", "--publish-every", "5", "-w", workspace.root],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"embed run ended with code {child.returncode}")
    return usage.ru_maxrss / 1024


def _text(i: int) -> str:
    words = [WORDS[(i >> (2 * j)) % len(WORDS)] for j in range(1 + i % 24)]
    return f"{' '.join(words)} {i}"


if __name__ == "__main__":
    main(measure, embeds=True)
