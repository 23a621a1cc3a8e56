"""`shelfprice catalog clean`."""

import dataclasses
import time
from typing import TYPE_CHECKING

import click

from store.options import json_option, print_json, say, user_timings, workspace_option
from store.workspace import Workspace

if TYPE_CHECKING:
    from store.catalog.clean.run import CleanReport

STEP = "catalog clean"  # among a user's timings


@click.command()
@workspace_option
@json_option
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="FINDING=POLICY",
    help="What training does about a finding: keep, drop; for groups of rows also median, first, weight. Repeat; saved "
    "to shelfprice.toml.  [default: [clean] of shelfprice.toml, or keep]",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes that decode images.",
)
def clean(workspace: Workspace, as_json: bool, policies: tuple[str, ...], processes: int) -> None:
    """Find doubtful rows, decide what training does with them.

    Each decision is listed in cleaning.parquet with its reason. Nothing is deleted from the catalogue, and no row that
    is scored is changed: a decision holds for the rows that a fold's model is fitted on.

    \b
    Examples:
      shelfprice catalog clean -w run
      shelfprice catalog clean --policy price=median -w run
    """
    from store.catalog.clean.run import clean_catalog
    from store.progress import moving

    started, n_rows = time.perf_counter(), n_rows_of(workspace)
    expected = user_timings().estimate(STEP, n_rows)
    about = "" if expected is None else f", about {max(expected.seconds, 1):.0f} s"
    with moving(f"looking for doubtful rows{about}") as status:

        def log(said: str) -> None:
            with status.above():
                say(said, err=True)

        report = clean_catalog(workspace, policies, processes, log)
    user_timings().record(STEP, n_rows, time.perf_counter() - started)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    for line in clean_lines(report, workspace):
        say(line)


def n_rows_of(workspace: Workspace) -> int:
    """Rows of the catalogue, test rows among them."""
    from store.catalog.read import present_splits, split_path

    total = 0
    for split in present_splits(workspace):
        with workspace.parquet(split_path(split)) as file:
            total += file.metadata.num_rows
    return total


def clean_lines(report: "CleanReport", workspace: Workspace) -> list[str]:
    """The findings for people."""
    lines = [f"{'finding':<17}{'groups':>8}{'train':>9}{'test':>9}  policy   decisions"]
    for one in report.findings:
        changes = {what: n for what, n in one.decisions.items() if what != "keep"}
        said = ", ".join(f"{what} {n:,}" for what, n in changes.items()) or "-"
        groups = "" if one.groups is None else f"{one.groups:,}"
        lines.append(
            f"{one.name:<17}{groups:>8}{one.train_rows:>9,}{one.test_rows:>9,}  {one.policy:<8} {said}"
        )
    lines.append(f"decisions with their reasons: {workspace.path('cleaning.parquet')}")
    if report.digest is None:
        lines.append(
            "every policy is 'keep', so training uses every row as it is; --policy FINDING=POLICY changes that"
        )
    else:
        lines.append(
            f"{report.dropped:,} training rows are left out of a fit on all rows; scored rows are not"
        )
    if report.config_written:
        lines.append("policies saved to shelfprice.toml")
    return lines
