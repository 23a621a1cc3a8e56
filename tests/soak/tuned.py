"""Every kind of file that fine-tuning keeps, damaged in every way: the same bits of a model, or told with a way on."""

import itertools
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.soak import long_kills
from tests.soak.commands import Said, shelfprice
from tests.soak.tampering import DAMAGES, damaged
from tests.soak.verdict import Verdict, follow
from tests.soak.world import World, files_of, plain

COMMAND = "embed finetune"


class TunedWorld:
    """A finished fine-tuning, and the command that makes it, as `follow` runs it."""

    steps, looks = (COMMAND,), ("status",)

    def __init__(self, world: World) -> None:
        self._world = world
        self.pristine = world.files.parent / "tuned"
        self._words = self.pristine / "words.json"
        if not self._words.exists():
            with long_kills.prepared(world, COMMAND) as (root, arguments, _):
                *words, _, _ = arguments(root)  # all but -w and the workspace
                said = shelfprice(*words, "-w", str(root))
                assert said.code == 0, said.output
                shutil.copytree(root, self.pristine / "w")
                self._words.write_text(json.dumps(words))
        self.outcome = long_kills.tuned(self.pristine / "w")
        again = self.run(self.pristine / "w", (*self.looks, *self.steps))
        self.usual = {plain(line, self.pristine / "w") for one in again for line in one.output.splitlines()}

    def run(self, root: Path, commands: Sequence[str]) -> Iterator[Said]:
        for one in commands:
            words = json.loads(self._words.read_text()) if one == COMMAND else one.split()
            yield shelfprice(*words, "-w", str(root))

    def meaning(self, root: Path) -> dict[str, str]:
        return long_kills.tuned(root)


def table(world: World) -> list[tuple[str, str, bool]]:
    """Each kind of file and damage; as it lies, or with the vectors and prices gone that were made of it."""
    root = TunedWorld(world).pristine / "w"
    kinds = [file for file in files_of(root) if file.startswith("finetune/") and "/fold-1/" not in file]
    return world.part_of(itertools.product(kinds, DAMAGES, (False, True)))


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    cells = table(world)
    while True:
        for kind, damage, fresh in draw.sample(cells, len(cells)):
            yield {"kind": kind, "damage": damage, "fresh": fresh, "seed": draw.randrange(2**32)}


def run(world: World, case: dict[str, Any]) -> Verdict:
    tuned = TunedWorld(world)
    folder = world.copies / "tuned"
    root = folder / "w"
    shutil.copytree(tuned.pristine / "w", root, symlinks=True)
    try:
        for path in (
            (*root.glob("predictions/finetuned*"), *root.glob("vectors/finetuned*")) if case["fresh"] else ()
        ):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        damaged(root, case["kind"], case["damage"], random.Random(case["seed"]))
        return follow(tuned, root, (*tuned.steps, *tuned.looks), Path(case["kind"]).name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
