"""A pool whose HTTP/2 connections give up one answer and go on with the others.

httpcore leaves an answer that is not read to its end open: the server goes on sending it, and what
nobody reads uses up the window that all images on the connection share. Here the server is told to
stop (RST_STREAM), and what it has sent already is given back to the window.
"""

import contextlib
import ssl
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import httpcore2

from store.catalog.download.network import CheckedBackend, Stream
from store.errors import ConfigError

KEEPALIVE_SECONDS = 15.0


class Http2Connection(httpcore2.AsyncHTTP2Connection):
    """Cancels an answer that is closed before its end, for whatever reason: too large, too slow, no image."""

    async def _response_closed(self, stream_id: int) -> None:
        if stream_id in self._events:
            self._cancel(stream_id)
        await super()._response_closed(stream_id)

    def _cancel(self, stream_id: int) -> None:
        """Runs between two awaits, so no data of this answer can arrive unseen meanwhile."""
        unread = sum(
            event.flow_controlled_length or 0
            for event in self._events[stream_id]
            if isinstance(event, h2.events.DataReceived)
        )
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it has ended, or the connection has
            stream = self._h2_state.streams.get(stream_id)
            if stream is not None and not stream.closed:
                self._h2_state.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            if unread:
                self._h2_state.acknowledge_received_data(unread, stream_id)
            assert isinstance(self._network_stream, Stream)
            self._network_stream.send(self._h2_state.data_to_send())


class Connection(httpcore2.AsyncHTTPConnection):
    """Connects on its first request; HTTP/1.1 or `Http2Connection`, as the server chooses."""

    def __init__(self, origin: httpcore2.Origin, shared: set[str], **settings: Any) -> None:
        super().__init__(origin, **settings)
        self._shared = shared  # origins that speak HTTP/2

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        try:
            async with self._request_lock:
                if self._connection is None:
                    stream = await self._connect(request)
                    tls = stream.get_extra_info("ssl_object")
                    is_http2 = tls is not None and tls.selected_alpn_protocol() == "h2"
                    if is_http2:
                        self._shared.add(str(self._origin))
                    make = Http2Connection if is_http2 else httpcore2.AsyncHTTP11Connection
                    self._connection = make(self._origin, stream, self._keepalive_expiry)
        except BaseException:
            self._connect_failed = True
            raise
        return await self._connection.handle_async_request(request)


class Pool(httpcore2.AsyncConnectionPool):
    """Makes `Connection`s; no proxies."""

    def __init__(self, *, ssl_context: ssl.SSLContext, http2: bool, n: int, backend: CheckedBackend) -> None:
        super().__init__(max_connections=n, network_backend=backend)
        self._shared: set[str] = set()
        self._settings = {
            "ssl_context": ssl_context,
            "http2": http2,
            "network_backend": backend,
            "keepalive_expiry": KEEPALIVE_SECONDS,
        }

    def create_connection(self, origin: httpcore2.Origin) -> Connection:
        return Connection(origin, self._shared, **self._settings)

    def is_shared(self, url: str) -> bool:
        """Whether requests to this URL may have shared a connection."""
        return str(httpcore2.URL(url).origin) in self._shared


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Checks certificates against the authorities of the system and of a PEM file.

    Raises:
        ConfigError: the file is no PEM.
    """
    context = httpcore2.default_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"--ca-file {ca_file} can't be read as PEM certificates: {error}") from error
    return context
