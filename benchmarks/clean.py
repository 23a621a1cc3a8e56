"""`shelfprice catalog clean` of 75,000 made-up rows with images: seconds and peak memory.

Rows are those of the ingest benchmark, one in ten a copy of an earlier one: its text, its text with a few words
changed, its image, or both. Images are JPEGs of 224 x 224. The command runs as a process of its own, start of the
interpreter included: once over images it has never seen, once more with their hashes remembered. Images are put in
place without the download; making them is not part of the time.
"""

import csv
import hashlib
import io
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.ingest import synthesise
from benchmarks.report import Result, main, scratch
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import merge_links
from store.schema import LINKS
from store.workspace import Workspace

ROWS = 75_000
TARGET_SECONDS = 60.0
TARGET_MB = 3000.0
_COPIES = 0.1
_SIDE = 224


def with_copies(path: Path, seed: int = 0) -> list[str]:
    """Turn a tenth of the rows of a CSV into copies of earlier ones; returns its distinct links."""
    draw = random.Random(seed)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for i in range(1, len(rows)):
        if draw.random() < _COPIES:
            earlier = rows[draw.randrange(i)]
            kind = draw.choice(("text", "near", "image", "both"))
            if kind in ("text", "both"):
                rows[i]["catalog_content"] = earlier["catalog_content"]
            if kind in ("image", "both"):
                rows[i]["image_link"] = earlier["image_link"]
            if kind == "near":
                words = earlier["catalog_content"].split(" ")
                words[draw.randrange(len(words))] = "other"
                rows[i]["catalog_content"] = " ".join(words)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return list(dict.fromkeys(row["image_link"] for row in rows))


def put_images(workspace: Workspace, links: list[str], seed: int = 0) -> int:
    """Store an image for each link; returns the bytes of all."""
    from PIL import Image

    draw, total = np.random.default_rng(seed), 0
    rows = []
    for link in links:
        coarse = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=75)
        value = content.getvalue()
        sha256 = hashlib.sha256(value).hexdigest()
        path = Path(workspace.path(blob_path(sha256)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        row = dict.fromkeys(LINKS.names) | {"link": link, "sha256": sha256, "tries": 1, "n_bytes": len(value)}
        rows.append(row)
        total += len(value)
    merge_links(workspace, pa.Table.from_pylist(rows, schema=LINKS))
    return total


def measure(data: Path, rows: int | None) -> list[Result]:
    """Time `catalog clean` on `rows` made-up rows; `data` is not read."""
    n_rows = rows or ROWS
    with scratch() as folder:
        train, root = folder / "train.csv", folder / "workspace"
        synthesise(train, n_rows)
        links = with_copies(train)
        n_bytes = put_images(Workspace(root), links)
        _run("ingest", "--train", str(train), "-w", str(root))
        _run("folds", "-w", str(root))
        first, cpu, peak = _run("clean", "-w", str(root))
        again, _, peak_again = _run("clean", "-w", str(root))
    figures = {
        "rows": n_rows,
        "images": len(links),
        "kb_per_image": round(n_bytes / len(links) / 1000, 1),
        "cpu_seconds": cpu,
        "seconds_again_with_hashes_remembered": again,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    return [
        Result.at_most("clean, seconds", first, TARGET_SECONDS, **figures),
        Result.at_most("clean, peak MB", max(peak, peak_again), TARGET_MB, rows=n_rows),
    ]


def _run(*arguments: str) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and peak megabytes of `shelfprice catalog …`."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "store.cli", "catalog", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main(measure)
