"""Every command killed with SIGKILL at any moment, then run to its end: the results are the same."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from store.local import TEMPORARY_PREFIX
from tests.soak.commands import Said, command, end, kill, result_of, start
from tests.soak.verdict import Verdict, judged
from tests.soak.world import MODEL, TUNE, World

PRUNE = "prune --yes"
# In an order in which all of them can run.
COMMANDS = (
    *World.steps[:3],
    TUNE,
    *World.steps[3:],
    *("ensemble report", "ensemble pack", "catalog folds", PRUNE),
)
# What a command makes, taken away before it, so that it has work to do.
MADE = {
    "catalog ingest": ("catalog", "images"),
    "catalog clean": ("cleaning.parquet", "images/hashes.parquet"),
    "embed run": ("vectors",),
    "heads run": ("predictions",),
    "ensemble blend": ("blend",),
    "ensemble submit": ("submission.csv", "intervals.csv"),
    "ensemble report": ("report.html",),
    "ensemble pack": (f"../{MODEL}",),
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
        said = list(world.run(root, (case["command"],)))
        return finished(world, root, (case["command"],), said)


def finished(
    world: World,
    root: Path,
    commands: Collection[str],
    said: Sequence[Said] = (),
    before: Sequence[Said] = (),
) -> Verdict:
    """Run all steps, and those of the commands that are none, and hold the end against the pristine workspace."""
    rest = [one for one in COMMANDS if one in world.steps or one in commands]
    return judged(world, root, [*said, *world.run(root, rest)], before, is_searched=TUNE in commands)


def prepare(root: Path, name: str) -> None:
    """Take away what a command makes; lay down what `prune` takes away."""
    if name == PRUNE:
        result_of(lambda: outdate(root))
    for relative in MADE.get(name, ()):
        path = root / relative
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def outdate(root: Path) -> None:
    """A second folder of each encoder's vectors, head's predictions and the blend; an image without a link; half a file."""
    from store.catalog.images.blobs import blob_path
    from store.workspace import Workspace

    workspace = Workspace(root)
    for room, record in (("vectors", "encoder.json"), ("predictions", "head.json"), ("blend", "blend.json")):
        for folder in [path.parent for path in root.glob(f"{room}/*/{record}")]:
            other = f"{room}/{folder.name[:-1]}{'1' if folder.name[-1] == '0' else '0'}"
            found = workspace.read_json(f"{room}/{folder.name}/{record}")
            shutil.copytree(folder, root / other)
            workspace.publish_json(f"{other}/{record}", found)
    workspace.publish_bytes(blob_path("0" * 64), b"x")
    half = root / f"{TEMPORARY_PREFIX}0"
    half.write_bytes(b"x")
    for path in (half, root / blob_path("0" * 64)):
        os.utime(path, (0, 0))
