"""A bar on stderr: images/s, bytes/s, failures by reason; silent when stderr is no terminal."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from store.options import say

REFRESH_SECONDS = 0.5
MOST_REASONS = 3


class Progress:
    """What a run tells while it lasts."""

    def __init__(self, *, show: bool | None = None) -> None:
        self._disable = None if show is None else not show  # None: by whether stderr is a terminal
        self._bar: tqdm | None = None
        self._failed: Counter[str] = Counter()
        self._n_bytes = 0
        self._started = self._shown = 0.0

    @contextmanager
    def open(self, n_links: int) -> Iterator[None]:
        """Show a bar over so many links."""
        self._started = time.monotonic()
        with tqdm(
            total=n_links, desc="images", unit="img", disable=self._disable, smoothing=0.1
        ) as self._bar:
            yield

    def waiting(self) -> None:
        """Another run holds the workspace."""
        self.say("another run is fetching images into this workspace: waiting for it")

    def say(self, line: str | None) -> None:
        """A line for people, if there is one."""
        if line:
            say(line, err=True)

    def advance(self, n_bytes: int) -> None:
        """One link is done, with so many bytes."""
        self._n_bytes += n_bytes
        self._show()

    def fail(self, reason: str) -> None:
        """One link ended without an image."""
        self._failed[reason] += 1
        self._show()

    def _show(self) -> None:
        if self._bar is None or self._bar.disable:
            return
        self._bar.update()
        now = time.monotonic()
        if now - self._shown >= REFRESH_SECONDS:
            self._shown = now
            speed = self._n_bytes / max(now - self._started, 1e-9) / 1e6
            reasons = (f"{n} {reason}" for reason, n in self._failed.most_common(MOST_REASONS))
            self._bar.set_postfix_str(", ".join([f"{speed:.1f} MB/s", *reasons]), refresh=False)
