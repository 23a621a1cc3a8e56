"""Connections that go only where an address was checked.

The address is looked up, checked and connected to in one place, so no second look-up can answer
differently (DNS rebinding). TLS and the Host header still carry the name. Redirects and retries
pass through here as well, since every new connection does.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore2

from store.catalog.download.addresses import address_problem

Resolver = Callable[[str, int], Awaitable[list[str]]]
MAX_ADDRESSES = 4  # of one name, tried in turn
READ_BUFFER_BYTES = 256 * 1024


class NoConnectionError(Exception):
    """No connection was made; caught by the fetcher, never seen by a user as such."""

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a name, in the order of the system's preference."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """httpcore's network on asyncio streams, asking only addresses that are allowed."""

    def __init__(self, *, allow_private: bool = False, resolver: Resolver = resolve) -> None:
        self.allow_private = allow_private
        self._resolver = resolver

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a checked address of `host`.

        Raises:
            NoConnectionError: the name has no address, none is allowed, or none answers.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._allowed(host.strip("[]"), port)
                return await _connect_first(addresses[:MAX_ADDRESSES], port)
        except TimeoutError as error:
            raise NoConnectionError("connect: no answer in time", retry=True) from error

    async def _allowed(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise NoConnectionError(f"dns: {text}", retry=True) from error
        problems = {address: address_problem(address, self.allow_private) for address in addresses}
        allowed = [address for address, problem in problems.items() if problem is None]
        if not allowed:
            first = next(filter(None, problems.values()), "dns: no address")
            raise NoConnectionError(first, retry=False)
        return allowed


async def _connect_first(addresses: list[str], port: int) -> "Stream":
    for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        try:
            reader, writer = await asyncio.open_connection(address, port, limit=READ_BUFFER_BYTES)
            return Stream(reader, writer)
        except OSError as error:
            if not left:
                reason = f"connect: {error.strerror or error}"
                raise NoConnectionError(_without_address(reason), retry=True) from error
    raise NoConnectionError("dns: no address", retry=True)


def _without_address(reason: str) -> str:
    """The error without the address that asyncio writes into `strerror`, since reasons are counted."""
    return "connect: refused" if "Connect call failed" in reason or "refused" in reason else reason


class Stream(httpcore2.AsyncNetworkStream):
    """An asyncio stream in httpcore's terms; errors are httpcore's, which the pool acts on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout() from error
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            self._writer.write(buffer)
            async with asyncio.timeout(timeout):
                await self._writer.drain()
        except TimeoutError as error:
            raise httpcore2.WriteTimeout() from error
        except (OSError, RuntimeError) as error:  # RuntimeError: the transport is closed already
            raise httpcore2.WriteError(str(error)) from error

    def send(self, buffer: bytes) -> None:
        """Write without waiting until it has left; nothing happens on a lost connection."""
        if buffer and not self._writer.is_closing():
            self._writer.write(buffer)

    async def aclose(self) -> None:
        self._writer.transport.abort()  # nothing is left to send

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except ssl.SSLCertVerificationError as error:
            await self.aclose()
            raise NoConnectionError(f"tls: {error.verify_message}", retry=False) from error
        except (OSError, TimeoutError) as error:
            await self.aclose()
            reason = getattr(error, "reason", None) or "handshake failed"
            raise NoConnectionError(f"tls: {reason}", retry=True) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._writer.get_extra_info("ssl_object")
        if info == "is_readable":  # asked of an idle connection: has the server closed it?
            return self._reader.at_eof() or self._writer.is_closing()
        return None
