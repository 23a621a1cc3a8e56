"""Bodies -> checked, content-addressed blobs: done in threads, several at a time, while others download."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, BinaryIO

from store.catalog.download.fetch import Reply
from store.catalog.download.pictures import picture_problem
from store.catalog.download.record import Journal, LinkRecord, file_sha256
from store.catalog.download.schedule import Job
from store.catalog.images import blob_path
from store.workspace import Workspace

BATCH = 32  # bodies to one visit of a thread


@dataclass(frozen=True)
class Stored:
    """What became of one body."""

    record: LinkRecord
    is_new: bool  # these bytes were not here before


def store_bodies(
    workspace: Workspace, journal: Journal, bodies: list[tuple[Job, Reply]], max_pixels: int
) -> list[Stored]:
    """Check, journal and publish bodies; closes them. A body that is no picture becomes a failed record.

    Raises:
        WorkspaceError: the workspace can't be written; what was published before stays valid.
    """
    results: list[Stored] = []
    lines: list[LinkRecord] = []
    wanted: list[tuple[str, IO[bytes]]] = []
    for job, reply in bodies:
        assert reply.body is not None
        file: IO[bytes] = reply.body
        problem = picture_problem(file, max_pixels)
        if problem is not None:
            record = LinkRecord(job.link, None, problem, job.tries, reply.status)
            results.append(Stored(record, False))
            lines += [record] * (not job.keep)
            continue
        sha256 = file_sha256(file)
        record = LinkRecord(
            job.link,
            sha256,
            None,
            job.tries,
            reply.status,
            file.tell(),
            etag=reply.etag,
            last_modified=reply.last_modified,
        )
        is_new = not _is_there(workspace, sha256, file)
        results.append(Stored(record, is_new))
        lines.append(record)
        if is_new:
            wanted.append((sha256, file))
    journal.write(lines)
    for sha256, file in wanted:
        _publish(workspace, sha256, file)
    for _, reply in bodies:
        if reply.body is not None:
            reply.body.close()
    return results


def _is_there(workspace: Workspace, sha256: str, file: IO[bytes]) -> bool:
    """Whether the blob lies here whole: after a power cut its name alone would prove nothing."""
    path = blob_path(sha256)
    if not workspace.exists(path):
        return False
    if not workspace.is_local:
        return True
    with workspace.open(path) as blob:
        return file_sha256(blob) == sha256


def _publish(workspace: Workspace, sha256: str, file: IO[bytes]) -> None:
    def write(target: BinaryIO) -> None:
        file.seek(0)
        shutil.copyfileobj(file, target, 1 << 20)

    workspace.publish(blob_path(sha256), write, flush=False)


class Storer:
    """Hands bodies to threads in batches; each caller awaits the fate of its own."""

    def __init__(self, workspace: Workspace, journal: Journal, max_pixels: int, threads: int = 2) -> None:
        self._store = partial(store_bodies, workspace, journal)
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._n_threads = self._free = threads
        self._paused = False
        self._waiting: list[tuple[Job, Reply, asyncio.Future[Stored]]] = []

    async def put(self, job: Job, reply: Reply) -> Stored:
        """Store one body.

        Raises:
            WorkspaceError: the workspace can't be written.
        """
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, reply, future))
        self._start()
        return await future

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nothing is written meanwhile; bodies go on arriving and wait."""
        self._paused = True
        while self._free < self._n_threads:
            await asyncio.sleep(0.005)
        try:
            yield
        finally:
            self._paused = False
            for _ in range(self._n_threads):
                self._start()

    def _start(self) -> None:
        if self._free and self._waiting and not self._paused:
            self._free -= 1
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            bodies = [(job, reply) for job, reply, _ in batch]
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, self._store, bodies, self._max_pixels)
            running.add_done_callback(partial(self._done, [future for *_, future in batch]))

    def _done(self, futures: list[asyncio.Future[Stored]], running: "asyncio.Future[list[Stored]]") -> None:
        self._free += 1
        error = None if running.cancelled() else running.exception()
        for position, future in enumerate(futures):
            if future.done():
                continue
            if running.cancelled():
                future.cancel()
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(running.result()[position])
        self._start()
