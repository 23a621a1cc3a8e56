"""Runs the same work for several folds in parallel, each fold on one core.

A library that shares one small fit among cores synchronises them at every step, which takes longer than the work
itself, on a busy machine ten times as long.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

CONTROL_GROUP = Path("/sys/fs/cgroup")  # of a container

_this_thread = threading.local()
_blas = threading.Lock()  # held by who has limited BLAS


def n_cores(wanted: int = 0) -> int:
    """Cores that a library may use: one inside `each_on_a_core`, else `wanted`, or for 0 all there are."""
    if getattr(_this_thread, "has_one_core", False):
        return 1
    return wanted or len(os.sched_getaffinity(0))


@contextmanager
def on_one_core(libraries: "ThreadpoolController") -> Iterator[None]:
    """This thread computes on one core, for products so small that a second core would only be waited for.

    BLAS has one limit for the whole process: where threads are in here at once, the first one sets it and sets it back,
    as each of them would set back what it found.

    Args:
        libraries: those that are loaded.
    """
    before = getattr(_this_thread, "has_one_core", False)
    _this_thread.has_one_core = True
    try:
        with ExitStack() as limits:
            is_first = _blas.acquire(blocking=False)
            if is_first:
                limits.callback(_blas.release)
            own = libraries if is_first else libraries.select(user_api="openmp")
            limits.enter_context(own.limit(limits=1))
            yield
    finally:
        _this_thread.has_one_core = before


def each_on_a_core(work: Callable[[Item], Result], items: Iterable[Item], cores: int = 0) -> list[Result]:
    """`work` of each item, in the order of the items; each runs on one core, several at a time.

    `work` has to let other threads run where it takes long, as NumPy, SciPy and the boosters do. The first
    error that an item raises is raised here, once the items under way have ended.

    Args:
        cores: so many items at a time, 0: as many as there are cores.
    """
    from threadpoolctl import threadpool_limits

    listed = list(items)
    at_once = max(1, min(n_cores(cores), len(listed)))
    with threadpool_limits(limits=1), ThreadPoolExecutor(at_once, initializer=_take_one_core) as pool:
        return list(pool.map(work, listed))


def each_in_memory(work: Callable[[Item], Result], items: Iterable[Item], bytes_each: int) -> list[Result]:
    """As `each_on_a_core`, but only so many items at a time as there is memory for, and at least one.

    Args:
        bytes_each: about the memory that `work` takes.
    """
    return each_on_a_core(work, items, max(1, min(n_cores(), free_memory() // max(bytes_each, 1))))


def free_memory() -> int:
    """Bytes that this process can take: those of the machine, or what is left of the limit of its control group."""
    import psutil

    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError, KeyError):  # no control groups, or no limit: "max"
        limit, used = (int((CONTROL_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        parts = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
        given_up = int(parts["inactive_file"])  # when memory is asked for
        free = min(free, max(0, limit - used + given_up))
    return free


def _take_one_core() -> None:
    """OpenMP asks each thread for itself; BLAS is limited for all by the caller, who sets it back."""
    from threadpoolctl import threadpool_limits

    _this_thread.has_one_core = True
    threadpool_limits(limits=1, user_api="openmp")
