"""`make gpu`: checks, then figures, as JSON and as a table. Without a GPU: `--device cpu --tiny`, which proves the code alone."""

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu import checks, speed, steps
from benchmarks.gpu.models import B4, B4_STAGES, BERT, CLIP_H, CLIP_L, DECODER, FULL, TINY, Scale, save_model
from benchmarks.report import Result, scratch
from embed.forward.devices import cores, device_name

MINUTES = 8.5
# What each takes at full size, seconds, as on an H100 or, of what was not run there, as far as can be told: the rest of
# the budget must hold it, or it is left out.
CHECK_SECONDS, STEP_SECONDS = 35, 70
SUBJECTS = {
    (CLIP_L, "image"): 85,
    (B4, ""): 105,
    (BERT, ""): 25,
    (DECODER, ""): 60,
    (CLIP_H, "image"): 80,
    (CLIP_L, "text"): 30,
    (CLIP_H, "text"): 40,
}
COMPILED = [(CLIP_L, "image"), (B4, "")]  # of the others compiling takes a minute or more
STEPS_AFTER = 2  # position of the subject that fine-tuning follows
CHECKED = [(CLIP_L, "image"), (CLIP_L, "text"), (B4, ""), (B4_STAGES, ""), (BERT, "")]
RESULTS = Path(__file__).parent.parent / "results"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Package:
    """What is run.

    Args:
        devices: the first is measured on; all of them share work in one check.
        compiles: `torch.compile` is among the modes.
        minutes: what would not fit into them is left out, and said to be.
        only: parts whose name holds one of these; empty: all.
    """

    scale: Scale
    devices: tuple[str, ...]
    compiles: bool
    minutes: float = MINUTES
    only: tuple[str, ...] = ()

    def run(self, folder: Path, say: Say) -> list[Result]:
        """Every check and every figure, the most important first."""
        start = time.monotonic()
        end = start + 60 * self.minutes
        results: list[Result] = []
        for name, seconds, part in self._parts(folder):
            if self.only and not any(one in name for one in self.only):
                continue
            if time.monotonic() + seconds > end and self.scale.name == "full":
                found = [Result.skipped(name, f"left out, no time left of {self.minutes:g} minutes")]
            else:
                found = _tried(name, part)
            for result in found:
                say(f"{time.monotonic() - start:4.0f} s  {result.line()}")
            results += found
        return results

    def _parts(self, folder: Path) -> Iterator[tuple[str, float, Callable[[], list[Result]]]]:
        named = {f"{model} {tower}".strip(): (model, tower) for model, tower in CHECKED}
        addresses = {name: self._address(folder, *one) for name, one in named.items()}
        yield from (
            (f"check of {name}", CHECK_SECONDS, lambda check=check: list(check()))  # type: ignore[misc]
            for name, check in checks.all_checks(folder, addresses, self.devices, self.scale, self.compiles)
        )
        for at, ((model, tower), seconds) in enumerate(SUBJECTS.items()):
            name = f"{model} {tower}".strip()
            yield (
                name,
                seconds,
                lambda model=model, tower=tower, name=name: speed.measure(  # type: ignore[misc]
                    folder,
                    self._address(folder, model, tower),
                    name,
                    self.devices[0],
                    self.scale,
                    self.compiles and (model, tower) in COMPILED,
                ),
            )
            if at == STEPS_AFTER:
                for models in steps.SYSTEMS:
                    yield (
                        f"fine-tuning of {' + '.join(models)}",
                        STEP_SECONDS,
                        lambda models=models: [self._step(folder, models)],  # type: ignore[misc]
                    )

    def _step(self, folder: Path, models: tuple[str, ...]) -> Result:
        addresses = {model: self._address(folder, model) for model in models}
        return steps.measure(folder, models, addresses, self.devices[0], self.scale)

    def _address(self, folder: Path, model: str, tower: str = "") -> str:
        address = save_model(folder / model, model, self.scale, self.devices[0])
        return f"{address}.{tower}" if tower else address


def _tried(name: str, part: Callable[[], list[Result]]) -> list[Result]:
    """One part; where it fails, that is its result, and the others are run all the same."""
    try:
        return part()
    except Exception as error:  # noqa: BLE001 - whatever a GPU or its driver makes of it
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return [Result(name, {}, None, None, False, f"{type(error).__name__}: {reason}")]
    finally:
        _free()


def _free() -> None:
    """Give the GPU's memory to the next part."""
    import gc

    import torch

    if torch.cuda.is_available():
        gc.collect()
        with contextlib.suppress(RuntimeError):
            torch.compiler.reset()
            torch.cuda.empty_cache()


def table(results: Sequence[Result], device: str) -> list[str]:
    """In Markdown, for the documentation."""
    lines = [f"| {device} | value | wanted | | |", "|---|---|---|---|---|"]
    for result in results:
        if result.ratio is None:
            verdict = "FAILED" if result.met is False else "skipped"
            lines.append(f"| {result.name} | | | {verdict} | {result.note} |")
            continue
        at_least = (result.ratio >= (result.target or 0)) == bool(result.met)
        wanted = f"{'≥' if at_least else '≤'} {result.target:g}"
        shown = ", ".join(
            f"{key.replace('_', ' ')} {value:.4g}"
            if isinstance(value, float)
            else f"{key.replace('_', ' ')} {value}"
            for key, value in result.figures.items()
        )
        verdict = "met" if result.met else "MISSED"
        lines.append(f"| {result.name} | {result.ratio:.5g} | {wanted} | {verdict} | {shown} |")
    return lines


def machine(devices: Sequence[str]) -> dict[str, Any]:
    """What it was run on."""
    import torch

    found: dict[str, Any] = {
        "device": device_name(devices[0]),
        "devices": len(devices),
        "cores": cores(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    if devices[0].startswith("cuda"):
        properties = torch.cuda.get_device_properties(devices[0])
        found |= {
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
        }
    return found


@click.command(context_settings={"show_default": True})
@click.option("--device", default="cuda", help="cuda for every GPU, cuda:1 for one, or cpu.")
@click.option("--tiny", is_flag=True, help="Tiny models: that the code runs, no figure worth keeping.")
@click.option("--compile/--no-compile", "compiles", default=True, help="Try torch.compile, on a GPU.")
@click.option("--minutes", default=MINUTES, help="What would take longer is left out, and said to be.")
@click.option("--only", multiple=True, help="Part of a name: run what holds it; repeatable.")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=RESULTS,
    help="Folder that gpu.json and gpu.md are written into.",
)
def main(device: str, tiny: bool, compiles: bool, minutes: float, only: tuple[str, ...], to: Path) -> None:
    """Check the encoders' vectors on a GPU, then measure them: one command, no network."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.ClickException(
            "there is no CUDA device here: pass --device cpu --tiny to try the package itself"
        )
    if device == "cpu" and not tiny:
        raise click.ClickException("models of full size are for GPUs: pass --tiny")
    devices = (
        tuple(f"cuda:{at}" for at in range(torch.cuda.device_count())) if device == "cuda" else (device,)
    )
    package = Package(
        TINY if tiny else FULL, devices, compiles and devices[0].startswith("cuda"), minutes, only
    )
    start = time.monotonic()
    with scratch() as folder:
        results = package.run(folder, lambda line: click.echo(line, err=True))
    described = machine(devices) | {
        "scale": package.scale.name,
        "seconds": round(time.monotonic() - start, 1),
    }
    lines = table(results, described["device"])
    to.mkdir(parents=True, exist_ok=True)
    found = {"machine": described, "results": [dataclasses.asdict(result) for result in results]}
    (to / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    (to / "gpu.md").write_text("\n".join(lines) + "\n")
    for line in lines:
        click.echo(line)
    failed = sum(result.met is False for result in results)
    if failed:
        raise click.ClickException(
            f"{failed} of {len(results)} checks and figures failed or missed what is wanted"
        )


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of libraries, that weights are random
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
