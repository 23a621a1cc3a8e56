"""The commands `shelfprice embed ...`."""

from pathlib import Path
from typing import Any

import click

from embed.export.cli import export_command
from embed.finetune.cli import finetune_command
from embed.job.cli import encoder_options, run_command, source_options, trust_option
from store.options import InOrder, json_option, on_workspace, print_json, say, user_timings, workspace_option
from store.workspace import Workspace


@click.group(cls=InOrder, order=("plan", "run", "verify", "compare", "show", "fetch", "export", "finetune"))
def embed() -> None:
    """Turn texts and images into vectors, each once."""


embed.add_command(finetune_command)


@embed.command("plan")
@encoder_options
@click.option("--retry-failed", is_flag=True, help="Count inputs that failed before as missing.")
@workspace_option
@json_option
def plan_command(
    encoders: tuple[str, ...],
    precision: str,
    models_dir: Path | None,
    offline: bool,
    trust_remote_code: bool,
    share: Any,
    retry_failed: bool,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Say what a run would embed, and its size and time.

    No model is loaded.

    \b
    Examples:
      shelfprice embed plan -w run
      shelfprice embed plan -e minilm@full -w run
    """
    from embed.encoders.base import Sources
    from embed.job.plan import plan_encoder, with_timings
    from embed.job.report import plan_lines, plan_record
    from embed.job.request import find_requests

    sources = Sources(models_dir, offline, trust_remote_code=trust_remote_code)
    requests = find_requests(workspace, encoders, sources, precision)
    plans = [plan_encoder(workspace, r.resolved, r.source, retry_failed=retry_failed) for r in requests]
    plans = [with_timings(one.own(share), user_timings()) for one in plans]
    if as_json:
        print_json({"encoders": [plan_record(one) for one in plans]})
        return
    for line in (line for one in plans for line in plan_lines(one)):
        say(line)
    if any(one.seconds is None for one in plans):
        names = [found.vector_set for one in plans for found in one.sets]
        command = f"shelfprice embed compare {' '.join(names if len(names) > 1 else [*names, 'ENCODER'])}"
        say(f"'{on_workspace(command, workspace.root)}' measures the time on a sample of the rows.")
    following = "embed run" if any(len(one.missing) for one in plans) else "heads run"
    say(f"next: {on_workspace(f'shelfprice {following}', workspace.root)}")


@embed.command("verify")
@click.option(
    "-e", "--encoder", "encoders", multiple=True, help="Only this encoder; may be repeated. Default: all."
)
@workspace_option
@json_option
def verify_command(encoders: tuple[str, ...], workspace: Workspace, as_json: bool) -> None:
    """Check the checksums of vectors and images.

    Images are checked where no encoder is named. The exit code is 1 where a file is damaged. A damaged image is renamed,
    so that the next ingest or download gets it again.

    \b
    Examples:
      shelfprice embed verify -w run
    """
    from dataclasses import asdict

    from embed.job.report import image_lines, verify_lines
    from embed.job.verify import ImageReport, verify, verify_images
    from store.errors import CorruptFileError, MissingVectorsError

    images = ImageReport(0, {}) if encoders else verify_images(workspace)
    try:
        reports = verify(workspace, [name.partition("@")[0] for name in encoders])
    except MissingVectorsError:
        if not images.damaged:
            raise
        reports = []
    if as_json:
        print_json({"folders": [asdict(report) for report in reports], "images": asdict(images)})
    else:
        for line in [*image_lines(images), *(line for report in reports for line in verify_lines(report))]:
            say(line)
    if images.damaged:
        raise CorruptFileError(
            f"{len(images.damaged)} of {images.n_images} images can't be used: {next(iter(images.damaged.values()))}"
        )
    damaged = [f"{report.folder}/{name}" for report in reports for name in report.damaged]
    if damaged:
        raise CorruptFileError(
            f"{len(damaged)} of the cache's files are damaged (first: {damaged[0]}): run 'shelfprice embed run' to "
            "compute their vectors again"
        )


@embed.command("fetch")
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also copy the files into this folder, which a machine without network takes as --models.",
)
@trust_option
@json_option
def fetch_command(encoders: tuple[str, ...], to: Path | None, trust_remote_code: bool, as_json: bool) -> None:
    """Download models, so that later runs need no network.

    \b
    Examples:
      shelfprice embed fetch clip-vit-l14 --to models
    """
    from dataclasses import asdict

    from embed.encoders.fetch import fetch
    from store.outputs import Output, check_outputs

    check_outputs({"--to": Output(to)})
    fetched = fetch(encoders, to, trust_remote_code=trust_remote_code)
    if as_json:
        print_json({"encoders": [asdict(one) for one in fetched]})
        return
    for one in fetched:
        say(f"{one.encoder}: {one.n_bytes / 1e6:,.0f} MB, {next(iter(one.files.values()))}")
    if to is not None:
        say(f"on the other machine: shelfprice embed run --models {to} --offline")


@embed.command("show")
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@source_options
@json_option
def show_command(
    encoders: tuple[str, ...],
    models_dir: Path | None,
    offline: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Show an encoder's recipe, licence and size.

    The recipe is all that decides its vectors. No weights are fetched or read.

    \b
    Examples:
      shelfprice embed show minilm efficientnet-lite0-stages
    """
    from embed.encoders.base import Sources
    from embed.encoders.show import show, show_lines, show_record

    sources = Sources(models_dir, offline, trust_remote_code=trust_remote_code)
    found = show([name.partition("@")[0] for name in encoders], sources)
    if as_json:
        print_json({"encoders": [show_record(one) for one in found]})
        return
    for line in (line for one in found for line in show_lines(one)):
        say(line)


@embed.command("compare")
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER[@COMPOSITION]...")
@click.option(
    "--rows",
    "n_rows",
    type=click.IntRange(min=100),
    default=2000,
    show_default=True,
    help="About how many training rows to embed; groups are not split.",
)
@source_options
@workspace_option
@json_option
def compare_command(
    encoders: tuple[str, ...],
    n_rows: int,
    models_dir: Path | None,
    offline: bool,
    trust_remote_code: bool,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Say which encoder predicts the prices best, on a sample.

    A sample is embedded with each encoder, and each is compared with the first by a ridge regression on its vectors.
    It also prints how many rows a second were embedded and how long all rows would take. Vectors of the sample are kept
    for 'embed run'; heads and blend are not changed.

    \b
    Examples:
      shelfprice embed compare minilm@full minilm@name --rows 500 -w run
    """
    from dataclasses import asdict

    from embed.compare import compare_encoders, compared_lines
    from embed.encoders.base import Sources
    from store.config import load_config

    found = compare_encoders(
        workspace,
        load_config(workspace),
        encoders,
        n_rows,
        sources=Sources(models_dir, offline, trust_remote_code=trust_remote_code),
        say=lambda line: say(line, err=True),
    )
    if as_json:
        print_json({"vectors": [asdict(one) for one in found]})
    else:
        say("\n".join(compared_lines(found)))


embed.add_command(run_command)
embed.add_command(export_command)
