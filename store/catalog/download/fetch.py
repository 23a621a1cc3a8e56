"""One request to one URL, limited in time and size; the format is taken from the first bytes, not from headers."""

import asyncio
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import IO
from urllib.parse import urljoin

import h2.exceptions
import httpcore2

from store.catalog.download.addresses import canonical_url, host_of
from store.catalog.download.connections import Pool, tls_context
from store.catalog.download.http2 import KEEPALIVE_SECONDS
from store.catalog.download.images import SNIFF_BYTES, describe_other, sniff
from store.catalog.download.network import CheckedBackend, NoConnectionError, Resolver, resolve
from store.catalog.download.storing import SPILL_BYTES, keep
from store.errors import WorkspaceError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
ENCODINGS = frozenset({"identity", "", "gzip", "x-gzip", "deflate"})
DRAIN_BYTES, DRAIN_SECONDS = 65_536, 1.0  # read at most this much to keep a connection, else close it
INFLATE_BYTES = 65_536


@dataclass(frozen=True)
class FetchLimits:
    """What one request may take."""

    max_bytes: int = 25_000_000  # on the wire, and again after decompression
    max_pixels: int = 120_000_000
    connect_seconds: float = 10.0
    silent_seconds: float = 15.0  # longest time without a byte
    total_seconds: float = 60.0


@dataclass(frozen=True)
class Reply:
    """What one request came to: a body, a redirect, `not_modified`, or a reason why there is nothing."""

    status: int | None = None
    body: IO[bytes] | None = None
    n_bytes: int = 0  # read from the wire, body only
    redirect: str | None = None  # canonical URL
    not_modified: bool = False
    reason: str | None = None
    retry: bool = False  # the same request may go better later
    retry_after: float | None = None  # seconds, as the server asks
    unreachable: bool = False  # nothing came from the host
    shared: bool = False  # lost with a connection that others used too: any of them may be the cause
    etag: str | None = None
    last_modified: str | None = None


class _UselessBodyError(Exception):
    """The body is of no use; carries the reason."""


class Fetcher:
    """A pool of connections to checked addresses. Use as an async context manager."""

    def __init__(
        self,
        limits: FetchLimits,
        user_agent: str,
        *,
        connections: int = 64,
        allow_private: bool = False,
        ca_file: str | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self.limits = limits
        self._headers = [
            (b"User-Agent", user_agent.encode("ascii", "replace")),
            (b"Accept", b"image/*"),
            (b"Accept-Encoding", b"identity"),
        ]
        self._timeouts = {
            "connect": limits.connect_seconds,
            "read": limits.silent_seconds,
            "write": limits.silent_seconds,
        }
        backend = CheckedBackend(allow_private=allow_private, resolver=resolver)
        # A TLS context each: the protocols on offer are written into it.
        self._shared = Pool(ssl_context=tls_context(ca_file), n=connections, backend=backend)
        self._alone = httpcore2.AsyncConnectionPool(
            tls_context(ca_file),
            max_connections=connections,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=backend,
        )

    async def __aenter__(self) -> "Fetcher":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._shared.aclose()
        await self._alone.aclose()

    async def fetch(
        self, url: str, etag: str | None = None, last_modified: str | None = None, *, alone: bool = False
    ) -> Reply:
        """Ask once; never raises for anything a server or a network can do.

        Args:
            url: a canonical URL.
            etag, last_modified: of what is stored, for a conditional request.
            alone: on a connection that no other request uses meanwhile, so HTTP/1.1.

        Raises:
            WorkspaceError: the disk for temporary files is full.
        """
        headers = [(b"Host", host_of(url).encode("ascii")), *self._headers]
        if etag:
            headers.append((b"If-None-Match", etag.encode("latin-1", "ignore")))
        if last_modified:
            headers.append((b"If-Modified-Since", last_modified.encode("latin-1", "ignore")))
        response: httpcore2.Response | None = None
        pool = self._alone if alone else self._shared
        try:
            async with asyncio.timeout(self.limits.total_seconds):
                async with pool.stream(
                    "GET", url, headers=headers, extensions={"timeout": self._timeouts}
                ) as response:
                    return await self._read(url, response, conditional=bool(etag or last_modified))
        except NoConnectionError as problem:
            return Reply(reason=problem.reason, retry=problem.retry, unreachable=problem.retry)
        except TimeoutError:
            reason = f"timeout: over {self.limits.total_seconds:g} s"
            return Reply(reason=reason, retry=True, unreachable=response is None)
        except httpcore2.TimeoutException:
            reason = f"timeout: silent for {self.limits.silent_seconds:g} s"
            return Reply(reason=reason, retry=True, unreachable=response is None)
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
            is_network = isinstance(error, httpcore2.NetworkError)
            reason = "connection: reset" if is_network else _protocol_reason(str(error).lower())
            return Reply(reason=reason, retry=True, shared=not alone and self._shared.is_shared(url))
        except (httpcore2.ProtocolError, h2.exceptions.H2Error, ValueError, KeyError):
            return Reply(reason="protocol: bad response", retry=True)
        except WorkspaceError:
            raise
        except Exception as error:  # noqa: BLE001 - one link never ends the run of all others
            return Reply(reason=f"can't be asked: {type(error).__name__}")

    async def _read(self, url: str, response: httpcore2.Response, *, conditional: bool) -> Reply:
        status = response.status
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        chunks = response.aiter_stream()
        if status == 200:
            return await self._read_body(response, chunks, headers)
        await _discard(chunks)
        if status == 304 and conditional:
            return Reply(status, not_modified=True)
        if status in REDIRECTS and b"location" in headers:
            try:
                return Reply(status, redirect=canonical_url(urljoin(url, headers[b"location"].strip())))
            except ValueError as error:
                return Reply(status, reason=f"redirect refused: {error}")
        retry = status in RETRIED
        after = _retry_after(headers.get(b"retry-after")) if retry else None
        return Reply(status, reason=f"http {status}", retry=retry, retry_after=after)

    async def _read_body(
        self, response: httpcore2.Response, chunks: AsyncIterator[bytes], headers: dict[bytes, str]
    ) -> Reply:
        body = tempfile.SpooledTemporaryFile(SPILL_BYTES)  # noqa: SIM115 - handed on, closed when stored
        try:
            n_bytes = await self._stream_into(body, chunks, headers)
        except _UselessBodyError as stop:
            body.close()
            await _discard(chunks)
            return Reply(200, reason=str(stop))
        except BaseException:
            body.close()
            raise
        etag, modified = headers.get(b"etag"), headers.get(b"last-modified")
        return Reply(200, body=body, n_bytes=n_bytes, etag=_kept(etag), last_modified=_kept(modified))

    async def _stream_into(
        self, body: IO[bytes], chunks: AsyncIterator[bytes], headers: dict[bytes, str]
    ) -> int:
        max_bytes = self.limits.max_bytes
        declared = headers.get(b"content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:
            raise _UselessBodyError(f"too large: over {max_bytes} bytes")
        encoding = headers.get(b"content-encoding", "identity").strip().lower()
        if encoding not in ENCODINGS:
            raise _UselessBodyError("encoding not accepted")
        inflate = (
            None if encoding in ("identity", "") else zlib.decompressobj(47)
        )  # gzip or zlib, by its header
        n_wire = n_body = 0
        head = b""
        async for chunk in chunks:
            n_wire += len(chunk)
            if n_wire > max_bytes:
                raise _UselessBodyError(f"too large: over {max_bytes} bytes")
            for piece in _inflated(inflate, chunk) if inflate else (chunk,):
                n_body += len(piece)
                if n_body > max_bytes:
                    raise _UselessBodyError(f"too large: over {max_bytes} bytes when unpacked")
                if len(head) < SNIFF_BYTES:
                    head += piece[:SNIFF_BYTES]
                    if len(head) >= SNIFF_BYTES and sniff(head) is None:
                        raise _UselessBodyError(describe_other(head))
                keep(body, piece)
        if inflate is not None and not inflate.eof:
            raise _UselessBodyError("connection: cut off")
        return n_wire


def _inflated(inflate: "zlib._Decompress", chunk: bytes) -> Iterator[bytes]:
    """Unpack in small pieces, so that a decompression bomb is refused before it fills memory."""
    while chunk and not inflate.eof:
        try:
            piece = inflate.decompress(chunk, INFLATE_BYTES)
        except zlib.error as error:
            raise _UselessBodyError("protocol: bad compression") from error
        yield piece
        chunk = inflate.unconsumed_tail


def _protocol_reason(message: str) -> str:
    if "peer closed" in message or "disconnected" in message:
        return "connection: cut off"
    return "connection: reset" if "reset" in message else "protocol: bad response"


def _kept(header: str | None) -> str | None:
    return header if header and len(header) <= 256 else None


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or a date; None where the header is missing or makes no sense."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


async def _discard(chunks: AsyncIterator[bytes]) -> None:
    """Read a short rest so that the connection can be used again; a long or slow one is given up.

    Over HTTP/1.1 giving up closes the connection, over HTTP/2 it cancels this answer alone.
    """
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        pass
