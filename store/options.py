"""Command-line options that every room shares."""

import json
from collections.abc import Callable
from typing import Any

import click

from store.workspace import Workspace


class WorkspaceType(click.ParamType):
    name = "PATH|URL"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Workspace:
        return Workspace.of(value)


workspace_option: Callable[[Any], Any] = click.option(
    "-w",
    "--workspace",
    type=WorkspaceType(),
    default="workspace",
    envvar="SHELFPRICE_WORKSPACE",
    show_envvar=True,
    help="Root of everything on disk: a folder or an fsspec URL such as s3://bucket/run.",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object, for machines."
)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
