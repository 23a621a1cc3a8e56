"""How long steps took on this machine, kept for each user and not with a workspace; plans estimate times by it."""

import contextlib
import json
import math
import operator
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.local import publish_local

MOST_KEPT = 6  # records of a step on a machine, the newest
ALIKE = 1.5  # ratio of widths, and of rows, below which two records are of one size
FIXED = tuple(at / 20 for at in range(20))  # shares of the seconds that do not grow with the rows


@dataclass(frozen=True)
class Estimate:
    """About what a step takes."""

    seconds: float
    peak_bytes: int | None  # memory of the process; None: not recorded


class Timings:
    """Records in one JSON file; a damaged or unwritable file is ignored.

    Args:
        folder: of the user.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "timings.json"

    def record(
        self, step: str, n_rows: int, seconds: float, peak_bytes: int | None = None, width: int = 0
    ) -> None:
        """Keep what a step took, for plans to come.

        Args:
            width: columns of vectors that it read; 0: none, or they do not matter.
        """
        if n_rows <= 0 or seconds <= 0:
            return
        records = self._read()
        mine = [one for one in records if (one["step"], one["machine"]) == (step, machine())]
        others = [one for one in records if one not in mine]
        new = {
            "step": step, "machine": machine(), "n_rows": n_rows, "seconds": round(seconds, 3),
            "peak_bytes": peak_bytes, "width": width,
        }  # fmt: skip
        kept = [one for one in mine if (one["n_rows"], one.get("width", 0)) != (n_rows, width)]
        self._write([*others, *kept[1 - MOST_KEPT :], new])

    def estimate(self, step: str, n_rows: int, power: float = 1.0, width: int = 0) -> Estimate | None:
        """What so many rows would take; None where the step was never recorded on this machine, or not so wide.

        Part of a step's time is the same for any number of rows, the rest grows by a power of it: the share that
        records of several sizes say, nearer ones more so.

        Args:
            power: of the number of rows, by which the rest grows.
            width: see `record`.
        """
        mine = [
            one
            for one in self._read()
            if (one["step"], one["machine"]) == (step, machine())
            and 1 / ALIKE < (one.get("width", 0) + 1) / (width + 1) < ALIKE
        ]
        if not mine:
            return None
        peaks = [(one["n_rows"], one["peak_bytes"]) for one in mine if one["peak_bytes"] is not None]
        seconds = _extended([(one["n_rows"], one["seconds"]) for one in mine], max(n_rows, 1), power)
        return Estimate(seconds, round(_extended(peaks, max(n_rows, 1), 1.0)) if peaks else None)

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


def _extended(records: list[tuple[int, float]], n_rows: int, power: float) -> float:
    """The value at so many rows, by (rows, value) records: fixed + b * rows ** power, fitted to their logarithms."""
    sizes = [size for size, _ in records]
    weights = [1 / (0.1 + math.log(size / n_rows) ** 2) for size in sizes]
    best = (math.inf, 0.0)
    for fixed in FIXED if max(sizes) > ALIKE * min(sizes) else FIXED[:1]:
        shape = [math.log(fixed + (1 - fixed) * (size / min(sizes)) ** power) for size in sizes]
        off = [math.log(value) - at for (_, value), at in zip(records, shape, strict=True)]
        level = sum(map(operator.mul, weights, off)) / sum(weights)
        loss = sum(weight * (one - level) ** 2 for weight, one in zip(weights, off, strict=True))
        if loss < best[0] - 1e-12:
            best = loss, math.exp(level) * (fixed + (1 - fixed) * (n_rows / min(sizes)) ** power)
    return best[1]


def machine() -> str:
    """This machine, with the processors that this process may use."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.node()} x{n_cores}"


def forget_peak() -> int:
    """Begin to measure memory: Linux lets a process forget the peak that it had. See `peak_since`.

    Returns:
        Bytes up to which an earlier peak hides what follows; 0 where it is forgotten.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_bytes() or 0
    return 0


def peak_since(hidden: int) -> int | None:
    """Most memory that this process had since `hidden = forget_peak()`; None where it is not known."""
    peak = peak_bytes()
    return peak if peak is not None and peak > hidden else None


def peak_bytes() -> int | None:
    """Most memory that this process had so far; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024
