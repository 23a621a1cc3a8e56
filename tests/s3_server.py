"""An S3 server on loopback (moto's), and a proxy before it that refuses, throttles or drops requests on demand."""

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEY, SECRET = "AKIDTESTTESTTESTTEST", "s3cr3t-never-to-be-seen-anywhere"
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
STATUS = {"SlowDown": 503, "ExpiredToken": 400, "AccessDenied": 403, "InvalidAccessKeyId": 403}


@contextmanager
def moto() -> Iterator[str]:
    """A real S3 API in memory; gives its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Proxy:
    """Args:
    upstream: the real server.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.requests: list[tuple[str, str]] = []
        # (number of the request, method, path) -> None to pass it on, "drop", or the code of an error
        self.verdict: Callable[[int, str, str], str | None] = lambda n, method, path: None
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                told = proxy.verdict(len(proxy.requests), self.command, self.path)
                if told == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                if told is not None:
                    self.answer(
                        STATUS[told], {"Content-Type": "application/xml"}, ERROR.format(code=told).encode()
                    )
                    return
                upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
                upstream.request(self.command, self.path, body, dict(self.headers))
                response = upstream.getresponse()
                content = response.read()
                headers = {
                    k: v
                    for k, v in response.getheaders()
                    if k.lower() not in ("transfer-encoding", "connection")
                }
                self.answer(response.status, headers, content)
                upstream.close()

            def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                if self.command != "HEAD":
                    headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
                    headers["Content-Length"] = str(len(content))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
