"""Rows of many requests, priced together: rows that arrive while the model works on one batch are its next batch."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Call = Callable[[Sequence[Row], float], Sequence[Any]]  # rows, interval -> an answer for each
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


@dataclass(eq=False)
class _Job:
    """A part of one request, at most a batch."""

    kind: tuple[str, float]  # jobs of one kind can be priced together
    rows: Sequence[Row]
    answers: "asyncio.Future[Sequence[Any]]"


class Batcher:
    """Gathers rows of concurrent requests into batches without delaying any of them.

    A request is never delayed to fill a batch: an idle model begins at once. Under load, all that arrived
    during one batch forms the next one.

    Args:
        calls: name -> function of the model that answers a batch, called in a thread.
        on_batch: told of every finished batch: its name, rows and seconds.
        on_error: told of an exception of the model.
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
        self._jobs: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._running: asyncio.Task[None] | None = None
        self._begun = 0.0
        self._row_seconds = 0.0

    @property
    def n_waiting(self) -> int:
        """Rows that the model has not begun."""
        return sum(len(job.rows) for job in self._jobs if not job.answers.done())

    @property
    def busy_seconds(self) -> float:
        """Since the batch at work was begun; 0 where there is none."""
        return time.monotonic() - self._begun if self._running else 0.0

    async def ask(self, name: str, rows: Sequence[Row], interval: float) -> list[Any]:
        """An answer for each row, in their order.

        Raises:
            QueueFullError: there is no room for them.
        """
        n_waiting = self.n_waiting
        if n_waiting + len(rows) > self._most_waiting:
            raise QueueFullError(self._retry_after(n_waiting + len(rows)))
        loop = asyncio.get_running_loop()
        jobs = [
            _Job((name, interval), rows[first : first + self._batch_rows], loop.create_future())
            for first in range(0, len(rows), self._batch_rows)
        ]
        self._jobs.extend(jobs)
        if self._running is None:
            self._running = loop.create_task(self._run())
        try:
            return [
                answer for answers in await asyncio.gather(*(j.answers for j in jobs)) for answer in answers
            ]
        finally:
            for job in jobs:  # of a request that was given up
                job.answers.cancel()
            if any(job.answers.cancelled() for job in jobs):  # its rows take no memory until the next batch
                self._jobs = deque(job for job in self._jobs if not job.answers.done())

    async def close(self) -> None:
        """Finish what was asked for."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    def _retry_after(self, n_rows: int) -> int:
        return min(MOST_RETRY_SECONDS, max(1, math.ceil(n_rows * self._row_seconds)))

    async def _run(self) -> None:
        while batch := self._take():
            await self._answer(batch)
        self._running = None

    def _take(self) -> list[_Job]:
        """The oldest job and those of its kind that fit beside it, in order of arrival."""
        batch: list[_Job] = []
        passed_over: list[_Job] = []
        room = self._batch_rows
        while self._jobs and room:
            job = self._jobs.popleft()
            if job.answers.done():  # given up
                continue
            if batch and (job.kind != batch[0].kind or len(job.rows) > room):
                passed_over.append(job)
                continue
            batch.append(job)
            room -= len(job.rows)
        self._jobs.extendleft(reversed(passed_over))
        return batch

    async def _answer(self, batch: Sequence[_Job]) -> None:
        name, interval = batch[0].kind
        rows = [row for job in batch for row in job.rows]
        self._begun = time.monotonic()
        try:
            answers = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._calls[name], rows, interval
            )
        except Exception as error:  # noqa: BLE001 - goes to whoever asked
            self._on_error(error)
            if len(batch) > 1:  # one request must not make the others of its batch fail
                for job in batch:
                    await self._answer([job])
            elif not batch[0].answers.done():
                batch[0].answers.set_exception(error)
            return
        seconds = time.monotonic() - self._begun
        share = _MEMORY if self._row_seconds else 0.0
        self._row_seconds = share * self._row_seconds + (1 - share) * seconds / len(rows)
        self._on_batch(name, len(rows), seconds)
        first = 0
        for job in batch:
            if not job.answers.done():
                job.answers.set_result(answers[first : first + len(job.rows)])
            first += len(job.rows)
