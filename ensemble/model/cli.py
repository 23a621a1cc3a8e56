"""`shelfprice ensemble pack` and `shelfprice predict`: one folder out of a workspace, and prices of new products."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from store.errors import ConfigError, CorruptFileError, WorkspaceError
from store.options import json_option, print_json, say, spreadsheet_option, workspace_option
from store.outputs import MODEL_MANIFEST, Output, check_outputs, has_header
from store.workspace import Workspace

if TYPE_CHECKING:
    from ensemble.model.price_model import PriceModel


@click.command()
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the model. A model that is there is replaced, unless there are other files in the folder.",
)
@click.option(
    "--no-images",
    is_flag=True,
    help="Keep no small copies of the training rows' images, which explanations show near products by.",
)
@click.option(
    "--mlflow",
    "as_mlflow",
    is_flag=True,
    help="Write the folder as a model of MLflow's pyfunc flavour instead (extra 'mlflow').",
)
@workspace_option
@json_option
def pack(to: Path, no_images: bool, as_mlflow: bool, workspace: Workspace, as_json: bool) -> None:
    """Save the blend as one folder that prices new products.

    It needs no workspace: it holds the heads of the blend as fitted on all rows, their encoders, intervals, training
    rows for near products, and a model card. Every file has its digest; none is a pickle.

    \b
    Examples:
      shelfprice ensemble pack -w run --to model
    """
    from ensemble.model.pack import pack as run_pack
    from ensemble.model.pack import torch_free
    from store.rooms import size_text

    def log(line: str) -> None:
        say(line, err=True)

    check_outputs({"--to": Output(to)}, workspace=workspace)
    if as_mlflow:
        from tempfile import TemporaryDirectory

        from ensemble.model.mlflow import mlflow_pyfunc, save_mlflow

        mlflow_pyfunc()
        if to.exists() and any(to.iterdir()):
            raise WorkspaceError(f"{to} is not empty: name a new folder with --to")
        with TemporaryDirectory(prefix="shelfprice-") as place:
            model = run_pack(workspace, Path(place) / "model", images=not no_images, log=log)
            save_mlflow(model.path, to)
    else:
        model = run_pack(workspace, to, images=not no_images, log=log)
    n_bytes = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    free, heads = torch_free(model.manifest), [head["name"] for head in model.manifest["heads"]]
    if as_json:
        print_json(
            {
                "folder": str(to),
                "fingerprint": model.fingerprint,
                "n_bytes": n_bytes,
                "heads": heads,
                "torch_free": free,
            }
        )
        return
    say(f"{to}: {size_text(n_bytes)}, heads {', '.join(heads)}, fingerprint {model.fingerprint}")
    say(
        "It needs no torch."
        if free
        else "It needs torch: an encoder could not be converted, see its README.md."
    )
    if not as_mlflow:
        say(f"next: shelfprice predict FILE --model {shlex.quote(str(to))} --out prices.csv")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--model",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that 'shelfprice ensemble pack' or PriceModel.save wrote. Without it, the standing blend of -w is packed "
    "and its cached vectors are used.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV file of the prices. Default: print them.",
)
@spreadsheet_option
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of images, found as ingest finds them: by id or by the file name of the row's link.",
)
@click.option(
    "--id-column",
    help="Column of ids, which is written beside the prices. Default: that of the training file.",
)
@click.option(
    "--interval",
    type=float,
    default=0.9,
    show_default=True,
    help="Probability that a row's interval holds its price, 0.5 to 0.999.",
)
@workspace_option
@json_option
def predict(
    file: str,
    folder: Path | None,
    out: Path | None,
    spreadsheet: Path | None,
    images: str | None,
    id_column: str | None,
    interval: float,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Price the products of FILE, CSV or Parquet, with a model.

    One row in, one row out: the id, price, low and high of its interval, flags of what the row lacks or what is unusual
    about it, and the reason where it has no price. Nothing is trained, nothing is fetched.

    \b
    Examples:
      shelfprice predict new.csv --model model --out prices.csv
      shelfprice predict new.csv --model model --images photos --out prices.csv
    """
    from ensemble.model.predictions import RESULTS, price_file
    from store.local import publish_file

    is_ours = has_header(*RESULTS)
    outputs = {"--out": Output(out, is_ours), "--spreadsheet": Output(spreadsheet, is_ours)}
    check_outputs(outputs, [file], workspace)
    priced = price_file(
        _model(folder, workspace), file, images, id_column, interval, None if folder else workspace
    )
    for note in priced.notes:
        say(f"note: {note}", err=True)
    if out is not None:
        publish_file(out, priced.csv().encode())
    if spreadsheet is not None:
        publish_file(spreadsheet, priced.csv(for_spreadsheet=True).encode())
    counts = Counter(flag for row in priced.rows for flag in row[4].split("; ") if flag)
    refused = sum(1 for row in priced.rows if row[1] == "")
    if as_json:
        print_json(
            {
                "file": None if out is None else str(out),
                "n_rows": len(priced.rows),
                "n_refused": refused,
                "flags": counts,
                "notes": priced.notes,
                "fingerprint": priced.fingerprint,
                **(
                    {}
                    if out is not None
                    else {"prices": [dict(zip(priced.header, r, strict=True)) for r in priced.rows]}
                ),
            }
        )
        return
    if out is None:
        for line in priced.csv().splitlines():
            say(line)
    notes = "".join(f", {count:,} {flag}" for flag, count in counts.most_common())
    said = f"{len(priced.rows):,} rows, {refused:,} of them without a price{notes}"
    say(said if out is None else f"{out}: {said}", err=out is None)


def _model(folder: Path | None, workspace: Workspace) -> "PriceModel":
    """A model from its folder, or of a workspace's standing blend, packed where that was not done yet."""
    from ensemble.blend import read_blend
    from ensemble.model.pack import pack as run_pack
    from ensemble.model.price_model import PriceModel

    if folder is not None:
        return PriceModel.load(folder)
    if not workspace.is_local:
        raise ConfigError(
            f"{workspace.root} is not local: pack it with 'shelfprice ensemble pack --to', then --model"
        )
    packed = Path(workspace.path(read_blend(workspace)["folder"])) / "model"
    if (packed / MODEL_MANIFEST).is_file():
        try:
            return PriceModel.load(packed, cache=workspace.root)
        except CorruptFileError as error:
            say(f"{str(error).rpartition(': ')[0]}: the standing blend is packed again", err=True)
    else:
        say("packing the standing blend", err=True)
    run_pack(workspace, packed, log=lambda line: say(line, err=True))
    return PriceModel.load(packed, cache=workspace.root)
