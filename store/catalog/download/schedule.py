"""Which link to request next, and when: limits and rates per host, retries, back-off, Retry-After, redirects.

It uses no network, and the clock that it is given, so tests need not wait.
"""

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from store.catalog.download.addresses import host_of
from store.catalog.download.fetch import Reply

THROTTLED = frozenset({429, 503})
LATE_SECONDS = 0.05  # by which a slow turn may be made up, so that a rate is kept on average
CALM_REPLIES = 50  # good replies in a row after which a throttled host is asked a little more again


@dataclass(frozen=True)
class Policy:
    """How servers are treated."""

    per_host: int = 16  # requests to one host at a time
    rate: float = 0.0  # requests a second to one host, 0: no limit
    retries: int = 3  # after the first try
    redirects: int = 5
    backoff_seconds: float = 0.5  # doubles with each try, times a random factor of 0.5 to 1
    max_backoff_seconds: float = 30.0
    max_wait_seconds: float = 300.0  # a host that asks for a longer pause is left alone for this run
    dead_after: int = 16  # so many connections in a row that fail ...
    dead_seconds: float = 15.0  # ... over at least so long: the host is left alone for this run


@dataclass(slots=True)
class DownloadTask:
    """One link on its way."""

    link: str  # key of its row in links.parquet
    url: str  # asked next; differs from `link` after a redirect
    etag: str | None = None
    last_modified: str | None = None
    keep: bool = False  # a refresh: a failure leaves the stored image as it is
    tries: int = 0
    hops: int = 0
    alone: bool = False  # asked on a connection of its own
    host: str = ""  # of `url`; kept by the schedule


@dataclass(frozen=True)
class Ended:
    """A link that gets no image in this run."""

    job: DownloadTask
    reason: str
    status: int | None = None


@dataclass(slots=True)
class _Host:
    limit: int
    queue: deque[DownloadTask] = field(default_factory=deque)
    active: int = 0
    ready: float = 0.0  # not asked before
    listed: bool = False  # in the heap of hosts
    calm: int = 0
    failed: int = 0  # connections in a row that failed ...
    failing_since: float = 0.0
    sealed: str | None = None  # why it is left alone for this run


class DownloadSchedule:
    """Hands out jobs; give each back with `finish`."""

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.n_left = 0  # jobs neither delivered nor ended
        self._clock = clock
        self._jitter = jitter
        self._hosts: dict[str, _Host] = {}
        self._open: list[tuple[float, int, str]] = []  # hosts that may have work, by when they may be asked
        self._later: list[tuple[float, int, DownloadTask]] = []  # retries, by when they are due
        self._ended: deque[Ended] = deque()
        self._n = 0  # order of arrival, so that hosts take turns
        self._now = 0.0

    def add(self, job: DownloadTask) -> None:
        self.n_left += 1
        self._enqueue(job)

    def take(self) -> DownloadTask | None:
        """The next job that may be asked now; None: see `wait_seconds`."""
        now = self._now = self._clock()
        while self._later and self._later[0][0] <= now:
            self._enqueue(heapq.heappop(self._later)[2], first=True)
        while self._open and self._open[0][0] <= now:
            name = heapq.heappop(self._open)[2]
            host = self._hosts[name]
            host.listed = False
            if host.ready > now or not host.queue:
                self._list(name, host)
                continue
            job = host.queue.popleft()
            host.active += 1
            if self.policy.rate > 0:
                host.ready = max(host.ready, now - LATE_SECONDS) + 1.0 / self.policy.rate
            self._list(name, host)
            job.tries += job.hops == 0
            return job
        return None

    def wait_seconds(self) -> float | None:
        """Until `take` may have something; None: not before a job is given back."""
        due = [heap[0][0] for heap in (self._open, self._later) if heap]
        return max(0.0, min(due) - self._clock()) if due else None

    def finish(self, job: DownloadTask, reply: Reply) -> bool:
        """Take a job back; True if it is delivered (a body, or not modified). Else it ended or comes again."""
        now = self._clock()
        name = job.host
        host = self._hosts[name]
        host.active -= 1
        self._note(host, job, reply, now)
        self._list(name, host)
        if reply.reason is None and reply.redirect is None:
            self.n_left -= 1
            return True
        if reply.redirect is not None:
            self._redirect(job, reply)
        elif reply.shared and not job.alone and host.sealed is None:
            job.alone, job.tries = (
                True,
                job.tries - 1,
            )  # does not count against the host: another request may be the cause
            self._retry(job, 0.0)
        elif reply.retry and job.tries <= self.policy.retries and host.sealed is None:
            self._retry(job, reply.retry_after or 0.0)
        else:
            self._end(job, reply.reason or "", reply.status)
        return False

    def ended(self) -> Iterator[Ended]:
        """Jobs that ended without an image since the last call."""
        while self._ended:
            yield self._ended.popleft()

    # ---- inside ----------------------------------------------------------------------------------

    def _enqueue(self, job: DownloadTask, *, first: bool = False) -> None:
        name = job.host = host_of(job.url)
        host = self._hosts.get(name) or self._hosts.setdefault(name, _Host(self.policy.per_host))
        if host.sealed is not None:
            self._end(job, host.sealed)
            return
        (host.queue.appendleft if first else host.queue.append)(job)
        self._list(name, host)

    def _retry(self, job: DownloadTask, least_seconds: float) -> None:
        job.url, job.hops = job.link, 0
        self._n += 1
        due = self._clock() + max(self._backoff(max(1, job.tries)), least_seconds)
        heapq.heappush(self._later, (due, self._n, job))

    def _list(self, name: str, host: _Host) -> None:
        if host.queue and not host.listed and host.active < host.limit:
            host.listed = True
            self._n += 1
            heapq.heappush(self._open, (max(host.ready, self._now), self._n, name))

    def _backoff(self, tries: int) -> float:
        longest = min(self.policy.max_backoff_seconds, self.policy.backoff_seconds * 2.0 ** (tries - 1))
        return longest * (0.5 + 0.5 * self._jitter())

    def _note(self, host: _Host, job: DownloadTask, reply: Reply, now: float) -> None:
        """What a reply says about its host."""
        if reply.unreachable:
            host.failing_since = host.failing_since if host.failed else now
            host.failed += 1
            if host.failed >= self.policy.dead_after:
                host.ready = max(host.ready, now + self._backoff(job.tries))
                if now - host.failing_since >= self.policy.dead_seconds:
                    self._seal(host, f"{reply.reason} (host given up)")
            return
        host.failed = 0
        if reply.status in THROTTLED:
            wait = max(self._backoff(job.tries), reply.retry_after or 0.0)
            if host.ready <= now:  # replies of requests sent before the pause count once
                host.limit = max(1, host.limit // 2)
            host.calm = 0
            host.ready = max(host.ready, now + wait)
            if wait > self.policy.max_wait_seconds:
                self._seal(host, f"{reply.reason}: asks to wait {wait:.0f} s")
        elif host.limit < self.policy.per_host:
            host.calm += 1
            if host.calm >= CALM_REPLIES:
                host.limit, host.calm = host.limit + 1, 0

    def _seal(self, host: _Host, reason: str) -> None:
        host.sealed = reason
        waiting = [entry for entry in self._later if self._hosts.get(host_of(entry[2].url)) is host]
        if waiting:
            self._later = [entry for entry in self._later if entry not in waiting]
            heapq.heapify(self._later)
        for job in (*host.queue, *(entry[2] for entry in waiting)):
            self._end(job, reason)
        host.queue.clear()

    def _redirect(self, job: DownloadTask, reply: Reply) -> None:
        job.hops += 1
        if job.hops > self.policy.redirects:
            self._end(job, f"redirects: over {self.policy.redirects}", reply.status)
        else:
            job.url = reply.redirect or job.url
            self._enqueue(job, first=True)

    def _end(self, job: DownloadTask, reason: str, status: int | None = None) -> None:
        self.n_left -= 1
        self._ended.append(Ended(job, reason, status))
