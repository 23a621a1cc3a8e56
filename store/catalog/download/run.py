"""One download run: journal of an earlier run, plan, fetch, store, fold."""

import asyncio
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import IO

from store.catalog.download.connections import tls_context
from store.catalog.download.fetch import Fetcher, FetchLimits, Reply
from store.catalog.download.network import Resolver, resolve
from store.catalog.download.plan import DownloadPlan, WantedLinks, make_plan, read_wanted, unusable_records
from store.catalog.download.progress import Progress
from store.catalog.download.record import IMAGES_LOCK, Journal, LinkRecord, fold_journals
from store.catalog.download.rows import show_images
from store.catalog.download.schedule import DownloadSchedule, DownloadTask, Ended, Policy
from store.catalog.download.storer import Storer
from store.catalog.download.storing import Body, Stored
from store.catalog.images.blobs import sweep_images
from store.catalog.images.links import mend_links
from store.catalog.images.open import quiet_pillow
from store.errors import CatalogError, ConfigError, WorkspaceError
from store.workspace import Workspace

CHECKPOINT_LINES = 5_000  # journal lines after which links.parquet is brought up to date
LOOKUP_THREADS = 32  # names looked up at a time


@dataclass(frozen=True)
class DownloadSettings:
    """How to download."""

    limits: FetchLimits = field(default_factory=FetchLimits)
    policy: Policy = field(default_factory=Policy)
    concurrency: int = 64
    allow_private: bool = False
    contact: str | None = None  # e-mail or page in the user agent, for those who run the servers
    ca_file: str | None = None  # PEM of further certificate authorities
    retry_failed: bool = False
    refresh: bool = False


@dataclass
class Summary:
    """What a run did; counts of links unless said otherwise."""

    wanted: WantedLinks
    n_stored_before: int = 0
    n_failed_before: int = 0
    n_void: int = 0  # journal lines of a killed run whose image was not whole
    n_asked: int = 0
    n_stored: int = 0
    n_new_images: int = 0  # of those stored, bytes that were not here before
    n_cut: int = 0  # of those stored, files that lack their end
    n_not_modified: int = 0
    n_rows_with_image: int = 0  # rows of the catalogue whose image came from a link
    n_bytes: int = 0  # read from servers into images
    failed: Counter[str] = field(default_factory=Counter)  # by reason
    seconds: float = 0.0

    @property
    def n_failed(self) -> int:
        return self.failed.total()


def user_agent(contact: str | None) -> str:
    """A name that says what asks and, if given, whom to write to."""
    about = f"catalogue images; contact: {contact}" if contact else "catalogue images"
    return f"shelfprice/{version('shelfprice')} ({about})"


def download_images(
    workspace: Workspace, settings: DownloadSettings, progress: Progress, *, resolver: Resolver = resolve
) -> Summary:
    """Fetch the image behind every link of the catalogue that is not here yet.

    Whatever a server does ends as a reason in images/links.parquet, never as an error.

    Raises:
        CatalogError: no catalogue was ingested.
        ConfigError: a setting makes no sense.
        WorkspaceError: the workspace can't be written, e.g. the disk is full; what was stored stays.
    """
    _check(settings)
    with workspace.lock(IMAGES_LOCK, on_wait=progress.waiting), quiet_pillow():
        started = time.monotonic()
        progress.say(mend_links(workspace))
        wanted = read_wanted(workspace)
        summary = Summary(wanted, n_void=fold_journals(workspace))
        sweep_images(workspace)
        plan = make_plan(workspace, wanted, retry_failed=settings.retry_failed, refresh=settings.refresh)
        summary.n_stored_before, summary.n_failed_before = plan.n_stored, plan.n_failed
        summary.n_asked = len(plan.jobs)
        wanted.urls.clear()  # those that are done must not stay in memory
        journal = Journal(workspace)
        journal.write(unusable_records(workspace, wanted))
        try:
            if plan.jobs:
                run = _Run(workspace, settings, plan, journal, summary, progress)
                asyncio.run(run.drive(resolver))
        except WorkspaceError:
            _fold_what_can_be(workspace, journal)
            raise
        except KeyboardInterrupt:
            _fold_what_can_be(workspace, journal)
            raise
        journal.close()
        fold_journals(workspace, trusted=True)
        summary.n_rows_with_image = show_images(workspace)
    summary.seconds = time.monotonic() - started
    return summary


def _fold_what_can_be(workspace: Workspace, journal: Journal) -> None:
    """After a failed run: what can't be folded now will be at the next start."""
    try:
        journal.close()
        fold_journals(workspace)
        show_images(workspace)
    except (WorkspaceError, CatalogError):
        return


def _check(settings: DownloadSettings) -> None:
    contact = settings.contact or ""
    if not contact.isascii() or not contact.isprintable() or set("()\\") & set(contact):
        raise ConfigError(f"--contact must be an e-mail address or a URL in plain ASCII, got {contact!r}")
    tls_context(settings.ca_file)


class _Run:
    """The state of one run inside the event loop."""

    def __init__(
        self,
        workspace: Workspace,
        settings: DownloadSettings,
        plan: DownloadPlan,
        journal: Journal,
        summary: Summary,
        progress: Progress,
    ) -> None:
        self.workspace = workspace
        self.settings = settings
        self.plan = plan
        self.journal = journal
        self.summary = summary
        self.progress = progress
        self.schedule = DownloadSchedule(settings.policy)
        self.unfolded = 0  # lines in journals
        # One thread for all: memory that a thread gave back is taken again by that thread alone.
        self.folding = ThreadPoolExecutor(1, thread_name_prefix="fold")
        self.running: set[asyncio.Task[None]] = set()
        self.wake = asyncio.Event()
        self.error: BaseException | None = None

    async def drive(self, resolver: Resolver) -> None:
        """Ask until nothing is left."""
        settings = self.settings
        names = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="dns")
        asyncio.get_running_loop().set_default_executor(names)
        for job in self.plan.jobs:
            self.schedule.add(job)
        self.plan.jobs.clear()
        fetcher = Fetcher(
            settings.limits,
            user_agent(settings.contact),
            connections=settings.concurrency,
            allow_private=settings.allow_private,
            ca_file=settings.ca_file,
            resolver=resolver,
        )
        with self.progress.open(self.summary.n_asked):
            async with Storer(self.workspace, self.journal, settings.limits.max_pixels) as storer:
                try:
                    async with fetcher:
                        await self._loop(fetcher, storer)
                finally:
                    for task in self.running:
                        task.cancel()
                    await asyncio.gather(*self.running, return_exceptions=True)
                    self.folding.shutdown()

    async def _loop(self, fetcher: Fetcher, storer: Storer) -> None:
        while self.schedule.n_left or self.running:
            while len(self.running) < self.settings.concurrency:
                job = self.schedule.take()
                if job is None:
                    break
                task = asyncio.create_task(self._work(fetcher, storer, job))
                self.running.add(task)
                task.add_done_callback(self._worked)
            self._note_ended()
            if self.error is not None:
                raise self.error
            if self.unfolded >= CHECKPOINT_LINES:
                async with storer.paused():
                    self.unfolded = 0
                    self.journal.close()
                    fold = partial(fold_journals, self.workspace, trusted=True)
                    await asyncio.get_running_loop().run_in_executor(self.folding, fold)
            is_full = len(self.running) >= self.settings.concurrency
            await self._wait(None if is_full else self.schedule.wait_seconds())
        self._note_ended()
        if self.error is not None:
            raise self.error

    async def _wait(self, seconds: float | None) -> None:
        if not self.running and seconds is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            pass
        self.wake.clear()

    def _worked(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.error = task.exception()
        self.wake.set()

    async def _work(self, fetcher: Fetcher, storer: Storer, job: DownloadTask) -> None:
        reply = await fetcher.fetch(job.url, job.etag, job.last_modified, alone=job.alone)
        if not self.schedule.finish(job, reply):
            return
        if reply.body is None:
            self.summary.n_not_modified += 1
            self.progress.advance(0)
            return
        self.wake.set()  # the host may be asked again while this body is stored
        self._note_stored(reply, await storer.put(_body(job, reply, reply.body)))

    def _note_stored(self, reply: Reply, stored: Stored) -> None:
        self.unfolded += 1
        if stored.reason is not None:
            self.summary.failed[stored.reason] += 1
            self.progress.fail(stored.reason)
            return
        self.summary.n_stored += 1
        self.summary.n_new_images += stored.is_new
        self.summary.n_cut += stored.is_cut
        self.summary.n_bytes += reply.n_bytes
        self.progress.advance(reply.n_bytes)

    def _note_ended(self) -> None:
        records = []
        for ended in self.schedule.ended():
            self.summary.failed[ended.reason] += 1
            self.progress.fail(ended.reason)
            if not ended.job.keep:
                records.append(_record(ended))
        self.unfolded += len(records)
        self.journal.write(records)


def _body(job: DownloadTask, reply: Reply, file: IO[bytes]) -> Body:
    n_bytes = file.seek(0, os.SEEK_END)
    return Body(
        file, n_bytes, job.link, job.tries, reply.status, reply.etag, reply.last_modified, keep=job.keep
    )


def _record(ended: Ended) -> LinkRecord:
    return LinkRecord(ended.job.link, None, ended.reason, ended.job.tries, ended.status)
