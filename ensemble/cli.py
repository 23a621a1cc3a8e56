"""`shelfprice ensemble`: finished predictions -> one blend, one submission."""

from pathlib import Path

import click

from ensemble.model.cli import pack
from store.config import load_config
from store.options import json_option, print_json, say, workspace_option
from store.workspace import Workspace


@click.group()
def ensemble() -> None:
    """Blend the heads' predictions, score the blend honestly, write the submission."""


ensemble.add_command(pack)


@ensemble.command()
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="NAME",
    help="Blend this head, as a trial that leaves the standing blend and its submission as they are; may be given "
    "again. Default: the heads of the configuration (heads.run) and fine-tuned ones.",
)
@click.option(
    "--standing",
    is_flag=True,
    help="With --head: make this blend the standing one, which 'ensemble submit' takes.",
)
@click.option(
    "--coverage",
    type=float,
    default=0.9,
    show_default=True,
    help="Probability that a row's interval holds its price, 0.5 to 0.999.",
)
@workspace_option
@json_option
def blend(
    heads: tuple[str, ...], standing: bool, coverage: float, workspace: Workspace, as_json: bool
) -> None:
    """Choose weights for the heads and estimate the test score honestly.

    Grids of weights under three means, greedy selection, convex weights and the median compete on inner
    folds; the plain average is taken where the best of them gains no more than one standard error over
    groups. The honest score is of rows that took no part in any of these choices.
    """
    from ensemble.blend import run_blend
    from ensemble.summary import blend_lines

    config = load_config(workspace)
    floor = config.submission.price_floor
    record = run_blend(workspace, heads, config.heads.run, config.seed, coverage, floor, standing=standing)
    if as_json:
        print_json(record)
    else:
        say("\n".join(blend_lines(record)))


@ensemble.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A further file to write the submission to, beside the workspace's own submission.csv.",
)
@click.option(
    "--blend",
    "folder",
    metavar="FOLDER",
    help="Another blend than the standing one, such as blend/0123456789abcdef: its prices go into that folder and to "
    "--out, the workspace's own submission.csv stays.",
)
@workspace_option
@json_option
def submit(out: Path | None, folder: str | None, workspace: Workspace, as_json: bool) -> None:
    """Price the test rows with the standing blend and write submission.csv."""
    from ensemble.submission import submit as run_submit
    from ensemble.summary import submit_lines

    config = load_config(workspace)
    result = run_submit(workspace, config.columns, out, config.submission.price_floor, folder=folder)
    if as_json:
        print_json(result)
    else:
        say("\n".join(submit_lines(result)))


@ensemble.command()
@click.option(
    "--rows",
    "max_rows",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="Rows of each split to look at; larger ones are drawn from.",
)
@workspace_option
@json_option
def audit(max_rows: int, workspace: Workspace, as_json: bool) -> None:
    """Check for leaks, drift and near-duplicates across train and test, which would bias the honest score."""
    from ensemble.audit.run import run_audit
    from ensemble.summary import audit_lines

    config = load_config(workspace)
    result = run_audit(workspace, config.heads.vectors, config.seed, max_rows)
    if as_json:
        print_json(result)
    else:
        say("\n".join(audit_lines(result)))
