"""HTTP/2 on h2, behind the interface of a connection that httpcore's pool takes: one answer is given up, the others go on.

httpcore's own leaves an answer that is not read to its end open: the server goes on sending it, and what nobody reads
uses up the window that all images on the connection share. Here the server is told to stop (RST_STREAM), and what it
has sent already is given back to the window.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import httpcore2

from store.catalog.download.network import Stream

KEEPALIVE_SECONDS = 15.0
READ_BYTES = 64 * 1024
WINDOW_BYTES = 2**24  # that a server may send unread, of one answer and of all together
FIRST_WINDOW_BYTES = 65_535  # until it is told so
MOST_REQUESTS = 100  # at a time
CLIENT = h2.config.H2Configuration(validate_inbound_headers=False)
SETTINGS = {
    h2.settings.SettingCodes.ENABLE_PUSH: 0,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
}
OF_AN_ANSWER = (
    h2.events.ResponseReceived,
    h2.events.DataReceived,
    h2.events.StreamEnded,
    h2.events.StreamReset,
)


class _Answer:
    """What has come for one request."""

    def __init__(self, silent_seconds: float | None) -> None:
        self.has_ended = False
        self._seconds = silent_seconds
        self._waiting: deque[h2.events.Event | Exception] = deque()
        self._arrived = asyncio.Event()

    @property
    def unread_bytes(self) -> int:
        data = (event for event in self._waiting if isinstance(event, h2.events.DataReceived))
        return sum(event.flow_controlled_length or 0 for event in data)

    def put(self, event: h2.events.Event | Exception) -> None:
        self.has_ended |= not isinstance(event, h2.events.ResponseReceived | h2.events.DataReceived)
        self._waiting.append(event)
        self._arrived.set()

    async def next(self) -> h2.events.Event:
        """The next event; raises what ended the answer before its time."""
        while not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._seconds):
                    await self._arrived.wait()
            except TimeoutError as error:
                raise httpcore2.ReadTimeout() from error
        event = self._waiting.popleft()
        if isinstance(event, Exception):
            raise event
        if isinstance(event, h2.events.StreamReset):
            raise httpcore2.RemoteProtocolError(str(event))
        return event


class Http2Connection(httpcore2.AsyncConnectionInterface):
    """Requests without a body, several at a time, over one stream that speaks HTTP/2."""

    def __init__(self, origin: httpcore2.Origin, stream: Stream) -> None:
        self._origin = origin
        self._stream = stream
        self._answers: dict[int, _Answer] = {}
        self._most = 1  # requests at a time, until the server has said
        self._free = asyncio.Event()
        self._is_closed = self._is_used_up = False
        self._idle_since = time.monotonic()
        self._h2 = h2.connection.H2Connection(CLIENT)
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=SETTINGS)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES - FIRST_WINDOW_BYTES)
        self._send()
        self._reading = asyncio.create_task(self._read())

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send the request and wait for the head of its answer.

        Raises:
            httpcore2.ConnectionNotAvailable: it must be sent on another connection.
        """
        while self.is_available() and len(self._answers) >= self._most:
            self._free.clear()
            await self._free.wait()
        if not self.is_available():
            raise httpcore2.ConnectionNotAvailable
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except h2.exceptions.NoAvailableStreamIDError as error:
            self._is_used_up = True
            raise httpcore2.ConnectionNotAvailable from error
        answer = self._answers[stream_id] = _Answer(request.extensions.get("timeout", {}).get("read"))
        try:
            self._h2.send_headers(stream_id, _headers_of(request), end_stream=True)
            self._send()
            head = await answer.next()
        except BaseException:
            self.give_up(stream_id)
            raise
        found = head.headers if isinstance(head, h2.events.ResponseReceived) else None
        if found is None:
            self.give_up(stream_id)
            raise httpcore2.RemoteProtocolError("an answer without a head")
        status = next((value for name, value in found if name == b":status"), b"200")
        return httpcore2.Response(
            int(status) if status.isdigit() else 200,
            headers=[(name, value) for name, value in found if not name.startswith(b":")],
            content=_Body(self, stream_id, answer),
            extensions={"http_version": b"HTTP/2"},
        )

    async def body(self, stream_id: int, answer: _Answer) -> AsyncIterator[bytes]:
        """The pieces of an answer; each is given back to the window when it is asked for."""
        while isinstance(event := await answer.next(), h2.events.DataReceived):
            with suppress(h2.exceptions.ProtocolError):  # the connection has ended, its last pieces are here
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
                self._send()
            yield event.data or b""

    def give_up(self, stream_id: int) -> None:
        """Close an answer, whether it has been read or not."""
        answer = self._answers.pop(stream_id, None)
        if answer is None:
            return
        with suppress(h2.exceptions.ProtocolError):  # it, or the connection, has ended meanwhile
            if not answer.has_ended:
                self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            if answer.unread_bytes:
                self._h2.acknowledge_received_data(answer.unread_bytes, stream_id)
        self._send()
        self._idle_since = time.monotonic()
        self._free.set()

    def _send(self) -> None:
        self._stream.send(self._h2.data_to_send())

    async def _read(self) -> None:
        error: Exception = httpcore2.RemoteProtocolError("Server disconnected")
        try:
            while not self._is_closed and (data := await self._stream.read(READ_BYTES)):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._send()
        except httpcore2.NetworkError as lost:
            error = lost
        except Exception as broken:  # noqa: BLE001 - whatever a server sends must not leave its requests waiting
            self._send()
            error = httpcore2.RemoteProtocolError(f"bad frame: {type(broken).__name__}")
        self._lose(error)
        await self._stream.aclose()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._most = max(1, min(self._h2.remote_settings.max_concurrent_streams, MOST_REQUESTS))
            self._free.set()
        elif isinstance(event, h2.events.ConnectionTerminated):
            unseen = httpcore2.ConnectionNotAvailable()
            for stream_id, answer in self._answers.items():
                if event.last_stream_id and stream_id > event.last_stream_id:
                    answer.put(unseen)
            self._lose(httpcore2.RemoteProtocolError(str(event)))
        elif isinstance(event, OF_AN_ANSWER) and event.stream_id in self._answers:
            self._answers[event.stream_id].put(event)

    def _lose(self, error: Exception) -> None:
        self._is_closed = True
        for answer in self._answers.values():
            if not answer.has_ended:
                answer.put(error)
        self._free.set()

    # ---- asked by the pool -----------------------------------------------------------------------

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return not self._is_closed and not self._is_used_up

    def is_idle(self) -> bool:
        return not self._answers

    def is_closed(self) -> bool:
        return self._is_closed

    def can_multiplex(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return self.is_idle() and time.monotonic() - self._idle_since > KEEPALIVE_SECONDS

    def info(self) -> str:
        return f"{self._origin}, HTTP/2, {len(self._answers)} requests"

    async def aclose(self) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.close_connection()
        self._send()
        self._lose(httpcore2.ReadError("closed"))
        self._reading.cancel()
        await self._stream.aclose()


class _Body:
    """An answer's body; closed before its end it is given up."""

    def __init__(self, connection: Http2Connection, stream_id: int, answer: _Answer) -> None:
        self._connection, self._stream_id, self._answer = connection, stream_id, answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.body(self._stream_id, self._answer)

    async def aclose(self) -> None:
        self._connection.give_up(self._stream_id)


def _headers_of(request: httpcore2.Request) -> list[tuple[bytes, bytes]]:
    given = [(name.lower(), value) for name, value in request.headers]
    authority = next((value for name, value in given if name == b"host"), request.url.host)
    url = request.url
    pseudo = [
        (b":method", request.method),
        (b":authority", authority),
        (b":scheme", url.scheme),
        (b":path", url.target),
    ]
    return [*pseudo, *((name, value) for name, value in given if name != b"host")]
