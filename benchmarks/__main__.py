"""Run every benchmark, each as a process of its own; JSON lands in benchmarks/results, a line each on stdout."""

import json
import subprocess
import sys
from pathlib import Path

import click

from benchmarks.report import DATA, Result

RESULTS = Path(__file__).parent / "results"


def names() -> list[str]:
    """Every benchmark: each module of this package that has a `measure`, by name."""
    return sorted(path.stem for path in RESULTS.parent.glob("*.py") if "\ndef measure(" in path.read_text())


@click.command(context_settings={"show_default": True})
@click.argument("chosen", nargs=-1, metavar="[NAME]...")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA,
    envvar="SHELFPRICE_BENCH_DATA",
    help="Folder of real catalogues.",
)
@click.option(
    "--rows", type=click.IntRange(min=1), help="Rows to measure on, instead of each benchmark's own number."
)
def main(chosen: tuple[str, ...], data: Path, rows: int | None) -> None:
    """Run every benchmark, or those named."""
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        raise click.UsageError(f"no benchmark {unknown[0]!r}, one of {', '.join(names())}")
    RESULTS.mkdir(exist_ok=True)
    crashed, missed = [], 0
    for name in chosen or names():
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", "--data", str(data)]
        command += ["--rows", str(rows)] if rows else []
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, cwd=RESULTS.parent.parent
        )
        if done.returncode:
            crashed.append(name)
            click.echo(f"{name}: ended with code {done.returncode}")
            continue
        (RESULTS / f"{name}.json").write_text(done.stdout)
        for described in json.loads(done.stdout)["results"]:
            result = Result(**described)
            missed += result.met is False
            click.echo(result.line())
    if crashed or missed:
        raise click.ClickException(
            f"{missed} targets missed, {len(crashed)} benchmarks failed {', '.join(crashed)}"
        )


if __name__ == "__main__":
    main()
