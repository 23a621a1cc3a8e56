"""The command `shelfprice ensemble report`."""

import click

from store.options import json_option, on_workspace, print_json, say, workspace_option
from store.workspace import Workspace


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.0),
    default=10.0,
    show_default=True,
    help="Time for training heads again, for the learning curve and the worth of each input; the quickest heads are "
    "taken that fit into it. What was measured of a blend is kept. 0: train nothing.",
)
@click.option(
    "--blend",
    "folder",
    metavar="FOLDER",
    help="Another blend than the standing one, such as blend/0123456789abcdef: its page goes into that folder.",
)
@workspace_option
@json_option
def report(seconds: float, folder: str | None, workspace: Workspace, as_json: bool) -> None:
    """Write report.html: how good the blend is, where it fails.

    One page that needs no network: score, heads, slices of rows that are worse than the rest, the worst rows
    with a guess at the reason, learning curve, worth of each input, audit, costs. docs/report.md explains it.

    \b
    Examples:
      shelfprice ensemble report -w run
      shelfprice ensemble report --seconds 0 -w run
    """
    from ensemble.report.run import write_report
    from ensemble.report.summary import report_lines
    from store.progress import moving

    with moving("report") as line:
        done = write_report(workspace, folder=folder, seconds=seconds, progress=line.say)
    if as_json:
        print_json(done.facts | {"file": done.file})
    else:
        say("\n".join(report_lines(done.facts, done.file)))
        if folder is None:
            say(f"next: {on_workspace('shelfprice ensemble pack --to model', workspace.root)}")
