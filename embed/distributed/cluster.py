"""A connection to a Ray cluster, or a local Ray of its own; made when a model is first needed, closed at the end."""

import contextlib
import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from embed.distributed.layout import ClusterLayout, WantedActors, lay_out
from embed.forward.devices import cores
from store.errors import ConfigError, EngineError, ShelfpriceError

LOCAL_STORE_BYTES = 2 * 2**30  # most of a local Ray's object store: decoded images on their way
LEAST_STORE_BYTES = 128 * 2**20


class Cluster:
    """Args:
    wanted: actors and GPUs, as far as the user said.
    address: of a running cluster; None: a local Ray, started here and stopped at the end.
    give_up_seconds: nothing scheduled, or no progress at all, for so long is an error.
    """

    def __init__(self, wanted: WantedActors, address: str | None, give_up_seconds: float) -> None:
        self.give_up_seconds = give_up_seconds
        self._wanted = wanted
        self._address = address
        self._layout: ClusterLayout | None = None
        self._is_ours = False

    def connect(self) -> ClusterLayout:
        """Connect, once, and divide the cluster.

        Raises:
            EngineError: there is no such cluster, or it can't hold what was asked for.
        """
        if self._layout is not None:
            return self._layout
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own files say more than stderr
            os.environ.setdefault("RAY_worker_niceness", "0")  # as urgent as a local run
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self._address is None:
                options |= {
                    "address": "local",
                    "num_cpus": cores(),
                    "include_dashboard": False,
                    "object_store_memory": _store_bytes(),
                }
            else:
                options["address"] = self._address
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                where = self._address or "this machine"
                raise EngineError(f"no Ray at {where}: {_in_a_line(error)}") from error
            self._is_ours = True
        quiet_data()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._layout = lay_out([(n.get("CPU", 0.0), n.get("GPU", 0.0)) for n in nodes], self._wanted)
        return self._layout

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            import ray

            ray.shutdown()


def check_installed() -> None:
    """Raises ConfigError that names the extra where Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("--engine ray needs Ray, which is not installed: pip install 'shelfprice[ray]'")


def quiet_data() -> None:
    """Ray Data logs to its own files; what people see is the job's."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """Ray's errors as ours: the error of a task or an actor if it is one of ours, else one line of Ray's."""
    from ray.data.exceptions import ExecutionTimeoutError, SystemException
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ExecutionTimeoutError, SystemException, ConnectionError, TimeoutError) as error:
        raise _ours(error) or EngineError(
            f"{what}: {_in_a_line(error)}: what was published stays, run the command again to go on"
        ) from error


def _ours(error: BaseException | None) -> ShelfpriceError | None:
    """The error of ours that a chain of errors began with."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or one in seen:
            continue
        seen.append(one)
        if isinstance(one, ShelfpriceError) and type(one).__module__ == "store.errors":
            return one
        waiting += [one.__cause__, one.__context__, getattr(one, "cause", None)]
    return None


def _in_a_line(error: BaseException) -> str:
    """The message of one of Ray's errors, without the place before it and the advice after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if lines[0].startswith("ray::") else lines[0]


def _store_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(LEAST_STORE_BYTES, min(LOCAL_STORE_BYTES, total // 5))
