"""What a benchmark finds, and how it is printed: one readable line each, or JSON."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

DATA = Path(__file__).parent.parent.parent / "shared/data"


@dataclass(frozen=True)
class Result:
    """One figure: a ratio and its target. Without a ratio it was skipped, and `note` says why."""

    name: str
    figures: dict[str, Any] = field(default_factory=dict)  # what the ratio is made of, units in the names
    ratio: float | None = None
    target: float | None = None
    met: bool | None = None
    note: str = ""

    @classmethod
    def at_least(cls, name: str, ratio: float, target: float, note: str = "", **figures: Any) -> "Result":
        return cls(name, figures, ratio, target, ratio >= target, note)

    @classmethod
    def at_most(cls, name: str, ratio: float, target: float, note: str = "", **figures: Any) -> "Result":
        return cls(name, figures, ratio, target, ratio <= target, note)

    @classmethod
    def skipped(cls, name: str, reason: str) -> "Result":
        return cls(name, note=reason)

    def line(self) -> str:
        """For people."""
        if self.ratio is None:
            return f"{self.name}: skipped, {self.note}"
        word = "at least" if (self.ratio >= (self.target or 0)) == bool(self.met) else "at most"
        verdict = "met" if self.met else "MISSED"
        figures = ", ".join(f"{key} {_short(value)}" for key, value in self.figures.items())
        note = f" ({self.note})" if self.note else ""
        return f"{self.name}: {self.ratio:.2f}, {word} {self.target:g} wanted, {verdict}: {figures}{note}"


Measure = Callable[..., list[Result]]
Option = Callable[[Callable[..., None]], Callable[..., None]]


def main(measure: Measure, embeds: bool = False, options: Sequence[Option] = ()) -> None:
    """Give a benchmark its command line: `measure(data, rows)` returns its results.

    Args:
        embeds: it runs encoders in this process: idle threads wait as in the commands that do, the peers' alike.
        options: its own options, decorators of click; `measure` takes their values by name.
    """

    def with_options(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    @click.command(context_settings={"show_default": True}, help=sys.modules[measure.__module__].__doc__)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
    @click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=DATA,
        envvar="SHELFPRICE_BENCH_DATA",
        help="Folder of real catalogues; what is absent is skipped, with the reason.",
    )
    @click.option(
        "--rows",
        type=click.IntRange(min=1),
        help="Rows to measure on; the benchmark's own number if not given.",
    )
    @with_options
    def command(as_json: bool, data: Path, rows: int | None, **given: Any) -> None:
        if embeds:
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        results = measure(data, rows, **given)
        if as_json:
            machine = {"python": platform.python_version(), "machine": platform.machine(), "cpu": _cpu()}
            described = [dataclasses.asdict(result) for result in results]
            click.echo(json.dumps({"results": described, "machine": machine}, indent=2))
        else:
            for result in results:
                click.echo(result.line())

    command()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="shelfprice-bench-") as folder:
        yield Path(folder)


def process_seconds(*arguments: str) -> float:
    """Of a Python process from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
