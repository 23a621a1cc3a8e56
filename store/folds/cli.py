"""`shelfprice catalog folds`."""

from typing import Any, get_args

import click

from store.config import Grouping
from store.options import SEED, json_option, on_workspace, print_json, say, workspace_option
from store.workspace import Workspace


@click.command()
@workspace_option
@json_option
@click.option(
    "-k", type=click.IntRange(min=2), help="Number of folds.  [default: folds.k of shelfprice.toml, or 5]"
)
@click.option(
    "--group",
    type=click.Choice(get_args(Grouping)),
    help="Rows that stay together: 'exact' for the same text or image (and the same further columns), 'near' for nearly "
    "the same text as well, 'none' for no others; 'auto' for the grouping that fits the test set best.  "
    "[default: folds.group of shelfprice.toml, or auto]",
)
@click.option("--seed", type=SEED, help="The run's seed.  [default: seed of shelfprice.toml, or 42]")
def folds(
    workspace: Workspace, as_json: bool, k: int | None, group: Grouping | None, seed: int | None
) -> None:
    """Divide training rows into folds and show them.

    Options are saved to shelfprice.toml, so that later runs use them. Folds that fit the catalogue and the options
    are kept; other folds make predictions and blends stale.

    \b
    Examples:
      shelfprice catalog folds -w run
      shelfprice catalog folds -k 10 --group near -w run
    """
    from store.folds.summary import decide_and_describe

    described = decide_and_describe(workspace, k, group, seed, lambda line: say(line, err=True))
    if as_json:
        print_json(described)
        return
    for line in fold_lines(described):
        say(line)
    say(f"next: {on_workspace('shelfprice heads run', workspace.root)}")


def fold_lines(described: dict[str, Any]) -> list[str]:
    """The folds for people."""
    share = described["largest_group"] / described["rows"]
    reason = f": {described['reason']}" if described["reason"] else ""
    lines = [
        f"folds {described['status']}{reason}",
        f"{described['k']} folds of {described['rows']} rows in {described['groups']} groups",
        f"{described['rows_in_groups']} rows share a group, the largest holds {described['largest_group']}",
    ]
    lines.extend(
        f"  fold {fold['fold']}: {fold['rows']} rows, {fold['groups']} groups, median price {fold['median_price']:.2f}"
        for fold in described["folds"]
    )
    if share > 1 / described["k"]:
        lines.append(
            f"note: the largest group holds {share:.0%} of the rows, so folds can't be of equal size"
        )
    if described["config_written"]:
        lines.append("saved to shelfprice.toml")
    return lines
