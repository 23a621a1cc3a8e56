"""Checks of every request: id, token, size, time; then one line in the log and one count."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
import time

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ensemble.serving.log import log_event
from ensemble.serving.metrics import Metrics
from ensemble.serving.settings import ServeSettings

OPEN_ROUTES = ("/healthz", "/readyz")  # for probes, which know no token
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
CHALLENGE = 'Bearer, Basic realm="shelfprice: the token as password", charset="UTF-8"'
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Gate:
    """The outermost ASGI layer; whatever happens inside becomes an answer."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self.limits = settings.limits
        self._metrics = metrics
        self._held_bytes = 0
        self._digest = None if settings.token is None else hashlib.sha256(settings.token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(self, scope, receive, send)
        scope.setdefault("state", {}).update(id=passage.id, hold=passage.hold)
        started = time.perf_counter()
        with self._metrics.at_work.track_inprogress():
            try:
                await self._answer(scope, passage)
            finally:
                self._held_bytes -= passage.n_held
                route = getattr(scope.get("route"), "path", "other")
                seconds = time.perf_counter() - started
                self._metrics.count_request(route, scope["method"], passage.status, seconds)
                log_event(
                    "request",
                    logging.DEBUG if route in OPEN_ROUTES else logging.INFO,
                    id=passage.id,
                    route=route,
                    method=scope["method"][:16],
                    status=passage.status,
                    bytes=passage.n_bytes,
                    seconds=round(seconds, 4),
                    **scope["state"].get("counts", {}),
                )

    async def _answer(self, scope: Scope, passage: "_Passage") -> None:
        problem = self._refusal(scope)
        if problem is None:
            try:
                async with asyncio.timeout(self.limits.seconds) as timer:
                    await self._app(scope, passage.receive, passage.send)
                return
            except Exception as error:  # noqa: BLE001 - the client gets an answer, the log the place
                if not timer.expired():  # the application has answered
                    log_event("error", logging.ERROR, error, id=passage.id)
                if passage.status:
                    return
                problem = self._late(passage)
        status, detail, headers = problem
        await JSONResponse({"detail": detail}, status, headers)(scope, passage.receive, passage.send)

    def _late(self, passage: "_Passage") -> tuple[int, str, dict[str, str]]:
        if passage.is_read:
            return 503, f"not answered within {self.limits.seconds:g} s", {"retry-after": "1"}
        return 408, f"body not received within {self.limits.seconds:g} s", {"connection": "close"}

    def _refusal(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        headers = dict(scope["headers"])
        if self._settings.hosts and _host_name(headers.get(b"host", b"")) not in self._settings.hosts:
            return 421, "this server is not addressed by that name: see --allowed-host", {}
        if (
            self._digest is not None
            and scope["path"] not in OPEN_ROUTES
            and not self._is_known(headers.get(b"authorization", b""))
        ):
            return 401, "a token is wanted, as 'Authorization: Bearer TOKEN'", {"www-authenticate": CHALLENGE}
        if scope["method"] not in ("GET", "HEAD") and headers.get(b"sec-fetch-site", b"none") not in (
            b"same-origin",
            b"none",
        ):
            return 403, "requests from pages of other sites are refused", {}
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self.limits.body_bytes:
            return 413, self.too_large, {"connection": "close"}
        return None

    def _is_known(self, authorization: bytes) -> bool:
        """Whether the token was given, compared in constant time."""
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() == b"basic":  # what a browser asks its user for
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                given = b""
        elif scheme.lower() != b"bearer":
            given = b""
        assert self._digest is not None
        return hmac.compare_digest(hashlib.sha256(given.strip()).digest(), self._digest)

    @property
    def too_large(self) -> str:
        return f"body larger than {self.limits.body_bytes} bytes"

    def hold(self, n_bytes: int) -> bool:
        """Take bytes into memory; False: all requests together hold too many."""
        self._held_bytes += n_bytes
        return self._held_bytes <= self.limits.held_bytes


class _Passage:
    """One request on its way through: counts what comes in, completes what goes out."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.status = 0
        self.n_bytes = 0  # of its body
        self.n_held = 0  # of its body and of images that were fetched for it
        self.is_read = False
        self._gate, self._receive, self._send = gate, receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            self.is_read = True
            return message
        self.is_read = not message.get("more_body", False)
        n_bytes = len(message.get("body", b""))
        self.n_bytes += n_bytes
        self.hold(n_bytes)
        if self.n_bytes > self._gate.limits.body_bytes:
            raise HTTPException(413, self._gate.too_large, {"connection": "close"})
        return message

    def hold(self, n_bytes: int) -> None:
        """Take bytes into memory until the request is answered.

        Raises:
            HTTPException: all requests together hold too many.
        """
        self.n_held += n_bytes
        if not self._gate.hold(n_bytes):
            raise HTTPException(429, "too many bytes at work", {"retry-after": "1", "connection": "close"})

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name for name, _ in message["headers"]}
            extra = HEADERS | {"x-request-id": self.id, "cache-control": "no-store"}
            message["headers"] = [
                *message["headers"],
                *((k.encode(), v.encode()) for k, v in extra.items() if k.encode() not in present),
            ]
        await self._send(message)


def _host_name(header: bytes) -> str:
    """The name of a Host header, without its port."""
    text = header.decode("latin-1").lower()
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
