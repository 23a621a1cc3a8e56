"""One writer at a time where there is no file lock: a small object that its holder keeps renewing.

No clock is compared with another machine's: whoever waits takes a lease over that did not change for a while by its own
clock. Two runs that hold it at once, after a long silence of one, do some work twice and harm nothing.
"""

import json
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from store.errors import WorkspaceError

LAPSE_SECONDS = 60.0  # without a renewal
RENEWALS = 5  # of a lease before it would lapse
POLLS = 30


class LeaseStore(Protocol):
    """Where leases lie; `Workspace` is one."""

    def exists(self, relative: str) -> bool: ...
    def read_bytes(self, relative: str) -> bytes: ...
    def create(self, relative: str, content: bytes) -> bool: ...
    def publish_bytes(self, relative: str, content: bytes) -> None: ...
    def remove(self, relative: str) -> None: ...


@contextmanager
def held(
    place: LeaseStore,
    relative: str,
    on_wait: Callable[[], None] | None = None,
    lapse_seconds: float = LAPSE_SECONDS,
) -> Iterator[None]:
    """Hold the lease `relative`; waits for another holder to end, or to fall silent for `lapse_seconds`."""
    owner = secrets.token_hex(8)
    _acquire(place, relative, owner, on_wait, lapse_seconds)
    stop = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(place, relative, owner, stop, lapse_seconds / RENEWALS), daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        with suppress(WorkspaceError):  # it lapses all the same
            if _owner(place, relative) == owner:
                place.remove(relative)


def _acquire(
    place: LeaseStore,
    relative: str,
    owner: str,
    on_wait: Callable[[], None] | None,
    lapse_seconds: float,
) -> None:
    told = False
    seen, since = None, time.monotonic()
    while True:
        if place.create(relative, _content(owner, 0)):
            return
        content = _read(place, relative)
        if content is None:
            continue
        if content != seen:
            seen, since = content, time.monotonic()
        if time.monotonic() - since >= lapse_seconds:
            place.publish_bytes(relative, _content(owner, 0))
            if _owner(place, relative) == owner:
                return
        if not told and on_wait is not None:
            on_wait()
            told = True
        time.sleep(lapse_seconds / POLLS)


def _renew(place: LeaseStore, relative: str, owner: str, stop: threading.Event, every: float) -> None:
    beat = 0
    while not stop.wait(every):
        beat += 1
        with suppress(WorkspaceError):  # the work itself will meet the error
            if _owner(place, relative) != owner:
                return
            place.publish_bytes(relative, _content(owner, beat))


def _content(owner: str, beat: int) -> bytes:
    return json.dumps({"owner": owner, "host": platform.node(), "beat": beat}).encode()


def _read(place: LeaseStore, relative: str) -> bytes | None:
    try:
        return place.read_bytes(relative) if place.exists(relative) else None
    except WorkspaceError:
        if place.exists(relative):
            raise
        return None


def _owner(place: LeaseStore, relative: str) -> str | None:
    content = _read(place, relative)
    try:
        return None if content is None else str(json.loads(content)["owner"])
    except (ValueError, KeyError):
        return None
