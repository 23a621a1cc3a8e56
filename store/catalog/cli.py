"""`shelfprice catalog`: the catalogue of the workspace."""

import dataclasses
from typing import TYPE_CHECKING, Any, get_args

import click

from store.catalog.clean.cli import clean
from store.catalog.demo.cli import demo
from store.catalog.download.cli import images, images_export, images_import
from store.catalog.show.cli import show
from store.config import DecimalMark, ImagePolicy, RangePolicy
from store.folds.cli import folds
from store.options import (
    SHARE,
    InOrder,
    Sectioned,
    json_option,
    on_workspace,
    print_json,
    say,
    workspace_option,
)
from store.workspace import Workspace

if TYPE_CHECKING:
    from store.catalog.ingest.run import IngestReport


@click.group(
    cls=InOrder,
    order=("demo", "ingest", "images", "clean", "show", "folds", "images-export", "images-import"),
)
def catalog() -> None:
    """Read a catalogue: check rows, parse fields, make folds."""


SECTIONS = {
    "Columns": (
        "id_column", "test_id_column", "text_column", "image_column", "price_column", "numeric", "categorical",
        "leave_out", "group_column", "time_column", "weight_column",
    ),
    "How cells are read": ("decimal", "price_range", "images_per_row", "max_rejected"),
}  # fmt: skip


@catalog.command(cls=Sectioned, sections=SECTIONS)
@workspace_option
@json_option
@click.option(
    "--train",
    required=True,
    metavar="FILE",
    help="Training rows: CSV (commas, semicolons, tabs or pipes; also gzipped) or Parquet, with prices.",
)
@click.option("--test", metavar="FILE", help="Test rows; without it an earlier test split is removed.")
@click.option(
    "--images",
    metavar="DIR",
    help="Folder of images named <sample_id>.<ext>, train_/test_<sample_id>.<ext> or as in the image link, also in folders "
    "inside it; several of a row as <sample_id>_0.<ext>, <sample_id>_1.<ext>, or in a folder <sample_id>.",
)
@click.option(
    "--id-column",
    metavar="NAME",
    help="Column of ids; 'row-number' to number the rows.  [default: sample_id, or the row number where there is none]",
)
@click.option(
    "--test-id-column", metavar="NAME", help="Column of ids of the test file.  [default: as --id-column]"
)
@click.option(
    "--text-column",
    multiple=True,
    metavar="NAME",
    help="Column of catalogue texts; may be repeated: further ones are added under their names.  "
    "[default: catalog_content]",
)
@click.option(
    "--image-column",
    metavar="NAME",
    help="Column of images, may be missing: links, file names, data: URIs, lists of them, or bytes.  "
    "[default: image_link, or the one column of Hugging Face's type Image]",
)
@click.option(
    "--images-per-row",
    type=click.Choice(get_args(ImagePolicy)),
    help="Images of a row that are embedded: all, whose vectors are averaged, or the first.  [default: all]",
)
@click.option("--price-column", metavar="NAME", help="Column of prices, > 0.  [default: price]")
@click.option(
    "--group-column",
    metavar="NAME",
    help="Column of groups, such as the seller or the brand: rows of one value share a fold.",
)
@click.option(
    "--time-column",
    metavar="NAME",
    help="Column of times (dates or numbers): models are then scored on later rows than those they learn from.",
)
@click.option("--weight-column", metavar="NAME", help="Column of row weights in fits and scores, > 0.")
@click.option(
    "--decimal",
    type=click.Choice(get_args(DecimalMark)),
    help="Mark before the decimals of prices.  [default: auto, found from all prices]",
)
@click.option(
    "--price-range",
    type=click.Choice(get_args(RangePolicy)),
    help="What to do with a price such as 10-12: refuse the row, or take the middle.  [default: refuse]",
)
@click.option(
    "--max-rejected",
    type=SHARE,
    metavar="SHARE",
    help="Share of a file's rows that may be refused; more is an error.  [default: 0.05]",
)
@click.option(
    "--numeric",
    multiple=True,
    metavar="NAME",
    help="A further column to read as numbers; may be repeated. Others are read by their values.",
)
@click.option(
    "--categorical",
    multiple=True,
    metavar="NAME",
    help="A further column to read as categories; may be repeated. Others are read by their values.",
)
@click.option(
    "--leave-out",
    multiple=True,
    metavar="NAME",
    help="A further column that is not read, neither as a feature nor joined to the text; may be repeated.",
)
def ingest(
    workspace: Workspace,
    as_json: bool,
    train: str,
    test: str | None,
    images: str | None,
    id_column: str | None,
    test_id_column: str | None,
    text_column: tuple[str, ...],
    image_column: str | None,
    images_per_row: ImagePolicy | None,
    price_column: str | None,
    group_column: str | None,
    time_column: str | None,
    weight_column: str | None,
    decimal: DecimalMark | None,
    price_range: RangePolicy | None,
    max_rejected: float | None,
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    leave_out: tuple[str, ...],
) -> None:
    """Read files into the workspace: rows, fields, images.

    Rows that can't be used are refused with line and reason. Column names are saved to shelfprice.toml, so that a later
    ingest need not name them.

    \b
    Examples:
      shelfprice catalog ingest --train train.csv --images photos -w run
      shelfprice catalog ingest --train train.csv --text-column title -w run
    """
    from store.catalog.ingest.run import ingest as run
    from store.config import load_config

    given: dict[str, Any] = {
        "sample_id": id_column,
        "test_id": test_id_column,
        "text": text_column[0] if text_column else None,
        "more_text": text_column[1:] if text_column else None,
        "image_link": image_column,
        "images_per_row": images_per_row,
        "price": price_column,
        "group": group_column,
        "time": time_column,
        "weight": weight_column,
        "decimal": decimal,
        "price_range": price_range,
        "max_rejected": max_rejected,
        "numeric": numeric or None,
        "categorical": categorical or None,
        "left_out": leave_out or None,
    }
    configured = load_config(workspace).columns
    columns = dataclasses.replace(configured, **{k: v for k, v in given.items() if v is not None})
    report = run(workspace, train, test, images, columns)
    if as_json:
        print_json(dataclasses.asdict(report) | {"is_unchanged": report.is_unchanged})
        return
    for line in _summary(report, workspace):
        say(line)
    following = "catalog images" if _n_to_fetch(report) else "embed run"
    say(f"next: {on_workspace(f'shelfprice {following}', workspace.root)}")


def _n_to_fetch(report: "IngestReport") -> int:
    return sum(split.n_to_fetch for split in report.splits.values())


def _summary(report: "IngestReport", workspace: Workspace) -> list[str]:
    lines = []
    for name, split in report.splits.items():
        n_without = split.n_rows - split.n_with_image
        several = f" ({split.n_with_several} with several)" if split.n_with_several else ""
        lines.append(
            f"{name}: {split.n_rows:,} rows of {split.path}, {split.n_with_image:,} with image{several}, "
            f"{n_without:,} without ({split.change})"
        )
        lines.extend(f"  rejected: {n} row{'s' * (n > 1)}, {reason}" for reason, n in split.rejected.items())
        if split.rejected_differ is not None:
            lines.append(f"  {split.rejected_differ}")
    if n_to_fetch := _n_to_fetch(report):
        lines.append(
            f"{n_to_fetch:,} rows have links to images that are not here yet: 'shelfprice catalog images' fetches them"
        )
    if any(split.rejected for split in report.splits.values()):
        lines.append(f"rejected rows, each with its line: {workspace.path('catalog/rejected.parquet')}")
    for kind, names in (("numeric", report.numeric), ("categorical", report.categorical)):
        if names:
            lines.append(f"{kind} columns kept: {', '.join(names)}")
    if report.images is not None:
        imported = report.images
        lines.append(
            f"images: {imported.n_stored} stored, {imported.n_present} there already, {len(imported.failed)} "
            f"unreadable, {report.n_left_over} files belong to no row"
        )
        lines.extend(f"  {name}: {reason}" for name, reason in imported.failed[:5])
    if report.n_inline:
        lines.append(f"images: {report.n_inline} were in the tables")
    lines.extend(f"note: {note}" for note in report.notes)
    if report.test_removed:
        lines.append(
            "the test split from before was removed, since no --test was given: it may not fit this train file"
        )
    if report.config_written:
        lines.append(f"wrote {workspace.path('shelfprice.toml')}")
    if report.is_unchanged:
        lines.append("nothing changed: the catalogue was not rewritten")
    return lines


catalog.add_command(demo)
catalog.add_command(images)
catalog.add_command(images_export)
catalog.add_command(images_import)
catalog.add_command(folds)
catalog.add_command(clean)
catalog.add_command(show)
