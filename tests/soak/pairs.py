"""Two commands that write the same workspace at the same time."""

import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tests.soak import kills
from tests.soak.commands import Said, command, end, start
from tests.soak.verdict import Verdict
from tests.soak.world import World


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Every pair, a command and itself too."""
    pairs = list(itertools.combinations_with_replacement(kills.COMMANDS, 2))
    while True:
        for pair in draw.sample(pairs, len(pairs)):
            yield {"pair": pair, "seconds": round(draw.choice((0.0, 0.05, 0.3)), 2)}


def run(world: World, case: dict[str, Any]) -> Verdict:
    with world.copy() as root:
        for one in dict.fromkeys(case["pair"]):
            kills.prepare(root, one)
        running = []
        for one in case["pair"]:
            output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has ended
            running.append((one, output, start(command(world.arguments(root, one)), output.fileno())))
            time.sleep(case["seconds"])
        said = []
        for one, output, child in running:
            code = end(child)
            output.seek(0)
            said.append(Said(one, code, output.read().decode("utf-8", "replace")))
            output.close()
        if fault := next((one.fault for one in said if one.fault), None):
            return Verdict(fault, [f"$ {one.line}\n[{one.code}] {one.output[-3000:]}" for one in said])
        return kills.finished(world, root, case["pair"], before=said)
