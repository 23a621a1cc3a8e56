"""The command `shelfprice embed export`."""

import click

from store.options import json_option, print_json, say, workspace_option
from store.workspace import Workspace


@click.command("export")
@click.option(
    "-e",
    "--encoder",
    "names",
    multiple=True,
    metavar="ENCODER[@COMPOSITION]",
    help="Only this vector set; may be repeated. Default: all of the configuration.",
)
@click.option(
    "--to",
    required=True,
    metavar="DIR|npy|faiss|FILE",
    help="A folder (or URL) for Parquet with one row a catalogue row; 'npy' or 'faiss' for a file named after the set "
    "in this folder; or a file ending in .npy or .faiss, for one set.",
)
@workspace_option
@json_option
def export_command(names: tuple[str, ...], to: str, workspace: Workspace, as_json: bool) -> None:
    """Write vectors by row: Parquet, a NumPy array, a FAISS index.

    A copy of the vectors is in TMPDIR meanwhile.

    \b
    Examples:
      shelfprice embed export -e minilm@structured --to minilm.npy -w run
    """
    from dataclasses import asdict

    from embed.export.run import export
    from store.config import load_config
    from store.vectors.sets import VectorSet, current_spec

    sets = []
    for name in dict.fromkeys(names or load_config(workspace).embed.vectors):
        spec = current_spec(workspace, name.partition("@")[0])
        sets.append(VectorSet.parse(name, spec.modality))
    written = []
    for one in export(workspace, sets, to):
        written.append(one)
        if not as_json:
            say(
                f"{one.vector_set}: {one.n_rows:,} rows, {one.n_vectors:,} with a vector of {one.dim}, {one.path}"
            )
    if as_json:
        print_json({"files": [asdict(one) for one in written]})
