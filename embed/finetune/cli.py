"""The command `shelfprice embed finetune`."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from embed.finetune.recipe import HEADS, LOSSES, PRECISIONS, SCHEDULES
from embed.job.cli import source_options
from store.options import Interrupted, Sectioned, json_option, print_json, say, workspace_option
from store.workspace import Workspace

NOT_SET = "Default: the system's, see docs/finetune.md."


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option a field of `Recipe`; what is not given is the system's default."""
    options = [
        click.option("--head", type=click.Choice(HEADS), help="The head that is trained with the encoders."),
        click.option("--loss", type=click.Choice(LOSSES), help="Loss in log price."),
        click.option("--epochs", type=int, help="Epochs of fine-tuning, at most."),
        click.option(
            "--warmup-epochs", type=int, help="Epochs of the head's warm-up on cached vectors, at most."
        ),
        click.option(
            "--augmented-warmup",
            type=int,
            help="Number of first epochs that train only the head, on augmented inputs.",
        ),
        click.option("--image-rate", type=float, help="Peak learning rate of image encoders."),
        click.option("--text-rate", type=float, help="Peak learning rate of text encoders."),
        click.option("--head-rate", type=float, help="Peak learning rate of the head."),
        click.option(
            "--layer-decay", type=float, help="Rate of each block relative to the next; 1: the same rate."
        ),
        click.option(
            "--lora", type=int, help="Train adapters of this rank instead of the encoders' weights."
        ),
        click.option("--last-blocks", type=int, help="Train only this many last blocks of each encoder."),
        click.option("--weight-decay", type=float, help="Weight decay of AdamW."),
        click.option(
            "--schedule", type=click.Choice(SCHEDULES), help="Schedule of the rates after their warm-up."
        ),
        click.option("--warmup", type=float, help="Share of the steps over which the rates rise."),
        click.option("--rise", type=float, hidden=True, help="--warmup, as version 0.1.0 called it."),
        click.option("--batch-rows", type=int, help="Rows of one step, over all processes."),
        click.option("--clip", type=float, help="Largest norm of a gradient; larger ones are clipped."),
        click.option("--average", type=float, help="Decay of a running mean of the weights, which is kept."),
        click.option("--patience", type=int, help="Epochs without a better inner score before it ends."),
        click.option("--aside", type=int, help="One in so many groups is set aside for early stopping."),
        click.option(
            "--augment/--no-augment", default=None, help="Crop, flip, colour, erase; drop, shuffle bullets."
        ),
        click.option("--precision", type=click.Choice(PRECISIONS), help="auto: bf16 where fast, else fp16."),
        click.option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            "checkpointing",
            default=None,
            help="Recompute activations: less memory, more time.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


SECTIONS = {
    "What is trained": ("head", "lora", "last_blocks", "augment", "folds", "holdout"),
    "How it is trained": (
        "loss", "epochs", "warmup_epochs", "augmented_warmup", "image_rate", "text_rate", "head_rate", "layer_decay",
        "weight_decay", "schedule", "warmup", "batch_rows", "clip", "average", "patience", "aside",
    ),
    "Memory and speed": ("micro_rows", "precision", "checkpointing", "device", "save_every"),
    "Where models come from": ("models_dir", "offline", "trust_remote_code"),
}  # fmt: skip


@click.command(
    "finetune",
    cls=Sectioned,
    sections=SECTIONS,
    epilog="Defaults of these options depend on the encoders: docs/finetune.md lists them.",
)
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER[@COMPOSITION]...")
@click.option("--name", help="Name of the run, its vectors and its head. Default: the encoders' names.")
@_recipe_options
@click.option("--fold", "folds", type=int, multiple=True, help="Tune only this fold now; may be repeated.")
@click.option("--holdout", is_flag=True, help="Tune fold 0 only: gives a score, but no predictions.")
@click.option("--plan", "only_plan", is_flag=True, help="Show steps, hours and memory, and train nothing.")
@click.option("--restart", is_flag=True, help="Remove what a run of this name has done and begin anew.")
@click.option(
    "--micro-rows",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Most rows that enter the model at once; halved when memory runs out.",
)
@click.option(
    "--save-every",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    metavar="STEPS",
    help="Steps between checkpoints; there is one after each epoch too.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@source_options
@workspace_option
@json_option
def finetune_command(
    encoders: tuple[str, ...],
    name: str | None,
    folds: tuple[int, ...],
    holdout: bool,
    only_plan: bool,
    restart: bool,
    micro_rows: int,
    save_every: int,
    device: str,
    models_dir: Path | None,
    offline: bool,
    trust_remote_code: bool,
    workspace: Workspace,
    as_json: bool,
    **given: Any,
) -> None:
    """Train encoders and a head together on the prices.

    They are trained once for each fold, so that scores are not biased. Vectors of the tuned encoders go into the cache,
    and the prices become those of one more head.

    \b
    Examples:
      shelfprice embed finetune minilm@full --head fusion --plan -w run
      shelfprice embed finetune minilm@full --head fusion --last-blocks 2 -w run
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin take the cores from decoding
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from embed.encoders.base import Sources
    from embed.finetune.job import prepare_job
    from embed.finetune.processes import open_processes
    from embed.finetune.recipe import recipe_for
    from embed.finetune.report import outcome_lines, outcome_record, plan_lines
    from embed.finetune.run import finetune as tune
    from embed.finetune.training import TrainingOptions
    from store.config import load_config
    from store.errors import ConfigError

    rise = given.pop("rise")
    given["warmup"] = rise if given["warmup"] is None else given["warmup"]
    recipe = recipe_for(encoders, {key: value for key, value in given.items() if value is not None})
    processes = open_processes(device)

    def log(line: str) -> None:
        if processes.writes:
            say(line, err=True)

    sources = Sources(models_dir, offline, trust_remote_code=trust_remote_code)
    job = prepare_job(workspace, load_config(workspace), encoders, name, recipe, sources, log)
    if holdout and folds:
        raise ConfigError("--holdout already means fold 0: pass either --holdout or --fold")
    chosen = [0] if holdout else list(folds)
    options = TrainingOptions(micro_rows, save_every)
    if only_plan:
        from embed.finetune.plan import plan

        planned = plan(job, chosen, processes, options)
        processes.close()
        if not processes.writes:
            return
        if as_json:
            print_json(dataclasses.asdict(planned))
            return
        for line in plan_lines(planned):
            say(line)
        say("next: the same command without --plan")
        return
    try:
        outcome = tune(job, chosen, processes, options, device, log, restart)
    except KeyboardInterrupt as interrupt:
        raise Interrupted("stopped: the same command goes on from the last checkpoint") from interrupt
    if outcome is None:
        return
    if as_json:
        print_json(outcome_record(job, outcome))
        return
    for line in outcome_lines(job, outcome):
        say(line)
