"""The pool of connections: HTTP/1.1 by httpcore, HTTP/2 by `Http2Connection`, each to an address that was checked."""

import asyncio
import ssl

import httpcore2

from store.catalog.download.http2 import KEEPALIVE_SECONDS, Http2Connection
from store.catalog.download.network import CheckedBackend, Stream
from store.errors import ConfigError


class Connection(httpcore2.AsyncConnectionInterface):
    """Connects on its first request, with TLS; HTTP/1.1 or HTTP/2, as the server chooses."""

    def __init__(
        self, origin: httpcore2.Origin, context: ssl.SSLContext, backend: CheckedBackend, shared: set[str]
    ) -> None:
        self._origin = origin
        self._context = context
        self._backend = backend
        self._shared = shared  # origins that speak HTTP/2
        self._connecting = asyncio.Lock()
        self._made: httpcore2.AsyncConnectionInterface | None = None
        self._has_failed = False

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        async with self._connecting:
            if self._has_failed:
                raise httpcore2.ConnectionNotAvailable  # who waited for it tries another
            if self._made is None:
                try:
                    self._made = await self._make(request.extensions.get("timeout", {}).get("connect"))
                except BaseException:
                    self._has_failed = True
                    raise
        return await self._made.handle_async_request(request)

    async def _make(self, seconds: float | None) -> httpcore2.AsyncConnectionInterface:
        host = self._origin.host.decode("ascii")
        plain = await self._backend.connect_tcp(host, self._origin.port, seconds)
        stream = await plain.start_tls(self._context, host, seconds)
        if stream.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            return httpcore2.AsyncHTTP11Connection(self._origin, stream, KEEPALIVE_SECONDS)
        self._shared.add(str(self._origin))
        assert isinstance(stream, Stream)
        return Http2Connection(self._origin, stream)

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        return origin == self._origin

    def is_connected(self) -> bool:
        return self._made is not None and self._made.is_connected()

    def is_available(self) -> bool:
        return not self._has_failed if self._made is None else self._made.is_available()

    def is_idle(self) -> bool:
        return self._has_failed if self._made is None else self._made.is_idle()

    def is_closed(self) -> bool:
        return self._has_failed if self._made is None else self._made.is_closed()

    def has_expired(self) -> bool:
        return self._has_failed if self._made is None else self._made.has_expired()

    def can_multiplex(self) -> bool:
        return self._made is not None and self._made.can_multiplex()

    def info(self) -> str:
        return f"{self._origin}, connecting" if self._made is None else self._made.info()

    async def aclose(self) -> None:
        if self._made is not None:
            await self._made.aclose()


class Pool(httpcore2.AsyncConnectionPool):
    """Makes `Connection`s; no proxies."""

    def __init__(self, *, ssl_context: ssl.SSLContext, n: int, backend: CheckedBackend) -> None:
        super().__init__(max_connections=n, keepalive_expiry=KEEPALIVE_SECONDS, network_backend=backend)
        ssl_context.set_alpn_protocols(["h2", "http/1.1"])
        self.tls, self.backend = ssl_context, backend
        self.shared: set[str] = set()

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        if origin.scheme != b"https":
            return super().create_connection(origin)
        return Connection(origin, self.tls, self.backend, self.shared)

    def is_shared(self, url: str) -> bool:
        """Whether requests to this URL may have shared a connection."""
        return str(httpcore2.URL(url).origin) in self.shared


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
