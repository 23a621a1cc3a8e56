"""The command `shelfprice embed run`."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from store.options import (
    SHARE,
    Interrupted,
    Sectioned,
    json_option,
    on_workspace,
    print_json,
    say,
    user_timings,
    workspace_option,
)
from store.workspace import Workspace


class ShareType(click.ParamType):
    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        from embed.job.share import Share

        return value if isinstance(value, Share) else Share.parse(value)


LEAST_TIMED = 50  # contents embedded, below which their time is that of the start


trust_option = click.option(
    "--trust-remote-code",
    "trust_remote_code",
    is_flag=True,
    help="Run the code that comes with a model which its library does not support. Read it first: it runs with your "
    "rights.",
)


_models_option = click.option(
    "--models",
    "models_dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    envvar="SHELFPRICE_MODELS",
    show_envvar=True,
    help="Folder of models that 'embed fetch --to' filled on a connected machine.",
)
_offline_option = click.option(
    "--offline", is_flag=True, help="Never ask the model hub; its local cache is still read."
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where a model's files may come from."""
    return _models_option(_offline_option(trust_option(command)))


def encoder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that `plan` and `run` share."""
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
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
            type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
            default="auto",
            help="auto: the fastest that keeps every measured row within cosine 0.999 of fp32. int8: on CPUs, by "
            "OpenVINO (extra 'int8'), without that limit; the cosine is printed.",
        ),
        source_options,
        click.option(
            "--shard",
            "share",
            type=ShareType(),
            help="Embed only the i-th of n shares of the missing keys, for schedulers of many runs.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C, so that finished vectors are published."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


SECTIONS = {
    "Where models come from": ("models_dir", "offline", "trust_remote_code"),
    "Speed": ("precision", "devices", "batch_tokens", "batch_size", "publish_every"),
    "Failures": ("retry_failed", "max_failures", "max_coverage_gap"),
    "Several machines": ("share", "engine", "actors", "num_gpus", "ray_address", "give_up_after"),
}


@click.command("run", cls=Sectioned, sections=SECTIONS)
@encoder_options
@click.option(
    "--devices",
    default="auto",
    metavar="NAME[,NAME...]",
    help="auto, cpu, cuda, cuda:1 or mps; several at once as cuda:0,cuda:1, every GPU as all.",
)
@click.option(
    "--batch-tokens", type=click.IntRange(1), help="Most padded tokens per forward pass. Default: measured."
)
@click.option("--batch-size", type=click.IntRange(1), help="Most images per forward pass. Default: measured.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="local: this process. ray: Ray Data, on this machine or a cluster (extra 'ray').",
)
@click.option(
    "--actors",
    type=click.IntRange(1),
    help="With --engine ray: workers that each hold the model. Default: one for each GPU, or one for each machine.",
)
@click.option(
    "--num-gpus",
    type=click.FloatRange(0.0),
    help="With --engine ray: GPUs of an actor, may be a fraction. Default: 1 where the cluster has any.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="Address of a running Ray cluster; its machines must reach the workspace and the weights at the same address. "
    "Default: Ray is started on this machine.",
)
@click.option(
    "--give-up-after",
    type=click.FloatRange(min=0.0, min_open=True),
    default=900.0,
    metavar="SECONDS",
    help="With --engine ray: stop when nothing was scheduled or finished for this long.",
)
@click.option(
    "--publish-every",
    type=click.FloatRange(min=0.0),
    default=60.0,
    metavar="SECONDS",
    help="Vectors are written at least this often, so that a killed run loses no more.",
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
@click.option(
    "--no-images",
    is_flag=True,
    help="Leave images out of this run and of later ones: saved to shelfprice.toml.",
)
@workspace_option
@json_option
def run_command(
    encoders: tuple[str, ...],
    precision: str,
    models_dir: Path | None,
    offline: bool,
    trust_remote_code: bool,
    share: Any,
    devices: str,
    batch_tokens: int | None,
    batch_size: int | None,
    engine: str,
    actors: int | None,
    num_gpus: float | None,
    ray_address: str | None,
    give_up_after: float,
    publish_every: float,
    retry_failed: bool,
    max_failures: float | None,
    max_coverage_gap: float | None,
    no_images: bool,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Embed every row that has no vector yet.

    A run that was stopped continues where it stopped.

    \b
    Examples:
      shelfprice embed run -w run
      shelfprice embed run -e minilm@full --precision fp32 -w run
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin take the cores from decoding
    from embed.catalogue import embed_catalogue
    from embed.job.plan import timing_step
    from embed.job.report import outcome_lines, outcome_record
    from embed.job.request import unread_encoders
    from store.config import load_config

    cluster = None
    if engine == "ray":
        from embed.distributed.cluster import Cluster, check_installed
        from embed.distributed.layout import WantedActors

        check_installed()
        cluster = Cluster(WantedActors(actors, num_gpus), ray_address, give_up_after)
    if no_images:
        from embed.encoders.base import Sources
        from embed.job.request import leave_images_out

        sources = Sources(models_dir, offline, trust_remote_code=trust_remote_code)
        left_out = leave_images_out(workspace, sources)
        say(f"left out from now on: {', '.join(left_out) or 'nothing'}", err=True)
    try:
        with _terminate_as_interrupt():
            outcomes = embed_catalogue(
                workspace,
                encoders,
                device=devices,
                precision=precision,
                models_dir=models_dir,
                offline=offline,
                trust_remote_code=trust_remote_code,
                batch_tokens=batch_tokens,
                batch_size=batch_size,
                publish_every=publish_every,
                retry_failed=retry_failed,
                max_failures=max_failures,
                max_coverage_gap=max_coverage_gap,
                share=share,
                cluster=cluster,
                say=lambda line: say(line, err=True),
            )
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            "stopped; what was embedded is published: run the command again to go on"
        ) from interrupt
    for one in outcomes:
        if one.n_embedded >= LEAST_TIMED and cluster is None:
            step = timing_step(one.plan.spec, devices.split(","))
            user_timings().record(step, one.n_embedded, one.seconds)
    if as_json:
        print_json({"encoders": [outcome_record(one) for one in outcomes]})
        return
    for line in (line for one in outcomes for line in outcome_lines(one)):
        say(line)
    for name in unread_encoders(load_config(workspace)) if not encoders else ():
        say(f"note: no head reads vectors of {name}: name it in [heads] vectors of shelfprice.toml as well")
    if share is None:
        say(f"next: {on_workspace('shelfprice heads run', workspace.root)}")
