"""Rows of concurrent requests are priced together, each answer reaching who asked."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from ensemble.serving.batcher import Batcher, Call, QueueFullError


class Model:
    """Doubles numbers; waits for leave before it embeds each batch."""

    def __init__(self):
        self.batches = []
        self.leave = threading.Semaphore(0)

    def embed(self, rows):
        assert self.leave.acquire(timeout=30)
        self.batches.append(list(rows))
        if "bad" in rows:
            raise ValueError("bad row")
        return rows

    def answer(self, rows, interval):
        if "worse" in rows:
            raise ValueError("worse row")
        return [2 * row for row in rows]

    def let(self, n=1000):
        self.leave.release(n)


def batcher_of(model, **limits):
    call = Call(model.embed, model.answer)
    return Batcher({"price": call}, **({"batch_rows": 4, "waiting_rows": 100} | limits))


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
        asked = [ask(batcher, [n], 0.9 if n % 2 else 0.8) for n in range(7)]
        await settle()
        model.let()
        assert await asyncio.gather(*asked) == [[2 * n] for n in range(7)]
        assert model.batches == [[0], [1, 3, 5], [2, 4, 6]]

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


@pytest.mark.parametrize("kind", ["bad", "worse"])  # when it is embedded, when it is answered
def test_a_request_that_the_model_stumbles_over_fails_alone(kind):
    async def run():
        model, errors = Model(), []
        batcher = batcher_of(model, on_error=errors.append)
        first = ask(batcher, [0])
        await settle()
        good, bad, other = ask(batcher, [1]), ask(batcher, [kind]), ask(batcher, [2])
        await settle()
        model.let()
        assert await asyncio.gather(first, good, other) == [[0], [2], [4]]
        with pytest.raises(ValueError, match=f"{kind} row"):
            await bad
        assert await batcher.ask("price", [5], 0.9) == [10]
        assert len(errors) == 2
        assert batcher.busy_seconds == 0.0

    asyncio.run(run())


def test_seconds_of_a_batch_are_its_own_though_another_failed_before(monkeypatch):
    clock, seen = [0.0], []

    class Slow(Model):
        def embed(self, rows):
            clock[0] += 1.0
            return super().embed(rows)

    async def run():
        model = Slow()
        model.let()
        batcher = batcher_of(model, on_batch=lambda *batch: seen.append(batch))
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
        assert batcher.n_waiting == 0
        await settle()
        assert [one.result() for one in asked] == [[2 * n] for n in range(9)]


def test_while_a_batch_is_answered_the_next_is_embedded_and_no_further_one():
    async def run():
        model, answering, may_answer = Model(), threading.Event(), threading.Semaphore(0)

        class SlowToAnswer:
            embed = model.embed

            def answer(self, rows, interval):
                answering.set()
                assert may_answer.acquire(timeout=30)
                return model.answer(rows, interval)

        model.let()
        batcher = batcher_of(SlowToAnswer())
        asked = [ask(batcher, [n] * 4) for n in range(4)]
        await asyncio.to_thread(answering.wait, 30)
        while len(model.batches) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert model.batches == [[0] * 4, [1] * 4]
        assert batcher.n_waiting == 8
        assert batcher.busy_seconds > 0.1
        may_answer.release(4)
        assert await asyncio.gather(*asked) == [[2 * n] * 4 for n in range(4)]
        assert batcher.busy_seconds == 0.0

    asyncio.run(run())


def test_rows_take_as_long_as_lies_between_the_answers_of_batches_that_overlap(monkeypatch):
    clock = [0.0]

    class Steps(Model):
        def embed(self, rows):
            time.sleep(0.05)  # until the batch before is answered
            clock[0] += 30.0
            return rows

        def answer(self, rows, interval):
            return rows

    async def run():
        batcher = batcher_of(Steps(), batch_rows=1, waiting_rows=4)
        assert await batcher.ask("price", [1, 2, 3, 4], 0.9) == [1, 2, 3, 4]
        with pytest.raises(QueueFullError) as refused:
            await batcher.ask("price", list(range(5)), 0.9)
        assert refused.value.retry_after == 60
        assert batcher._row_seconds == pytest.approx(30.0)

    monkeypatch.setattr("ensemble.serving.batcher.time", SimpleNamespace(monotonic=lambda: clock[0]))
    asyncio.run(run())

    asyncio.run(run())
