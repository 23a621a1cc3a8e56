"""Hands bodies on to be stored, in batches and several at a time, while others download."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from store.catalog.download.process import StoreProcess
from store.catalog.download.record import Journal
from store.catalog.download.storing import Body, Stored, store_bodies
from store.workspace import Workspace

BATCH_BODIES = 32
BATCH_BYTES = 4_000_000
AT_A_TIME = 2


class Store(Protocol):
    """Stores one batch at a time."""

    async def store(self, bodies: Sequence[Body]) -> list[Stored]: ...

    async def close(self) -> object: ...


class StoreThread:
    """Stores in a thread: for object stores, where it waits for the network most of the time."""

    def __init__(self, workspace: Workspace, journal: Journal, max_pixels: int) -> None:
        self._workspace, self._journal, self._max_pixels = workspace, journal, max_pixels
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def store(self, bodies: Sequence[Body]) -> list[Stored]:
        """Raises WorkspaceError where the workspace can't be written."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, store_bodies, self._workspace, self._journal, bodies, self._max_pixels
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)


class Storer:
    """Batches bodies; each caller awaits the result of its own. Use as an async context manager."""

    def __init__(self, workspace: Workspace, journal: Journal, max_pixels: int) -> None:
        self._stores: list[Store] = [
            (StoreProcess if workspace.is_local else StoreThread)(workspace, journal, max_pixels)
            for _ in range(AT_A_TIME)
        ]
        self._waiting: asyncio.Queue[tuple[Body, asyncio.Future[Stored]]] = asyncio.Queue()
        self._idle = [asyncio.Lock() for _ in self._stores]
        self._tasks: list[asyncio.Task[None]] = []

    async def put(self, body: Body) -> Stored:
        """Store one body.

        Raises:
            WorkspaceError: the workspace can't be written.
        """
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((body, future))
        return await future

    async def __aenter__(self) -> "Storer":
        self._tasks = [
            asyncio.create_task(self._work(store, idle))
            for store, idle in zip(self._stores, self._idle, strict=True)
        ]
        return self

    async def __aexit__(self, *error: object) -> None:
        """Wait for what is under way; what waits is dropped."""
        async with self.paused():
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for store in self._stores:
            await store.close()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nothing is written meanwhile; bodies go on arriving and wait."""
        async with AsyncExitStack() as stack:
            for idle in self._idle:
                await stack.enter_async_context(idle)
            yield

    async def _work(self, store: Store, idle: asyncio.Lock) -> None:
        while True:
            first = await self._waiting.get()
            async with idle:
                await self._store(store, self._batch(first))

    def _batch(self, first: tuple[Body, asyncio.Future[Stored]]) -> list[tuple[Body, asyncio.Future[Stored]]]:
        batch, n_bytes = [first], first[0].n_bytes
        while len(batch) < BATCH_BODIES and n_bytes < BATCH_BYTES and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
            n_bytes += batch[-1][0].n_bytes
        return batch

    async def _store(self, store: Store, batch: list[tuple[Body, asyncio.Future[Stored]]]) -> None:
        try:
            results = await store.store([body for body, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised where the body was put
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
