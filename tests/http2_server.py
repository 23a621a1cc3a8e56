"""The pictures of `tests.image_server` over HTTP/2, on loopback, with TLS."""

import asyncio
import ssl
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import trustme

from tests.image_server import Site


def certificates(folder: object) -> tuple[ssl.SSLContext, str]:
    """A server context for 127.0.0.1 that speaks HTTP/2 first, and the PEM of its authority."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    path = f"{folder}/authority.pem"
    authority.cert_pem.write_to_path(path)
    return context, path


class Http2Server(asyncio.Protocol):
    """One connection; answers /img/N, /endless, /goaway, and 404 to all else."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.waiting: dict[int, bytes] = {}
        self.endless: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.site.n_connections += 1
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.answer(event.stream_id, dict(event.headers)[b":path"].decode())
            elif isinstance(event, h2.events.StreamReset):
                self.waiting.pop(event.stream_id, None)
        self.pump()
        self.transport.write(self.h2.data_to_send())

    def answer(self, stream: int, path: str) -> None:
        self.site.requests[path] += 1
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "goaway" and self.site.requests[path] == 1:
            self.h2.close_connection()
            asyncio.get_running_loop().call_soon(self.transport.close)
            return
        status = b"200" if kind in ("img", "endless", "goaway") else b"404"
        body = self.site.picture(int(rest.partition(".")[0])) if kind == "img" else self.site.picture(0)
        self.h2.send_headers(stream, [(b":status", status), (b"content-type", b"image/jpeg")])
        self.waiting[stream] = body
        if kind == "endless":
            self.endless.add(stream)

    def pump(self) -> None:
        """Send what the windows allow."""
        for stream in list(self.waiting):
            body = self.waiting[stream]
            while body and (room := min(self.h2.local_flow_control_window(stream), 16_384)) > 0:
                self.h2.send_data(stream, body[:room])
                body = body[room:] or (bytes(16_384) if stream in self.endless else b"")
            self.waiting[stream] = body
            if not body:
                del self.waiting[stream]
                self.h2.end_stream(stream)


def http2_server(site: Site) -> Callable[[], Http2Server]:
    """Makes the protocol of each connection."""
    return lambda: Http2Server(site)
