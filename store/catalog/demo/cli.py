"""`shelfprice catalog demo`."""

from pathlib import Path

import click

from store.options import SEED, json_option, print_json, say


@click.command()
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write: new, empty, or holding an earlier demo, which is replaced.",
)
@click.option(
    "--seed", type=SEED, default=42, help="Decides every product, text and image: same seed, same bytes."
)
@click.option("--train", "n_train", default=2000, help="Rows of train.csv.")
@click.option("--test", "n_test", default=500, help="Rows of test.csv.")
@json_option
def demo(to: Path, seed: int, n_train: int, n_test: int, as_json: bool) -> None:
    """Write an invented catalogue with images to try things on.

    Its prices are known for the test rows as well, in truth.csv; so is the best score that a model can reach.

    \b
    Examples:
      shelfprice catalog demo --to demo
      shelfprice catalog demo --to small --train 300 --test 60
    """
    from store.catalog.demo.generate import make_demo, summary
    from store.outputs import Output, check_outputs

    check_outputs({"--to": Output(to)})
    record = make_demo(to, seed, n_train, n_test)
    if as_json:
        print_json(record)
    else:
        say(summary(to, record))
