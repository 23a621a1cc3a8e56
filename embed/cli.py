"""The commands `shelfprice embed ...`."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from embed.export_cli import export
from embed.finetune.cli import finetune
from store.options import json_option, print_json, workspace_option
from store.workspace import Workspace


class ShareType(click.ParamType):
    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        from embed.share import Share

        return value if isinstance(value, Share) else Share.parse(value)


SHARE = click.FloatRange(0.0, 1.0)


def _encoder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option(
                "-e",
                "--encoder",
                "encoders",
                multiple=True,
                metavar="ENCODER[@COMPOSITION]",
                help="Only this encoder or vector set; may be repeated. Default: all of the configuration.",
            ),
            click.option(
                "--precision",
                type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
                default="auto",
                help="auto: the fastest that keeps every measured row within cosine 0.999 of fp32.",
            ),
            click.option(
                "--models",
                "models_dir",
                type=click.Path(path_type=Path, file_okay=False, exists=True),
                envvar="SHELFPRICE_MODELS",
                show_envvar=True,
                help="Folder of models carried over from a connected machine.",
            ),
            click.option(
                "--offline", is_flag=True, help="Never ask the model hub; its local cache is still read."
            ),
            click.option(
                "--shard",
                "share",
                type=ShareType(),
                help="Only the i-th of n shares of what is missing, split by key, for schedulers of many runs.",
            ),
        ]
    ):
        command = option(command)
    return command


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Take a polite request to end as Ctrl-C, so that what is done is published."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group()
def embed() -> None:
    """Compute the vectors that rows still lack, once, into the cache."""


embed.add_command(finetune)


@embed.command()
@_encoder_options
@click.option("--retry-failed", is_flag=True, help="Count inputs that failed before as missing.")
@workspace_option
@json_option
def plan(
    encoders: tuple[str, ...],
    precision: str,
    models_dir: Path | None,
    offline: bool,
    share: Any,
    retry_failed: bool,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Show what is missing, gigabytes and time, without loading a model."""
    from embed.encoders.base import Sources
    from embed.plan import plan_encoder
    from embed.report import plan_lines, plan_record
    from embed.wishes import find_wishes

    wishes = find_wishes(workspace, encoders, Sources(models_dir, offline), precision)
    plans = [plan_encoder(workspace, w.resolved, w.vector_sets, retry_failed=retry_failed) for w in wishes]
    plans = [one.own(share) for one in plans]
    if as_json:
        print_json({"encoders": [plan_record(one) for one in plans]})
        return
    for line in (line for one in plans for line in plan_lines(one)):
        click.echo(line)


@embed.command()
@_encoder_options
@click.option(
    "--devices",
    default="auto",
    metavar="NAME[,NAME...]",
    help="auto, cpu, cuda, cuda:1 or mps; several at once as cuda:0,cuda:1, every GPU as all.",
)
@click.option(
    "--batch-tokens", type=click.IntRange(1), help="Most padded tokens per forward pass. Default: measured."
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Most pictures per forward pass. Default: measured."
)
@click.option(
    "--publish-every",
    type=click.FloatRange(min=0.0),
    default=60.0,
    metavar="SECONDS",
    help="What is embedded is published at least this often: no more is lost when a run is killed.",
)
@click.option("--retry-failed", is_flag=True, help="Try inputs again that failed before.")
@click.option(
    "--max-failures", type=SHARE, help="Stop when a larger share of inputs fails. Default: configuration."
)
@click.option(
    "--max-coverage-gap",
    type=SHARE,
    help="Stop when the shares of rows without a vector differ more between train and test. Default: configuration.",
)
@workspace_option
@json_option
def run(
    encoders: tuple[str, ...],
    precision: str,
    models_dir: Path | None,
    offline: bool,
    share: Any,
    devices: str,
    batch_tokens: int | None,
    batch_size: int | None,
    publish_every: float,
    retry_failed: bool,
    max_failures: float | None,
    max_coverage_gap: float | None,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Embed every row that has no vector yet; whatever ends a run, the next goes on where it stopped."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin take the cores from decoding
    from embed.encoders.base import Sources
    from embed.job import Options
    from embed.job import run as run_job
    from embed.limits import Limits
    from embed.report import outcome_lines, outcome_record
    from embed.wishes import find_wishes
    from store.config import load_config

    config = load_config(workspace).embed
    limits = Limits(
        config.max_failures if max_failures is None else max_failures,
        config.max_coverage_gap if max_coverage_gap is None else max_coverage_gap,
    )

    def load(resolved: Any) -> Any:
        from embed.engine import Settings
        from embed.fleet import load_engines

        names = tuple(name.strip() for name in devices.split(","))
        return load_engines(workspace, resolved, Settings(names, batch_tokens, batch_size))

    wishes = find_wishes(workspace, encoders, Sources(models_dir, offline), precision)
    options = Options(limits, retry_failed, share, shard_seconds=publish_every)
    try:
        with _terminate_as_interrupt():
            outcomes = run_job(workspace, wishes, options, load, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt as interrupt:
        raise click.ClickException(
            "stopped; what was embedded is published: run the command again to go on"
        ) from interrupt
    if as_json:
        print_json({"encoders": [outcome_record(one) for one in outcomes]})
        return
    for line in (line for one in outcomes for line in outcome_lines(one)):
        click.echo(line)


@embed.command()
@click.option(
    "-e", "--encoder", "encoders", multiple=True, help="Only this encoder; may be repeated. Default: all."
)
@workspace_option
@json_option
def verify(encoders: tuple[str, ...], workspace: Workspace, as_json: bool) -> None:
    """Check every shard's checksums and rows; exit code 1 where one is damaged."""
    from dataclasses import asdict

    from embed.report import verify_lines
    from embed.verify import verify as verify_cache
    from store.errors import CorruptFileError

    reports = verify_cache(workspace, [name.partition("@")[0] for name in encoders])
    if as_json:
        print_json({"folders": [asdict(report) for report in reports]})
    else:
        for line in (line for report in reports for line in verify_lines(report)):
            click.echo(line)
    damaged = [f"{report.folder}/{name}" for report in reports for name in report.damaged]
    if damaged:
        raise CorruptFileError(
            f"{len(damaged)} of the cache's files are damaged (first: {damaged[0]}): run 'shelfprice embed run' to "
            "compute again just what they held"
        )


@embed.command()
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also copy the files into this folder, to carry to a machine without network and pass as --models.",
)
@json_option
def fetch(encoders: tuple[str, ...], to: Path | None, as_json: bool) -> None:
    """Download models, so that later runs need no network."""
    from dataclasses import asdict

    from embed.fetch import fetch as fetch_models

    fetched = fetch_models(encoders, to)
    if as_json:
        print_json({"encoders": [asdict(one) for one in fetched]})
        return
    for one in fetched:
        click.echo(f"{one.encoder}: {one.n_bytes / 1e6:,.0f} MB, {next(iter(one.files.values()))}")
    if to is not None:
        click.echo(f"on the other machine: shelfprice embed run --models {to} --offline")


embed.add_command(export)
