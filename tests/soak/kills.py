"""Every command killed with SIGKILL at any moment, then run to its end: the results are the same."""

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.commands import command, end, kill, start
from tests.soak.verdict import Verdict, judged
from tests.soak.world import World

COMMANDS = (*World.steps, "catalog folds")
# What a command makes, taken away before it, so that it has work to do.
MADE = {
    "catalog ingest": ("catalog", "images"),
    "catalog clean": ("cleaning.parquet", "images/hashes.parquet"),
    "embed run": ("vectors",),
    "heads run": ("predictions",),
    "ensemble blend": ("blend",),
    "ensemble submit": ("submission.csv", "intervals.csv"),
    "catalog folds": ("folds.parquet",),
}
N_KILLS = 4


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        for one in draw.sample(COMMANDS, len(COMMANDS)):
            yield {"command": one, "moments": [round(draw.random(), 3) for _ in range(N_KILLS)]}


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for moment in case["moments"] if len(case["moments"]) > 1 else ():
        yield {**case, "moments": [moment]}


def run(world: World, case: dict[str, Any]) -> Verdict:
    """Kill at each moment, a share of the seconds that the command takes; then run all to the end."""
    with world.copy() as root:
        prepare(root, case["command"])
        arguments = world.arguments(root, case["command"])
        started = time.monotonic()
        with tempfile.TemporaryFile() as output, world.copy() as other:
            prepare(other, case["command"])
            end(start(command(world.arguments(other, case["command"])), output.fileno()))
        seconds = time.monotonic() - started
        for moment in case["moments"]:
            with tempfile.TemporaryFile() as output:
                child = start(command(arguments), output.fileno())
                time.sleep(moment * seconds)
                kill(child)
        said = list(world.run(root, (case["command"], *world.steps)))
        return judged(world, root, said)


def prepare(root: Path, name: str) -> None:
    """Take away what a command makes."""
    for relative in MADE.get(name, ()):
        path = root / relative
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
