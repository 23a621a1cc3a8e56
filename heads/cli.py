"""The commands `shelfprice heads …`."""

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from store.options import InOrder, json_option, on_workspace, print_json, say, user_timings, workspace_option
from store.workspace import Workspace

if TYPE_CHECKING:
    from heads.estimates import HeadEstimates
    from heads.run import HeadResult

TO_TRAIN = "to train"


@click.group(
    cls=InOrder, order=("list", "plan", "run", "compare", "tune"), context_settings={"show_default": True}
)
def heads() -> None:
    """Train heads on vectors: light models that predict prices."""


@heads.command()
@click.option(
    "--head",
    "names",
    multiple=True,
    metavar="NAME",
    help="Train this head; may be given again. Default: the heads of heads.run in shelfprice.toml, or where that is empty "
    "those that 'shelfprice heads plan' lists.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Most memory for vectors, such as 4GB: heads whose vectors take more train from files in TMPDIR. "
    "Default: no limit.",
)
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the weights of pretrained heads (`tabicl`). Default: the model hub and its cache.",
)
@workspace_option
@json_option
def run(
    names: tuple[str, ...], memory: str | None, models: Path | None, workspace: Workspace, as_json: bool
) -> None:
    """Train the heads whose predictions are missing.

    All heads use one set of folds. Current predictions are kept.

    \b
    Examples:
      shelfprice heads run -w run
      shelfprice heads run --head ridge --head additive -w run
    """
    from heads.estimates import step_of
    from heads.features.memory import parse_bytes
    from heads.run import run_heads
    from store.config import load_config
    from store.errors import HeadError
    from store.folds.assign import read_folds
    from store.progress import moving

    results: list[HeadResult] = []
    limit = None if memory is None else parse_bytes(memory)
    config = load_config(workspace)
    if models is not None:
        own = {"tabicl": {**config.heads.params.get("tabicl", {}), "models": str(models)}}
        config = dataclasses.replace(
            config, heads=dataclasses.replace(config.heads, params={**config.heads.params, **own})
        )
    with moving("heads run") as line:

        def log(said: str) -> None:
            with line.above():
                say(said, err=True)
            line.say(said)

        for result in run_heads(workspace, config, names, log, limit):
            results.append(result)
            if result.status == "trained" and result.seconds is not None:
                n_rows = len(read_folds(workspace).fold)
                step = step_of(result.head)
                user_timings().record(step, n_rows, result.seconds, result.peak_bytes, result.width)
            if not as_json:
                with line.above():
                    _say_result(result)
    if as_json:
        print_json({"heads": [dataclasses.asdict(result) for result in results]})
    failed = [result.head for result in results if result.status == "failed"]
    if failed:
        raise HeadError(f"{len(failed)} of {len(results)} heads failed: {', '.join(failed)}")
    if not as_json:
        say(f"next: {on_workspace('shelfprice ensemble blend', workspace.root)}")


def _say_result(result: "HeadResult") -> None:
    tuned = "tuned, " if result.tuned else ""
    if result.status == "failed":
        say(f"{result.head:<20} failed: {result.error}", err=True, colour="red")
    elif result.status == "present":
        say(f"{result.head:<20} SMAPE {result.smape:7.3f}  {tuned}already there, {result.folder}")
    else:
        memory = "" if result.peak_bytes is None else f"{result.peak_bytes / 1e9:.2f} GB, "
        say(
            f"{result.head:<20} SMAPE {result.smape:7.3f}  {tuned}{result.seconds:.1f} s, {memory}{result.folder}"
        )


@heads.command()
@click.option("--head", "name", required=True, metavar="NAME", help="Search for the parameters of this head.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.0, min_open=True),
    default=10.0,
    help="Minutes of the search; the last trial is finished, and every fold gets at least one.",
)
@workspace_option
@json_option
def tune(name: str, minutes: float, workspace: Workspace, as_json: bool) -> None:
    """Search for better parameters of a head, inside the folds.

    A later call continues the search. 'shelfprice heads run' uses the parameters that were found.

    \b
    Examples:
      shelfprice heads tune --head lightgbm --minutes 5 -w run
    """
    from heads.folds.tuning import tuning_path
    from heads.run import tune_head
    from store.config import load_config

    tuning = tune_head(workspace, load_config(workspace), name, minutes, lambda line: say(line, err=True))
    if as_json:
        print_json(
            {"head": name, **tuning.described, "trials": tuning.trials, "inner_smape": tuning.inner_smape}
        )
        return
    inner = tuning.inner_smape
    before = f"{inner['default']:.3f}" if "default" in inner else "failed"
    say(f"{name}: {tuning.trials} trials, inner SMAPE {before} with the defaults, {inner['found']:.3f} found")
    say(f"  {json.dumps(tuning.described)}")
    say(f"  in {workspace.path(tuning_path(name))}; the next 'shelfprice heads run --head {name}' uses it")


@heads.command()
@click.option(
    "--measure",
    is_flag=True,
    help="Train heads that this machine never trained, and blend, on a few rows first.",
)
@workspace_option
@json_option
def plan(measure: bool, workspace: Workspace, as_json: bool) -> None:
    """Say which heads a run trains, why, and how long it takes.

    Seconds and memory are those of earlier runs on this machine, whatever the workspace, by the number of rows and the
    width of the vectors.

    \b
    Examples:
      shelfprice heads plan -w run
      shelfprice heads plan --measure -w run
    """
    from heads.defaults import chosen_heads
    from heads.estimates import BLEND, estimate_heads, estimate_text, step_of
    from heads.measure import measure_heads
    from heads.plan import HeadPlan, plan_heads
    from store.catalog.read import catalog_digest
    from store.config import load_config
    from store.folds.assign import ensure_folds
    from store.rooms import find_rooms
    from store.timings import forget_peak, peak_since

    config = load_config(workspace)
    chosen, folds = chosen_heads(workspace, config), ensure_folds(workspace, config)
    planned = list(plan_heads(workspace, config, chosen.names, folds, catalog_digest(workspace)))
    states = {
        name: ("there" if found.exists else TO_TRAIN)
        if isinstance(found, HeadPlan)
        else f"can't be trained: {found}"
        for name, found in planned
    }
    to_train = {name: one for name, one in planned if isinstance(one, HeadPlan) and states[name] == TO_TRAIN}
    widths = {name: one.width(workspace) for name, one in to_train.items()}

    def estimated() -> "HeadEstimates":
        return estimate_heads(widths, len(folds.fold), user_timings(), len(planned))

    estimates = estimated()
    unknown = [name for name, found in estimates.heads.items() if found is None]
    if measure:
        asked, hidden = [to_train[name] for name in unknown], forget_peak()
        for one in measure_heads(workspace, asked, folds, config.seed, lambda line: say(line, err=True)):
            user_timings().record(step_of(one.head), one.n_rows, one.seconds, peak_since(hidden), one.width)
            hidden = forget_peak()
        if estimates.blend is None:
            for size, seconds in (one for room in find_rooms() for one in room.measure_blend(len(planned))):
                user_timings().record(BLEND, size, seconds, peak_since(hidden))
        estimates = estimated()
    if as_json:
        print_json({"heads": states, "reason": chosen.reason, "estimates": dataclasses.asdict(estimates)})
        return
    say(f"{len(states)} heads, {chosen.reason}")
    for name, state in states.items():
        about = f", {estimate_text(estimates.heads[name])}" if state == TO_TRAIN else ""
        say(f"{name:<20} {'trained already' if state == 'there' else state}{about}")
    say(f"{'blend':<20} {estimate_text(estimates.blend)}")
    if (unknown or estimates.blend is None) and not measure:
        say("'shelfprice heads plan --measure' measures what is unknown on a few rows.")
    if TO_TRAIN in states.values():
        say(f"next: {on_workspace('shelfprice heads run', workspace.root)}")
    elif "there" in states.values():
        say(f"next: {on_workspace('shelfprice ensemble blend', workspace.root)}")


@heads.command(name="list")
@json_option
def list_heads(as_json: bool) -> None:
    """List every head, what it reads, and its parameters.

    Parameters are listed with their defaults; [heads.params.NAME] of shelfprice.toml sets other values.

    \b
    Examples:
      shelfprice heads list
    """
    from heads.registry import list_heads as run

    listed = run()
    if as_json:
        print_json({"heads": [dataclasses.asdict(head) for head in listed]})
        return
    for head in listed:
        origin = "" if head.origin == "shelfprice" else f" ({head.origin})"
        if head.problem is not None:
            say(f"{head.head}{origin}: can't be used: {head.problem}")
            continue
        needs = f"; needs shelfprice[{head.extra}]" if head.extra else ""
        say(f"{head.head}{origin}: {head.summary}")
        say(f"  reads {', '.join(head.reads)}{needs}")
        params = (f"{name}={json.dumps(v, separators=(',', ':'))}" for name, v in head.params.items())
        for line in textwrap.wrap(", ".join(params), 78, break_on_hyphens=False, break_long_words=False):
            say(f"  {line}")


@heads.command()
@click.argument("names", nargs=-1, required=True, metavar="HEAD...")
@click.option(
    "--rows",
    "n_rows",
    type=click.IntRange(min=100),
    help="About how many rows to train on; groups are not split. Default: all, and finished predictions are used.",
)
@workspace_option
@json_option
def compare(names: tuple[str, ...], n_rows: int | None, workspace: Workspace, as_json: bool) -> None:
    """Compare heads on the same rows and folds.

    Each is compared with the first, with an interval of the difference. The standing blend is not changed.

    \b
    Examples:
      shelfprice heads compare ridge sparse -w run
    """
    from heads.compare import compare_heads, compared_lines
    from store.config import load_config

    found = compare_heads(workspace, load_config(workspace), names, n_rows, lambda line: say(line, err=True))
    if as_json:
        print_json({"heads": [dataclasses.asdict(one) for one in found]})
    else:
        say("\n".join(compared_lines(found)))
