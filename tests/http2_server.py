"""The images of `tests.image_server` over HTTP/2, on loopback, with TLS."""

import asyncio
import ssl
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import trustme

from tests.image_server import ImageServer, Site


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
    """One connection; answers /img/N, /endless, /hang, /stop, /goaway, /lost, /garbage, /reset, and 404 to all else.

    A client that asks for HTTP/1.1 gets `ImageServer`.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.waiting: dict[int, bytes] = {}
        self.endless: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            http1 = ImageServer(self.site)
            transport.set_protocol(http1)
            http1.connection_made(transport)
            return
        self.transport = transport
        self.site.n_connections += 1
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        most = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.site.most_streams}
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=most)
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        events = self.h2.receive_data(data)
        given_up = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
        for event in events:
            if isinstance(event, h2.events.RequestReceived) and event.stream_id not in given_up:
                self.answer(event.stream_id, dict(event.headers)[b":path"].decode())
            elif isinstance(event, h2.events.StreamReset):
                self.waiting.pop(event.stream_id, None)
                self.site.n_cancelled += 1
        self.pump()
        self.transport.write(self.h2.data_to_send())

    def answer(self, stream: int, path: str) -> None:
        self.site.requests[path] += 1
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "goaway" and self.site.requests[path] == 1:
            self.h2.close_connection()
            asyncio.get_running_loop().call_soon(self.transport.close)
            return
        if kind == "lost":
            self.transport.abort()
            return
        if kind == "garbage":
            self.transport.write(bytes(range(200)))
            return
        if kind == "reset":
            self.h2.reset_stream(stream)
            return
        if kind == "hang":
            return
        status = b"404" if kind not in ("img", "endless", "stop", "goaway") else b"200"
        body = (
            self.site.image_bytes(int(rest.partition(".")[0])) if kind == "img" else self.site.image_bytes(0)
        )
        self.h2.send_headers(stream, [(b":status", status), (b"content-type", b"image/jpeg")])
        if kind == "stop":  # a little of a body, and no more
            self.h2.send_data(stream, body[:4000])
            return
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
            self.site.window_is_full |= self.h2.outbound_flow_control_window < 16_384
            if not body:
                del self.waiting[stream]
                self.h2.end_stream(stream)


def http2_server(site: Site) -> Callable[[], Http2Server]:
    """Makes the protocol of each connection."""
    return lambda: Http2Server(site)
