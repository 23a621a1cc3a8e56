import threading

import pytest

from embed.forward.prefetch import Prefetch


def test_items_come_in_order():
    with Prefetch(iter(range(50))) as ahead:
        assert list(ahead) == list(range(50))


def test_an_error_of_the_source_is_raised_where_its_item_would_have_come():
    def broken():
        yield 1
        raise ValueError("no second item")

    with Prefetch(broken()) as ahead:
        items = iter(ahead)
        assert next(items) == 1
        with pytest.raises(ValueError, match="no second item"):
            next(items)


def test_no_more_is_computed_ahead_than_asked_for():
    computed = []
    enough = threading.Event()

    def source():
        for i in range(100):
            computed.append(i)
            if i == 3:
                enough.set()
            yield i

    with Prefetch(source(), depth=2) as ahead:
        items = iter(ahead)
        next(items)
        assert enough.wait(5)  # one taken, two waiting, one in hand
        assert len(computed) <= 5


def test_leaving_early_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with Prefetch(source()) as ahead:
        next(iter(ahead))
    assert closed.is_set()
    assert not any(thread.name == "prepare" and thread.is_alive() for thread in threading.enumerate())
