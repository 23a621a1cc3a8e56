"""`shelfprice serve`: a fitted model behind HTTP."""

import os
from pathlib import Path

import click

from ensemble.serving.settings import LOOPBACK_HOSTS, Limits, MiB, ServeSettings
from store.errors import ConfigError
from store.options import Sectioned, say

TOKEN_VARIABLE = "SHELFPRICE_TOKEN"
LEAST_TOKEN_CHARS = 16
_DEFAULT = Limits()
SECTIONS = {
    "Who may ask": ("host", "port", "token_file", "hosts", "allow_links", "allow_private"),
    "Limits": ("body_mb", "rows", "max_pixels", "timeout", "queue", "batch"),
}


@click.command(cls=Sectioned, sections=SECTIONS)
@click.option(
    "--model",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of a model, as 'shelfprice ensemble pack' or PriceModel.save writes it.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0: all of this machine.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0: any that is free."
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File of the token that requests must send. Also: the environment variable {TOKEN_VARIABLE}.",
)
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name that clients may use for this server; may be given again. Default: any name; on loopback only "
    "loopback's names.",
)
@click.option(
    "--allow-links",
    is_flag=True,
    help="Images may be links, which this server fetches from public addresses.",
)
@click.option(
    "--allow-private",
    is_flag=True,
    help="With --allow-links: also from private and loopback addresses; metadata services stay refused.",
)
@click.option(
    "--body-mb", type=click.FloatRange(0.01), default=_DEFAULT.body_bytes / MiB, help="Most MiB of one body."
)
@click.option("--rows", type=click.IntRange(1), default=_DEFAULT.rows, help="Most products of one request.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=_DEFAULT.image_pixels, help="Most pixels of one image."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=_DEFAULT.seconds,
    help="Most seconds for one request, its body included.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=_DEFAULT.waiting_rows,
    help="Most products that may wait for the model; then requests are answered 429.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=_DEFAULT.batch_rows, help="Most products priced at a time."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="Least level of the lines on stderr; info has a line for each request.",
)
def serve(
    folder: Path,
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
    allow_links: bool,
    allow_private: bool,
    body_mb: float,
    rows: int,
    max_pixels: int,
    timeout: float,
    queue: int,
    batch: int,
    log_level: str,
) -> None:
    """Answer requests for prices over HTTP, with a page.

    POST /v1/price and /v1/explain, /healthz, /readyz, /metrics, /openapi.json, and the page at /.

    \b
    Examples:
      shelfprice serve --model model
      shelfprice serve --model model --port 8080 --token-file token
    """
    try:
        from ensemble.serving.server import serve as run
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"'shelfprice serve' needs {error.name}: pip install 'shelfprice[serve]'"
        ) from error

    token = _token(token_file)
    if host not in LOOPBACK_HOSTS and token is None:
        say(f"{host} is open to the network and no token is required: see --token-file", err=True)
    settings = ServeSettings(
        host=host,
        port=port,
        limits=Limits(
            body_bytes=int(body_mb * MiB),
            rows=rows,
            image_pixels=max_pixels,
            seconds=timeout,
            waiting_rows=max(queue, rows),
            batch_rows=batch,
        ),
        allow_links=allow_links,
        allow_private=allow_private,
        token=token,
        hosts=tuple(name.lower() for name in hosts) or (LOOPBACK_HOSTS if host in LOOPBACK_HOSTS else ()),
    )
    run(folder, settings, log_level)


def _token(file: Path | None) -> str | None:
    """The token that is wanted; None: none is.

    Raises:
        ConfigError: it is too short to keep anyone out, or holds what no header can.
    """
    token = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text(errors="replace").strip()
    if token is None:
        return None
    if len(token) < LEAST_TOKEN_CHARS or not (token.isascii() and token.isprintable()) or " " in token:
        source = TOKEN_VARIABLE if file is None else f"--token-file {file}"
        raise ConfigError(
            f"{source}: a token has at least {LEAST_TOKEN_CHARS} characters, printable ASCII without blanks"
        )
    return token
