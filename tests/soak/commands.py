"""Commands of shelfprice, each in a forked child: what it said, whether it ended in a traceback, hung or crashed.

The process that forks has imported every library and started no thread of Arrow, so that a child is ready in
milliseconds and is as good as a new process.
"""

import importlib
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
from typing import Any

HANG_SECONDS = 120.0
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
    *("heads.kernels", "heads.networks", "heads.trees"),
)


@dataclass(frozen=True)
class Said:
    """How a command came out."""

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
    """Import all that a command may need, so that children need not."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for room in ("store", "embed", "heads", "ensemble"):
        package = importlib.import_module(room)
        for one in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not one.name.startswith(RARE):
                importlib.import_module(one.name)
    from tests.soak import encoder

    encoder.register()


def start(action: Callable[[], Any], output: int) -> int:
    """Fork a child that does it, its stdout and stderr going to a file; the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
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


def end(child: int, seconds: float = HANG_SECONDS) -> int | None:
    """Wait for a child: its exit code, negative for a signal; None where it had to be killed."""
    until, pause = time.monotonic() + seconds, 0.0005
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    kill(child)
    return None


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
