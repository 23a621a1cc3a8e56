"""Rows of concurrent requests are priced together, each answer reaching who asked."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from ensemble.serving.batcher import Batcher, QueueFullError


class Model:
    """Doubles numbers; waits for leave before each batch."""

    def __init__(self):
        self.batches = []
        self.leave = threading.Semaphore(0)

    def __call__(self, rows, interval):
        assert self.leave.acquire(timeout=30)
        self.batches.append(list(rows))
        if "bad" in rows:
            raise ValueError("bad row")
        return [2 * row for row in rows]

    def let(self, n=1000):
        self.leave.release(n)


def batcher_of(model, **limits):
    return Batcher({"price": model}, **({"batch_rows": 4, "waiting_rows": 100} | limits))


def ask(batcher, rows, interval=0.9):
    return asyncio.ensure_future(batcher.ask("price", rows, interval))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_idle_model_begins_at_once_and_what_comes_meanwhile_is_one_batch():
    async def run():
        model = Model()
        batcher = batcher_of(model)
        first = ask(batcher, [1])
        await settle()
        others = [ask(batcher, [n]) for n in (2, 3)] + [ask(batcher, [4, 5])]
        await settle()
        assert batcher.n_waiting == 4
        model.let()
        assert await first == [2]
        assert await asyncio.gather(*others) == [[4], [6], [8, 10]]
        assert model.batches == [[1], [2, 3, 4, 5]]
        await batcher.close()

    asyncio.run(run())


def test_a_long_request_is_cut_into_batches_and_comes_back_in_order():
    async def run():
        model = Model()
        model.let()
        seen = []
        batcher = batcher_of(model, on_batch=lambda *batch: seen.append(batch[:2]))
        assert await batcher.ask("price", list(range(10)), 0.9) == list(range(0, 20, 2))
        assert seen == [("price", 4), ("price", 4), ("price", 2)]

    asyncio.run(run())


def test_requests_for_other_intervals_never_share_a_batch():
    async def run():
        model = Model()
        batcher = batcher_of(model)
        asked = [ask(batcher, [n], 0.9 if n % 2 else 0.8) for n in range(6)]
        await settle()
        model.let()
        assert await asyncio.gather(*asked) == [[2 * n] for n in range(6)]
        assert sorted(model.batches) == [[0, 2, 4], [1, 3, 5]]

    asyncio.run(run())


def test_a_full_queue_refuses_and_says_when_to_come_again():
    async def run():
        model = Model()
        batcher = batcher_of(model, waiting_rows=5)
        at_work = ask(batcher, [1])
        await settle()
        waiting = ask(batcher, [1, 2, 3, 4])
        await settle()
        with pytest.raises(QueueFullError, match="try again in 1 s") as refused:
            await batcher.ask("price", [1, 2], 0.9)
        assert refused.value.retry_after == 1
        model.let()
        assert await at_work == [2]
        assert await waiting == [2, 4, 6, 8]
        assert await batcher.ask("price", [1, 2], 0.9) == [2, 4]

    asyncio.run(run())


def test_what_a_client_gave_up_is_never_priced_and_makes_room():
    async def run():
        model = Model()
        batcher = batcher_of(model, waiting_rows=2)
        at_work = ask(batcher, [1])
        await settle()
        given_up = ask(batcher, [7, 8])
        await settle()
        given_up.cancel()
        await settle()
        assert batcher.n_waiting == 0
        assert not batcher._jobs  # nor are its rows held, whose bytes count no longer
        kept = ask(batcher, [9])
        await settle()
        model.let()
        assert await at_work == [2]
        assert await kept == [18]
        assert model.batches == [[1], [9]]

    asyncio.run(run())


def test_a_request_that_the_model_stumbles_over_fails_alone():
    async def run():
        model, errors = Model(), []
        batcher = batcher_of(model, on_error=errors.append)
        first = ask(batcher, [0])
        await settle()
        good, bad, other = ask(batcher, [1]), ask(batcher, ["bad"]), ask(batcher, [2])
        await settle()
        model.let()
        assert await asyncio.gather(first, good, other) == [[0], [2], [4]]
        with pytest.raises(ValueError, match="bad row"):
            await bad
        assert await batcher.ask("price", [5], 0.9) == [10]
        assert len(errors) == 2

    asyncio.run(run())


def test_seconds_of_a_batch_are_its_own_though_another_failed_before(monkeypatch):
    clock, seen = [0.0], []

    def call(rows, interval):
        clock[0] += 1.0
        if "bad" in rows:
            raise ValueError("bad row")
        return rows

    async def run():
        batcher = batcher_of(call, on_batch=lambda *batch: seen.append(batch))
        asked = [ask(batcher, [row]) for row in (1, "bad", 2)]
        await asyncio.gather(*asked, return_exceptions=True)

    monkeypatch.setattr("ensemble.serving.batcher.time", SimpleNamespace(monotonic=lambda: clock[0]))
    asyncio.run(run())
    assert seen == [("price", 1, 1.0)] * 2


def test_closing_finishes_what_was_asked_for():
    async def run():
        model = Model()
        batcher = batcher_of(model)
        asked = [ask(batcher, [n]) for n in range(9)]
        await settle()
        closing = asyncio.ensure_future(batcher.close())
        model.let()
        await closing
        assert [one.result() for one in asked] == [[2 * n] for n in range(9)]

    asyncio.run(run())
