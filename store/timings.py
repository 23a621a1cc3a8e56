"""How long steps took on this machine, kept for each user and not with a workspace: what plans estimate by."""

import contextlib
import json
import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.local import publish_local

MOST_KEPT = 6  # records of a step on a machine, the newest
POWERS = (0.5, 3.0)  # of the number of rows, that two records may say
APART = 1.5  # ratio of rows from which on two records say a power


@dataclass(frozen=True)
class Estimate:
    """About what a step takes."""

    seconds: float
    peak_bytes: int | None  # memory of the process; None: not recorded


class Timings:
    """Records in one JSON file; a damaged or unwritable one is as good as none.

    Args:
        folder: of the user.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "timings.json"

    def record(self, step: str, n_rows: int, seconds: float, peak_bytes: int | None = None) -> None:
        """Keep what a step took, for plans to come."""
        if n_rows <= 0 or seconds <= 0:
            return
        records = self._read()
        mine = [one for one in records if (one["step"], one["machine"]) == (step, machine())]
        others = [one for one in records if one not in mine]
        new = {
            "step": step, "machine": machine(), "n_rows": n_rows, "seconds": round(seconds, 3),
            "peak_bytes": peak_bytes,
        }  # fmt: skip
        self._write([*others, *[one for one in mine if one["n_rows"] != n_rows][1 - MOST_KEPT :], new])

    def estimate(self, step: str, n_rows: int, power: float = 1.0) -> Estimate | None:
        """What so many rows would take; None where the step was never recorded on this machine.

        The record nearest in rows is scaled by the power of the number of rows that two records say.

        Args:
            power: where only one size was recorded.
        """
        mine = [one for one in self._read() if (one["step"], one["machine"]) == (step, machine())]
        if not mine:
            return None
        near = min(mine, key=lambda one: abs(math.log(one["n_rows"] / max(n_rows, 1))))
        far = max(mine, key=lambda one: abs(math.log(one["n_rows"] / near["n_rows"])))
        ratio = far["n_rows"] / near["n_rows"]
        if not 1 / APART < ratio < APART:
            said = math.log(far["seconds"] / near["seconds"]) / math.log(ratio)
            power = min(max(said, POWERS[0]), POWERS[1])
        scale = n_rows / near["n_rows"]
        peak = near["peak_bytes"]
        return Estimate(
            near["seconds"] * scale**power, None if peak is None else round(peak * max(scale, 1.0))
        )

    def _read(self) -> list[dict[str, Any]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return [one for one in found if one["n_rows"] > 0 and one["seconds"] > 0 and "peak_bytes" in one]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def _write(self, records: list[dict[str, Any]]) -> None:
        content = json.dumps(records).encode()
        with contextlib.suppress(OSError):
            publish_local(str(self._file), lambda file: file.write(content), flush=False)


def machine() -> str:
    """This machine, with the processors that this process may use."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.node()} x{n_cores}"


def peak_bytes() -> int | None:
    """Most memory that this process had so far; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024
