"""`shelfprice status`: what the workspace holds, what is stale and why, what comes next."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from store.options import json_option, print_json, say, workspace_option
from store.workspace import Workspace

if TYPE_CHECKING:
    from store.config import Config
    from store.inventory import CatalogHolding, FoldsHolding, ImageHolding, VectorHolding
    from store.staleness import BlendHolding, CleaningHolding, HeadHolding, SubmissionHolding


@dataclass(frozen=True)
class Status:
    """Everything that a workspace holds; None stands for what is not there."""

    workspace: str
    catalog: "CatalogHolding | None"
    images: "ImageHolding | None"
    vectors: "list[VectorHolding]"
    folds: "FoldsHolding | None"
    cleaning: "CleaningHolding | None"
    heads: "list[HeadHolding]"
    untrained: list[str]  # heads of the configuration that no standing run has
    blend: "BlendHolding | None"
    submission: "SubmissionHolding | None"


def read_status(workspace: Workspace, config: "Config") -> Status:
    """Take stock of a workspace.

    Raises:
        CorruptFileError: a file of the contract can't be read; damaged shards are told, not raised.
    """
    from store import inventory, staleness
    from store.vectors.sets import current_encoders, current_spec

    catalog = inventory.catalog_holding(workspace)
    vectors = inventory.vector_holdings(workspace, config, catalog)
    folds = inventory.folds_holding(workspace, config)
    fingerprints = {name: current_spec(workspace, name).fingerprint for name in current_encoders(workspace)}
    cleaning = staleness.cleaning_holding(workspace, config, folds) if catalog else None
    decided = cleaning.digest if cleaning else None
    present = staleness.Present(catalog, folds, tuple(vectors), fingerprints, config, decided)
    heads = staleness.head_holdings(workspace, present)
    blend = staleness.blend_holding(workspace, present, heads)
    standing = {one.head for one in heads if not one.stale}
    return Status(
        workspace=workspace.root,
        catalog=catalog,
        images=inventory.image_holding(workspace),
        vectors=vectors,
        folds=folds,
        cleaning=cleaning,
        heads=heads,
        untrained=[head for head in config.heads.run if head not in standing],
        blend=blend,
        submission=staleness.submission_holding(workspace, blend),
    )


def next_step(status: Status) -> tuple[str, str] | None:
    """The next command and why; None where all is done."""
    at = "" if status.workspace == "workspace" else f" -w {status.workspace}"
    if status.catalog is None:
        return f"shelfprice catalog ingest --train FILE --test FILE{at}", "there is no catalogue"
    if "train" not in status.catalog.splits:
        return f"shelfprice catalog ingest --train FILE --test FILE{at}", "there is no train catalogue"
    broken = [v.name for v in status.vectors if v.is_configured and v.problem]
    if broken:
        return f"shelfprice embed verify{at}", f"vectors of {', '.join(broken)} can't be read"
    from store.vectors.sets import TUNED

    lacking = [v for v in status.vectors if v.is_configured and v.missing]
    if lacking:
        rows = ", ".join(f"{v.name} {v.missing:,}" for v in lacking)
        is_tuned = all(v.name.startswith(TUNED) for v in lacking)
        command = "finetune ENCODER..." if is_tuned else "run"
        return f"shelfprice embed {command}{at}", f"rows without a vector: {rows}"
    if status.folds is not None and status.folds.is_refused:
        return f"shelfprice catalog folds{at}", f"folds.parquet: {status.folds.stale}"
    if status.cleaning is not None and status.cleaning.stale is not None:
        return f"shelfprice catalog clean{at}", status.cleaning.stale
    if status.untrained:
        stale = {one.head for one in status.heads if one.stale}
        said = [f"{head} is {'stale' if head in stale else 'not trained'}" for head in status.untrained]
        return f"shelfprice heads run{at}", ", ".join(said)
    if status.blend is None or status.blend.stale:
        why = "; ".join(status.blend.stale) if status.blend else "nothing was blended yet"
        return f"shelfprice ensemble blend{at}", why
    if "test" in status.catalog.splits and (status.submission is None or status.submission.stale):
        why = "; ".join(status.submission.stale) if status.submission else "there is no submission.csv"
        return f"shelfprice ensemble submit{at}", why
    return None


@click.command()
@workspace_option
@json_option
@click.option(
    "--failures", is_flag=True, help="List rows whose image or vector failed instead, each with its file."
)
def status(workspace: Workspace, as_json: bool, failures: bool) -> None:
    """Show what the workspace holds, what is stale and why, and the next command."""
    from store.config import load_config
    from store.status_lines import failure_lines, lines_of

    if failures:
        from store.failures import failed_rows

        rows = list(failed_rows(workspace, load_config(workspace)))
        if as_json:
            print_json({"failures": [dataclasses.asdict(row) for row in rows]})
            return
        for line in failure_lines(rows):
            say(line)
        return
    found = read_status(workspace, load_config(workspace))
    step = next_step(found)
    if as_json:
        print_json(
            _as_json(found) | {"next": dict(zip(("command", "why"), step, strict=True)) if step else None}
        )
        return
    for line in lines_of(found, step):
        say(line)


def _as_json(found: Status) -> dict[str, Any]:
    return dataclasses.asdict(found)
