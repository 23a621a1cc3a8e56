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
from typing import TYPE_CHECKING

from store.errors import WorkspaceError

if TYPE_CHECKING:
    from store.workspace import Workspace

LAPSE_SECONDS = 60.0  # without a sign of life
RENEWALS = 5  # of a lease before it would lapse
POLLS = 30


@contextmanager
def held(
    workspace: "Workspace",
    relative: str,
    on_wait: Callable[[], None] | None = None,
    lapse_seconds: float = LAPSE_SECONDS,
) -> Iterator[None]:
    """Hold the lease `relative`; waits for another holder to end, or to fall silent for `lapse_seconds`."""
    owner = secrets.token_hex(8)
    _acquire(workspace, relative, owner, on_wait, lapse_seconds)
    stop = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(workspace, relative, owner, stop, lapse_seconds / RENEWALS), daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        with suppress(WorkspaceError):  # it lapses all the same
            if _owner(workspace, relative) == owner:
                workspace.remove(relative)


def _acquire(
    workspace: "Workspace",
    relative: str,
    owner: str,
    on_wait: Callable[[], None] | None,
    lapse_seconds: float,
) -> None:
    told = False
    seen, since = None, time.monotonic()
    while True:
        if workspace.create(relative, _content(owner, 0)):
            return
        content = _read(workspace, relative)
        if content is None:
            continue
        if content != seen:
            seen, since = content, time.monotonic()
        if time.monotonic() - since >= lapse_seconds:
            workspace.publish_bytes(relative, _content(owner, 0))
            if _owner(workspace, relative) == owner:
                return
        if not told and on_wait is not None:
            on_wait()
            told = True
        time.sleep(lapse_seconds / POLLS)


def _renew(workspace: "Workspace", relative: str, owner: str, stop: threading.Event, every: float) -> None:
    beat = 0
    while not stop.wait(every):
        beat += 1
        with suppress(WorkspaceError):  # the work itself will meet the error
            if _owner(workspace, relative) != owner:
                return
            workspace.publish_bytes(relative, _content(owner, beat))


def _content(owner: str, beat: int) -> bytes:
    return json.dumps({"owner": owner, "host": platform.node(), "beat": beat}).encode()


def _read(workspace: "Workspace", relative: str) -> bytes | None:
    try:
        return workspace.read_bytes(relative) if workspace.exists(relative) else None
    except WorkspaceError:
        if workspace.exists(relative):
            raise
        return None


def _owner(workspace: "Workspace", relative: str) -> str | None:
    content = _read(workspace, relative)
    try:
        return None if content is None else str(json.loads(content)["owner"])
    except (ValueError, KeyError):
        return None
