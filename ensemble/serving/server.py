"""Runs an application until a signal, then finishes what was begun."""

import io
import signal
import socket
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from PIL import Image

from ensemble.model.price_model import ModelInputs, PriceModel
from ensemble.serving.app import create_app
from ensemble.serving.log import log_event, start_logging
from ensemble.serving.settings import ServeSettings
from store.errors import ConfigError

STOP_SECONDS = 30  # that requests at work are given after a signal
KEEP_ALIVE_SECONDS = 15


def serve(folder: Path, settings: ServeSettings, log_level: str = "info") -> None:
    """Load a model, listen, answer until SIGTERM or SIGINT; requests at work are finished.

    Raises:
        ConfigError: the address can't be listened on.
        CorruptFileError, WorkspaceError: the model can't be loaded.
    """
    listening = _listen(settings)
    start_logging(log_level)
    model = PriceModel.load(folder)
    model.price([_first_product(model.inputs)])  # loads what is loaded late
    config = uvicorn.Config(
        create_app(model, folder, settings),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http="h11",  # httptools takes headers without end into memory
        ws="none",
        lifespan="on",
        limit_concurrency=settings.limits.connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log_event("listening", url=url, model=model.fingerprint, token=settings.token is not None)
    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, _stopped)  # uvicorn raises the signal again once it has finished
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _first_product(inputs: ModelInputs) -> dict[str, Any]:
    """A product with text and image, as far as a model reads them."""
    product: dict[str, Any] = dict.fromkeys(inputs.text[:1], "a product")
    if inputs.image is not None:
        content = io.BytesIO()
        Image.new("RGB", (64, 64), "white").save(content, "PNG")
        product[inputs.image] = content.getvalue()
    return product


def _stopped(number: int, frame: FrameType | None) -> None:
    """What was asked for is done: the process ends with code 0."""


def _listen(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"can't listen on port {settings.port} of {settings.host}: {reason}; see --host and --port"
        ) from error
