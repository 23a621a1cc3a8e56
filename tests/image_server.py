"""A server on loopback with correct answers and with every kind of wrong answer that servers give.

`python -m tests.image_server` serves until killed and prints its port first.
"""

import asyncio
import gzip
import io
import ssl
import struct
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageDraw

ETAG = '"v1"'
MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"


def draw_jpeg(n_bytes: int = 8192) -> bytes:
    """A drawn image of close to `n_bytes` bytes."""
    image = Image.effect_noise((180, 180), 30).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 30, 140, 150), fill=(200, 40, 40))
    draw.text((60, 80), "500 g", fill="white")
    for quality in range(95, 5, -5):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= n_bytes:
            break
    return buffer.getvalue()


def numbered(jpeg: bytes, n: int, n_bytes: int = 8192) -> bytes:
    """The same image with `n` in a comment: other bytes, as many as asked for."""
    fill = max(0, n_bytes - len(jpeg) - 4 - 12)
    comment = f"{n:012d}".encode() + b" " * fill
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


@cache
def gzip_bomb(start: bytes) -> bytes:
    """Less than 200 kB that unpack to 40 MB."""
    return gzip.compress(start + bytes(40_000_000), 1)


@cache
def pixel_bomb() -> bytes:
    """A PNG that says it is 50,000 x 50,000."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "PNG")
    png = buffer.getvalue()
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _head(status: str, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _whole(status: str, body: bytes, content_type: str = "image/jpeg", **headers: object) -> bytes:
    return _head(status, Content_Type=content_type, Content_Length=len(body), **headers) + body


class ImageServer(asyncio.Protocol):
    """One connection; what is shared between connections is in `Site`."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.buffer = b""
        self.jobs: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.site.n_connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        for job in self.jobs:
            job.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            request, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            first, *lines = request.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            answer = self.site.answer(first.split(" ")[1], headers)
            if isinstance(answer, bytes):
                self.transport.write(answer)
            else:
                job = asyncio.get_running_loop().create_task(answer(self.transport))
                self.jobs.add(job)
                job.add_done_callback(self.jobs.discard)


class Site:
    """What the server answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.jpeg = draw_jpeg(8100)
        self.requests: Counter[str] = Counter()
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.headers: dict[str, dict[str, str]] = {}
        self.active: Counter[str] = Counter()
        self.most_active = 0
        self.n_connections = 0
        self.window_is_full = False  # no more may be sent on a connection over HTTP/2
        self.n_cancelled = 0  # answers over HTTP/2 that the client gave up
        self.most_streams = 100  # over one connection at a time
        self.version = ETAG
        self.delay = 0.0

    def image_bytes(self, n: int) -> bytes:
        return numbered(self.jpeg, n)

    def answer(self, target: str, headers: dict[str, str]) -> object:
        """Bytes to send, or a coroutine function of the transport."""
        parts = urlsplit(target)
        self.requests[target] += 1
        self.times[target].append(time.monotonic())
        self.headers[target] = headers
        kind, _, rest = parts.path.lstrip("/").partition("/")
        if kind == "img":
            body = self.image_bytes(int(rest.partition(".")[0]))
            if self.delay:
                return lambda transport: self._slow(transport, _whole("200 OK", body))
            return _whole("200 OK", body)
        name = "answer_" + kind.replace("-", "_")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return getattr(self, name, self.answer_404)(target=target, headers=headers, query=query)

    async def _slow(self, transport: asyncio.Transport, answer: bytes) -> None:
        self.active["img"] += 1
        self.most_active = max(self.most_active, self.active["img"])
        await asyncio.sleep(self.delay)
        self.active["img"] -= 1
        transport.write(answer)

    # ---- answers: good ones --------------------------------------------------------------------------

    def answer_same(self, **_: object) -> bytes:
        return _whole("200 OK", self.image_bytes(0))

    answer_goaway = answer_same  # HTTP/1.1 has no such frame

    def answer_tagged(self, headers: dict[str, str], **_: object) -> bytes:
        if headers.get("if-none-match") == self.version:
            return _head("304 Not Modified", ETag=self.version)
        n = 1000 + int(self.version.strip('"v'))
        return _whole("200 OK", self.image_bytes(n), ETag=self.version, Last_Modified=MODIFIED)

    def answer_dated(self, headers: dict[str, str], **_: object) -> bytes:
        if headers.get("if-modified-since") == MODIFIED:
            return _head("304 Not Modified")
        return _whole("200 OK", self.image_bytes(2000), Last_Modified=MODIFIED)

    def answer_gzip(self, **_: object) -> bytes:
        return _whole("200 OK", gzip.compress(self.image_bytes(7)), Content_Encoding="gzip")

    def answer_chunked(self, **_: object) -> bytes:
        body = self.image_bytes(8)
        parts = [body[i : i + 1000] for i in range(0, len(body), 1000)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        return _head("200 OK", Transfer_Encoding="chunked") + chunks + b"0\r\n\r\n"

    def answer_typeless(self, **_: object) -> bytes:
        return _whole("200 OK", self.image_bytes(9), "text/html; charset=utf-8")

    # ---- refusals ------------------------------------------------------------------------------------

    def answer_404(self, **_: object) -> bytes:
        return _whole("404 Not Found", b"<html>gone</html>", "text/html")

    def answer_403(self, **_: object) -> bytes:
        return _whole("403 Forbidden", b"no", "text/plain")

    def answer_429(self, **_: object) -> bytes:
        return _whole("429 Too Many Requests", b"", "text/plain")

    def answer_429_for_long(self, **_: object) -> bytes:
        return _whole("429 Too Many Requests", b"", "text/plain", Retry_After=86400)

    def answer_429_once(self, target: str, query: dict[str, str], **_: object) -> bytes:
        if self.requests[target] == 1:
            return _whole("429 Too Many Requests", b"", "text/plain", Retry_After=query.get("after", 1))
        return _whole("200 OK", self.image_bytes(10))

    def answer_500_once(self, target: str, **_: object) -> bytes:
        if self.requests[target] == 1:
            return _whole("500 Internal Server Error", b"oops", "text/plain")
        return _whole("200 OK", self.image_bytes(11))

    # ---- wrong and broken answers --------------------------------------------------------------------

    def answer_html(self, **_: object) -> bytes:
        return _whole("200 OK", b"<!DOCTYPE html><html><body>Please log in, dear visitor</body></html>")

    def answer_empty(self, **_: object) -> bytes:
        return _whole("200 OK", b"")

    def answer_short(self, **_: object) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            transport.write(_head("200 OK", Content_Length=8192) + self.image_bytes(12)[:4000])
            transport.close()

        return answer

    def answer_unframed_short(self, **_: object) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            transport.write(_head("200 OK", Connection="close") + self.image_bytes(13)[:4000])
            transport.close()

        return answer

    def answer_longer_than_said(self, **_: object) -> bytes:
        return _head("200 OK", Content_Length=4000) + self.image_bytes(14)

    def answer_huge_length(self, **_: object) -> bytes:
        return _head("200 OK", Content_Length=10**15) + self.image_bytes(15)

    def answer_reset(self, **_: object) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: close with RST
            transport.write(_head("200 OK", Content_Length=8192) + self.image_bytes(16)[:100])
            await asyncio.sleep(0.01)
            transport.abort()

        return answer

    def answer_lost(self, **_: object) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            transport.abort()

        return answer

    def answer_hang(self, **_: object) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            await asyncio.sleep(3600)

        return answer

    def answer_drip(self, **_: object) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            body = self.image_bytes(17)
            transport.write(_head("200 OK", Content_Length=len(body)))
            for position in range(len(body)):
                transport.write(body[position : position + 1])
                await asyncio.sleep(0.2)

        return answer

    def answer_endless(self, **_: object) -> object:
        return self._endless(_head("200 OK", Connection="close") + self.image_bytes(18))

    def answer_gzip_endless(self, **_: object) -> object:
        """Bytes after the end of the packed data have no meaning."""
        return self._endless(
            _head("200 OK", Connection="close", Content_Encoding="gzip") + gzip.compress(self.image_bytes(18))
        )

    def _endless(self, start: bytes) -> object:
        async def answer(transport: asyncio.Transport) -> None:
            transport.write(start)
            while not transport.is_closing():
                transport.write(bytes(100_000))
                await asyncio.sleep(0)
                while transport.get_write_buffer_size() > 1_000_000 and not transport.is_closing():
                    await asyncio.sleep(0.01)

        return answer

    def answer_gzip_bomb(self, **_: object) -> bytes:
        return _whole("200 OK", gzip_bomb(self.jpeg), Content_Encoding="gzip")

    def answer_bad_gzip(self, **_: object) -> bytes:
        return _whole("200 OK", b"this is no gzip at all" * 10, Content_Encoding="gzip")

    def answer_brotli(self, **_: object) -> bytes:
        return _whole("200 OK", b"whatever", Content_Encoding="br")

    def answer_garbage(self, **_: object) -> bytes:
        return b"\x00\x01 this is not HTTP\r\n\r\n"

    def answer_pixels(self, **_: object) -> bytes:
        return _whole("200 OK", pixel_bomb(), "image/png")

    def answer_torn(self, **_: object) -> bytes:
        return _whole("200 OK", self.image_bytes(19)[:5000])

    # ---- redirects -----------------------------------------------------------------------------------

    def answer_redirect(self, query: dict[str, str], **_: object) -> bytes:
        return _head("302 Found", Location=query["to"], Content_Length=0)

    def answer_loop(self, **_: object) -> bytes:
        return _head("301 Moved Permanently", Location="/loop", Content_Length=0)

    def answer_hops(self, query: dict[str, str], **_: object) -> bytes:
        left = int(query["n"])
        to = f"/hops?n={left - 1}" if left > 1 else "/same"
        return _head("307 Temporary Redirect", Location=to, Content_Length=0)


async def start(site: Site, port: int = 0, context: ssl.SSLContext | None = None) -> asyncio.Server:
    """Listen on loopback only."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: ImageServer(site), "127.0.0.1", port, ssl=context, backlog=1024)


@contextmanager
def serving(site: Site, factory: object = None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve from a thread; yields the port."""
    loop = asyncio.new_event_loop()
    protocol = factory or (lambda: ImageServer(site))
    server = loop.run_until_complete(
        loop.create_server(protocol, "127.0.0.1", 0, ssl=context, backlog=1024)  # type: ignore[arg-type]
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


async def _main() -> None:
    server = await start(Site())
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by whoever started it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
