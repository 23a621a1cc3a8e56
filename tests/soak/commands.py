"""Commands of shelfprice, each in a forked child: what it said, whether it ended in a traceback, hung or crashed.

The process that forks has imported every library and started no thread of Arrow, so that a child is ready in
milliseconds and is as good as a new process.
"""

import ctypes
import gc
import importlib
import importlib.metadata
import io
import json
import os
import pkgutil
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG_SECONDS = 120.0
MOST_WAITS = 10  # times that, for a child that others keep from the processor
LIBC = ctypes.CDLL(None)
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_CAPBSET_DROP, CAPABILITIES_VERSION = 24, 0x20080522
TRACEBACK = "Traceback (most recent call last)"
LIBRARIES = (
    "pyarrow.parquet",
    "pyarrow.compute",
    "torch",
    "sklearn.linear_model",
    "scipy.sparse",
    "PIL.Image",
)

RARE = (  # rooms whose libraries the workspace of these attacks never asks for
    *("embed.distributed", "embed.encoders.libraries", "embed.export", "embed.finetune"),
    *("heads.kernels.kernel_ridge", "heads.kernels.mixture"),
    *("heads.networks", "heads.trees"),
)


@dataclass(frozen=True)
class Said:
    """The result of a command."""

    line: str
    code: int | None  # None: killed after HANG_SECONDS; negative: by a signal
    output: str

    @property
    def fault(self) -> str | None:
        """What no command may end in; None where it did not."""
        if self.code is None:
            return "hang"
        if self.code < 0:
            return "crash"
        return "traceback" if TRACEBACK in self.output else None


def prepare() -> None:
    """Import all that a command may need, and read the entry points of all packages, so that children need not."""
    points = importlib.metadata.entry_points()
    importlib.metadata.entry_points = lambda **wanted: points.select(**wanted)
    for name in LIBRARIES:
        importlib.import_module(name)
    for room in ("store", "embed", "heads", "ensemble"):
        package = importlib.import_module(room)
        for one in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not one.name.startswith(RARE):
                importlib.import_module(one.name)
    from tests.soak import encoder

    encoder.register()
    gc.collect()
    gc.freeze()  # a child that collects copies no page of what is there already


def start(action: Callable[[], Any], output: int) -> int:
    """Fork a child that does it, its stdout and stderr going to a file; the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        as_a_user()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), "utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), "utf-8", write_through=True)
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - it is what is looked for
        traceback.print_exc()
        code = 1
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def as_a_user() -> None:
    """Give up root's right to pass over the permissions of files, for good."""
    for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) if os.getuid() == 0 else ():
        LIBC.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    if os.getuid() == 0 and LIBC.capget(header, sets) == 0:
        for at in range(3):  # effective, permitted, inheritable
            sets[at] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
        LIBC.capset(header, sets)


def end(child: int, seconds: float = HANG_SECONDS) -> int | None:
    """Wait for a child: its exit code, negative for a signal; None where it had to be killed."""
    started, pause = time.monotonic(), 0.0005
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - started
        if passed > seconds and (passed > MOST_WAITS * seconds or not waits_for_cpu(child, seconds)):
            kill(child)
            return None
        time.sleep(pause)
        pause = min(0.02, pause * 1.5) if passed < seconds else 1.0


def waits_for_cpu(child: int, seconds: float) -> bool:
    """Whether a child, or one of its own, could go on and has had less processor time than this: others keep it from it."""
    used, is_runnable = 0.0, False
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session, *rest = stat.read_text().rpartition(") ")[2].split()
            if int(session) == child:
                is_runnable |= state in "RD"
                used += (int(rest[7]) + int(rest[8])) / os.sysconf("SC_CLK_TCK")
    return is_runnable and used < seconds


def kill(child: int) -> None:
    """End a child and all that it started, at once."""
    for what in (lambda: os.killpg(child, signal.SIGKILL), lambda: os.kill(child, signal.SIGKILL)):
        with suppress(ProcessLookupError, PermissionError):
            what()
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def command(arguments: Sequence[str]) -> Callable[[], None]:
    """What runs one command line of shelfprice, as the installed program does."""

    def run() -> None:
        from store.cli import main

        main(list(arguments), prog_name="shelfprice")

    return run


def shelfprice(*arguments: str, seconds: float = HANG_SECONDS) -> Said:
    """Run one command to its end."""
    with tempfile.TemporaryFile() as output:
        code = end(start(command(arguments), output.fileno()), seconds)
        output.seek(0)
        return Said(shlex.join(arguments), code, output.read().decode("utf-8", "replace"))


def result_of(function: Callable[[], Any], seconds: float = HANG_SECONDS) -> Any:
    """What a function returns, plain data, in a forked child, which alone starts threads.

    Raises:
        RuntimeError: it did not come to an end; holds what it said.
    """
    with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile() as result:

        def action() -> None:
            with open(result.name, "w") as file:
                json.dump(function(), file)

        code = end(start(action, output.fileno()), seconds)
        if code != 0:
            output.seek(0)
            raise RuntimeError(f"ended with {code}: {output.read().decode('utf-8', 'replace')}")
        return json.load(result)
