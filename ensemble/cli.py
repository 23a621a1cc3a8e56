"""`shelfprice ensemble`: finished predictions -> one blend, one submission."""

from pathlib import Path

import click

from ensemble.model.cli import pack
from ensemble.report.cli import report
from store.config import load_config
from store.errors import AuditError
from store.options import (
    InOrder,
    json_option,
    on_workspace,
    print_json,
    say,
    spreadsheet_option,
    user_timings,
    workspace_option,
)
from store.outputs import Output, check_outputs, has_header
from store.workspace import Workspace

COLOURS = {"ok": "green", "caution": "yellow", "fail": "red"}


@click.group(cls=InOrder, order=("blend", "audit", "submit", "report", "pack"))
def ensemble() -> None:
    """Blend heads, estimate the error, write prices and a report."""


ensemble.add_command(pack)
ensemble.add_command(report)


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
    """Choose weights for the heads and estimate the test score.

    Grids of weights under three means, greedy selection, convex weights and the median compete on inner
    folds; the plain average is taken where the best of them gains no more than one standard error over
    groups. The honest score is of rows that took no part in any of these choices.

    \b
    Examples:
      shelfprice ensemble blend -w run
      shelfprice ensemble blend --head ridge --head sparse -w run
    """
    from ensemble.blend import run_blend
    from ensemble.summary import blend_lines
    from heads.defaults import configured_heads
    from heads.estimates import BLEND
    from store.progress import moving
    from store.timings import forget_peak, peak_since

    config = load_config(workspace)
    floor, hidden = config.submission.price_floor, forget_peak()
    with moving("blend: weights on all folds, and without each"):
        configured = configured_heads(workspace, config)
        record = run_blend(workspace, heads, configured, config.seed, coverage, floor, standing=standing)
    if not record["up_to_date"]:
        size = record["n_rows"] * len(record["weights"])
        user_timings().record(BLEND, size, record["seconds"], peak_since(hidden))
    if as_json:
        print_json(record)
    else:
        say("\n".join(blend_lines(record)))
        if record["standing"] and record["n_test"]:
            say(f"next: {on_workspace('shelfprice ensemble submit', workspace.root)}")


@ensemble.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A further file to write the submission to, beside the workspace's own submission.csv.",
)
@spreadsheet_option
@click.option(
    "--blend",
    "folder",
    metavar="FOLDER",
    help="Another blend than the standing one, such as blend/0123456789abcdef: its prices go into that folder and to "
    "--out, the workspace's own submission.csv stays.",
)
@workspace_option
@json_option
def submit(
    out: Path | None, spreadsheet: Path | None, folder: str | None, workspace: Workspace, as_json: bool
) -> None:
    """Price the test rows and write submission.csv.

    The standing blend gives the prices, unless --blend names another one.

    \b
    Examples:
      shelfprice ensemble submit -w run
    """
    from ensemble.submission import submit as run_submit
    from ensemble.summary import submit_lines

    config = load_config(workspace)
    floor, price = config.submission.price_floor, config.columns.price
    outputs = {
        "--out": Output(out, has_header(price)),
        "--spreadsheet": Output(spreadsheet, has_header(price, "low", "high")),
    }
    check_outputs(outputs, workspace=workspace)
    result = run_submit(workspace, config.columns, out, floor, folder=folder, spreadsheet=spreadsheet)
    if as_json:
        print_json(result)
    else:
        say("\n".join(submit_lines(result)))
        if folder is None:
            say(f"next: {on_workspace('shelfprice ensemble report', workspace.root)}")


@ensemble.command()
@click.option(
    "--rows",
    "max_rows",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="Rows of each split to look at; larger ones are drawn from.",
)
@click.option(
    "--check",
    "only",
    multiple=True,
    metavar="NAME",
    help="Run this check alone, such as 'twins' or 'columns'; may be given again.",
)
@workspace_option
@json_option
def audit(max_rows: int, only: tuple[str, ...], workspace: Workspace, as_json: bool) -> None:
    """Check for leaks, drift and copies across train and test.

    Each of them would make the printed score wrong. Exit code 1 where a check fails.

    \b
    Examples:
      shelfprice ensemble audit -w run
      shelfprice ensemble audit --check columns -w run
    """
    from ensemble.audit.run import run_audit
    from ensemble.summary import audit_lines

    config = load_config(workspace)
    result = run_audit(workspace, config.heads.vectors, config.seed, max_rows, only)
    if as_json:
        print_json(result)
    else:
        for line in audit_lines(result):
            say(line, colour=COLOURS.get(line.split()[0]))
    if result["verdict"] == "fail":
        failed = [check["name"] for check in result["checks"] if check["verdict"] == "fail"]
        raise AuditError(
            f"the honest score can't be trusted, {len(failed)} checks failed: {', '.join(failed)}"
        )
    if not as_json:
        say(f"next: {on_workspace('shelfprice ensemble submit', workspace.root)}")
