"""python -m tests.soak [--minutes M] [--seed N] [--part I/N] [--only KIND]... [--to FOLDER] | --repeat FILE"""

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.soak import disks, flips, fuzz, kills, long_kills, packed, pairs, tampering, tuned
from tests.soak.commands import prepare
from tests.soak.verdict import Verdict
from tests.soak.world import World

ATTACKS: dict[str, Any] = {
    "tampering": tampering,
    "tuned": tuned,
    "packed": packed,
    "flips": flips,
    "fuzz": fuzz,
    "kills": kills,
    "long_kills": long_kills,
    "pairs": pairs,
    "disks": disks,
}
SHARES = {
    "tampering": 30,
    "tuned": 2,
    "packed": 2,
    "kills": 2,
    "long_kills": 2,
}  # of the time; of the others 1


def soak(
    world: World, seconds: float, seed: int, only: Sequence[str] = (), most: int | None = None
) -> Iterator[tuple[str, dict[str, Any], Verdict]]:
    """Cases of each attack in turn, each for its share of the time; yields each with its verdict.

    Args:
        most: cases of each attack, at most.
    """
    streams = {name: ATTACKS[name].cases(world, random.Random(f"{seed} {name}")) for name in only or ATTACKS}
    spent, counts = dict.fromkeys(streams, 0.0), Counter()
    until = time.monotonic() + seconds
    while streams and time.monotonic() < until:
        name = min(streams, key=lambda one: spent[one])
        case = next(streams[name], None)
        if case is None or (most is not None and counts[name] >= most):
            del streams[name]
            continue
        started = time.monotonic()
        verdict = ATTACKS[name].run(world, case)
        spent[name] += (time.monotonic() - started) / SHARES.get(name, 1)
        counts[name] += 1
        yield name, case, verdict


def reduced(
    world: World, name: str, case: dict[str, Any], verdict: Verdict
) -> tuple[dict[str, Any], Verdict]:
    """The smallest case found that ends the same way."""
    smaller = getattr(ATTACKS[name], "smaller", lambda case: iter(()))
    is_done = False
    while not is_done:
        is_done = True
        for one in smaller(case):
            again = ATTACKS[name].run(world, one)
            if again.outcome == verdict.outcome:
                case, verdict, is_done = one, again, False
                break
    return case, verdict


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", action="append", choices=list(ATTACKS), default=[])
    parser.add_argument("--part", default="1/1", help="of the tables of damages, such as 2/4")
    parser.add_argument("--most", type=int, help="cases of each attack")
    parser.add_argument("--to", type=Path, default=Path("soak-failures"), help="folder for what failed")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="a file of that folder: run it again")
    options = parser.parse_args(arguments)
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        number, n_parts = map(int, options.part.split("/"))
        world = World(Path(folder), (number, n_parts))
        if options.repeat:
            case = json.loads(options.repeat.read_text())
            verdict = ATTACKS[case["attack"]].run(world, case["case"])
            sys.stdout.write("\n".join([*verdict.said, verdict.outcome, ""]))
            return int(verdict.is_bad)
        return report(world, options)


def keep(folder: Path, name: str, case: dict[str, Any], verdict: Verdict) -> None:
    """Write what failed to a file that repeats it."""
    record = {"attack": name, "case": case, "outcome": verdict.outcome, "said": verdict.said}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{hashlib.sha256(json.dumps(case).encode()).hexdigest()[:8]}.json"
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False))
    sys.stdout.write(
        f"{verdict.outcome}: {name} {json.dumps(case)[:300]}\n  python -m tests.soak --repeat {file}\n"
    )
    sys.stdout.flush()


def report(world: World, options: argparse.Namespace) -> int:
    """Run, say each failure as it comes and the counts at the end; 1 where anything failed."""
    sys.stdout.write(f"seed {options.seed}\n")
    counts: dict[str, Counter[str]] = {}
    reached: dict[str, set[tuple[Any, ...]]] = {}
    n_bad, started = 0, time.monotonic()
    stopped: list[int] = []
    for one in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # after the case at hand: an exception could be lost in a fork
        signal.signal(one, lambda number, _: stopped.append(number))
    try:
        for name, case, verdict in soak(
            world, 60 * options.minutes, options.seed, options.only, options.most
        ):
            counts.setdefault(name, Counter()).update(verdict.counts or [verdict.outcome])
            cell = [case[one] for one in ("kind", "damage", "fresh") if one in case]
            reached.setdefault(name, set()).add(tuple(cell))
            if verdict.is_bad:
                n_bad += 1
                keep(options.to, name, *reduced(world, name, case, verdict))
            if stopped:
                sys.stdout.write("stopped\n")
                break
    finally:
        for name, outcomes in sorted(counts.items(), key=lambda one: list(ATTACKS).index(one[0])):
            told = ", ".join(f"{n} {one}" for one, n in outcomes.most_common())
            table = getattr(ATTACKS[name], "table", None)
            of = f" ({len(reached[name])} of {len(table(world))} of the table)" if table else ""
            sys.stdout.write(f"{name}: {outcomes.total()} cases{of}: {told}\n")
        sys.stdout.write(f"{(time.monotonic() - started) / 60:.1f} minutes, {n_bad} failures\n")
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
