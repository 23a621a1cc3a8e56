"""Rows of many requests, priced together: rows that arrive while the model works on one batch are its next batch."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
MOST_RETRY_SECONDS = 60
_MEMORY = 0.9  # of the running mean of seconds a row


class QueueFullError(Exception):
    """More rows wait than the server takes on.

    Args:
        retry_after: whole seconds after which it may have room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many rows are waiting: try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Call:
    """What a batch goes through, each step in a thread of its own: while one batch is answered, the next is embedded.

    Args:
        embed: rows -> the rows with their vectors.
        answer: these, interval -> an answer for each row.
    """

    embed: Callable[[Sequence[Row]], Any]
    answer: Callable[[Any, float], Sequence[Any]]


@dataclass(eq=False)
class _Job:
    """A part of one request, at most a batch."""

    kind: tuple[str, float]  # jobs of one kind can be priced together
    rows: Sequence[Row]
    answers: "asyncio.Future[Sequence[Any]]"


@dataclass(eq=False)
class _Batch:
    """Jobs of one kind at work."""

    jobs: Sequence[_Job]
    begun: float

    @property
    def rows(self) -> list[Row]:
        return [row for job in self.jobs for row in job.rows]


class Batcher:
    """Gathers rows of concurrent requests into batches without delaying any of them.

    A request is never delayed to fill a batch: an idle model begins at once. Under load, all that arrived
    while one batch was embedded forms the next one.

    Args:
        calls: name -> what a batch goes through.
        on_batch: told of every answered batch: its name, rows and seconds; by any thread.
        on_error: told of an exception of the model; by any thread.
    """

    def __init__(
        self,
        calls: Mapping[str, Call],
        *,
        batch_rows: int,
        waiting_rows: int,
        on_batch: Callable[[str, int, float], None] = lambda *_: None,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._calls = calls
        self._batch_rows = batch_rows
        self._most_waiting = waiting_rows
        self._on_batch = on_batch
        self._on_error = on_error
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._answering = ThreadPoolExecutor(1, thread_name_prefix="answer")
        self._lock = threading.Lock()  # of what follows
        self._jobs: deque[_Job] = deque()
        self._is_embedding = False
        self._at_work: list[_Batch] = []  # the oldest first
        self._last_answer = 0.0
        self._row_seconds = 0.0

    @property
    def n_waiting(self) -> int:
        """Rows that the model has not begun."""
        with self._lock:
            return self._count_waiting()

    @property
    def busy_seconds(self) -> float:
        """Since the oldest batch at work was begun; 0 where there is none."""
        with self._lock:
            return time.monotonic() - self._at_work[0].begun if self._at_work else 0.0

    async def ask(self, name: str, rows: Sequence[Row], interval: float) -> list[Any]:
        """An answer for each row, in their order.

        Raises:
            QueueFullError: there is no room for them.
        """
        loop = asyncio.get_running_loop()
        jobs = [
            _Job((name, interval), rows[first : first + self._batch_rows], loop.create_future())
            for first in range(0, len(rows), self._batch_rows)
        ]
        with self._lock:
            n_rows = self._count_waiting() + len(rows)
            if n_rows > self._most_waiting:
                raise QueueFullError(self._retry_after(n_rows))
            self._jobs.extend(jobs)
            if not self._is_embedding and (batch := self._take()):
                self._embedding.submit(self._embed_all, batch)
        try:
            return [
                answer for answers in await asyncio.gather(*(j.answers for j in jobs)) for answer in answers
            ]
        finally:
            for job in jobs:  # of a request that was given up
                job.answers.cancel()
            if any(job.answers.cancelled() for job in jobs):  # its rows take no memory until the next batch
                with self._lock:
                    self._jobs = deque(job for job in self._jobs if not job.answers.done())

    async def close(self) -> None:
        """Finish what was asked for."""
        for pool in (self._embedding, self._answering):
            await asyncio.to_thread(pool.shutdown)

    def _count_waiting(self) -> int:
        return sum(len(job.rows) for job in self._jobs if not job.answers.done())

    def _retry_after(self, n_rows: int) -> int:
        return min(MOST_RETRY_SECONDS, max(1, math.ceil(n_rows * self._row_seconds)))

    def _embed_all(self, batch: _Batch | None) -> None:
        """Embed batch after batch until none waits; while one is embedded, only the one before is answered."""
        answering: list[Future[None]] = []
        while batch is not None:
            try:
                embedded = self._calls[batch.jobs[0].kind[0]].embed(batch.rows)
            except Exception as error:  # noqa: BLE001 - goes to whoever asked
                self._fail(batch, error)
            else:
                wait(answering)
                answering = [self._answering.submit(self._answer, batch, embedded)]
            with self._lock:
                batch = self._take()

    def _take(self) -> _Batch | None:
        """The oldest job and those of its kind that fit beside it, in order of arrival; None where no job waits."""
        jobs: list[_Job] = []
        passed_over: list[_Job] = []
        room = self._batch_rows
        while self._jobs and room:
            job = self._jobs.popleft()
            if job.answers.done():  # given up
                continue
            if jobs and (job.kind != jobs[0].kind or len(job.rows) > room):
                passed_over.append(job)
                continue
            jobs.append(job)
            room -= len(job.rows)
        self._jobs.extendleft(reversed(passed_over))
        self._is_embedding = bool(jobs)
        return self._begin(jobs) if jobs else None

    def _begin(self, jobs: Sequence[_Job]) -> _Batch:
        batch = _Batch(jobs, time.monotonic())
        self._at_work.append(batch)
        return batch

    def _answer(self, batch: _Batch, embedded: Any) -> None:
        name, interval = batch.jobs[0].kind
        try:
            answers = self._calls[name].answer(embedded, interval)
        except Exception as error:  # noqa: BLE001 - goes to whoever asked
            self._fail(batch, error)
            return
        self._end(batch)
        first = 0
        for job in batch.jobs:
            self._tell(job, _set_result, answers[first : first + len(job.rows)])
            first += len(job.rows)

    def _end(self, batch: _Batch) -> None:
        """Count an answered batch."""
        now, n_rows = time.monotonic(), len(batch.rows)
        with self._lock:
            self._at_work.remove(batch)
            # Batches overlap: a row takes as long as lies between the answers of two batches.
            seconds = now - max(batch.begun, self._last_answer)
            share = _MEMORY if self._row_seconds else 0.0
            self._row_seconds = share * self._row_seconds + (1 - share) * seconds / n_rows
            self._last_answer = now
        self._on_batch(batch.jobs[0].kind[0], n_rows, now - batch.begun)

    def _fail(self, batch: _Batch, error: Exception) -> None:
        """One request must not make the others of its batch fail: each is tried by itself."""
        self._on_error(error)
        with self._lock:
            self._at_work.remove(batch)
        if len(batch.jobs) == 1:
            self._tell(batch.jobs[0], _set_exception, error)
            return
        for job in batch.jobs:
            with self._lock:
                alone = self._begin([job])
            try:
                embedded = self._calls[job.kind[0]].embed(job.rows)
            except Exception as own:  # noqa: BLE001 - goes to whoever asked
                self._fail(alone, own)
            else:
                self._answer(alone, embedded)

    @staticmethod
    def _tell(job: _Job, how: Callable[..., None], what: Any) -> None:
        job.answers.get_loop().call_soon_threadsafe(how, job.answers, what)


def _set_result(future: "asyncio.Future[Any]", answers: Any) -> None:
    if not future.done():  # not given up
        future.set_result(answers)


def _set_exception(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
