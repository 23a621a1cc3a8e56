"""A process beside the one that downloads: it decodes, hashes and writes, so that neither waits for the other.

A decoder that crashes on a hostile image takes this process with it, not the run. It is spoken to over its standard
input and output: a batch is a line of JSON, a list with an object for each body, followed by the bytes of each; the
answer is a line of JSON. It ends when its input does, so also when the run is killed.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any, BinaryIO

from store.catalog.download.record import Journal
from store.catalog.download.storing import SPILL_BYTES, Body, Stored, keep, record_of, store_bodies
from store.catalog.images.open import quiet_pillow
from store.errors import ShelfpriceError, WorkspaceError
from store.workspace import Workspace

MAX_LINE_BYTES = 1 << 24
COPY_BYTES = 1 << 18
CRASHED = "broken image: crashes the decoder"


class StoreProcess:
    """Stores batches in a process of its own; a local workspace only."""

    def __init__(self, workspace: Workspace, journal: Journal, max_pixels: int) -> None:
        self._journal = journal  # of this process: for bodies that crashed the other one
        self._command = [sys.executable, "-P", "-m", __name__, workspace.root, str(max_pixels)]
        self._process: asyncio.subprocess.Process | None = None

    async def store(self, bodies: Sequence[Body]) -> list[Stored]:
        """Store bodies and close them, one call at a time.

        Raises:
            WorkspaceError: the workspace can't be written.
        """
        answer = await self._ask(bodies)
        if answer is None and len(bodies) > 1:  # find the body that crashed it
            return [one for body in bodies for one in await self.store([body])]
        for body in bodies:
            body.file.close()
        if answer is None:
            self._journal.write(record_of(body, None, CRASHED) for body in bodies if not body.keep)
            return [Stored(False, CRASHED)]
        if isinstance(answer, str):
            await self.close()
            raise WorkspaceError(answer)
        return [Stored(*one) for one in answer]

    async def close(self) -> int:
        """Wait for its end; returns its status, 0 where there was none."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return 0
        process.stdin.close()
        return await process.wait()

    async def _ask(self, bodies: Sequence[Body]) -> list[Any] | str | None:
        """The answer to a batch; None: a signal ended the process, as a crash does."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps([_described(body) for body in bodies]).encode() + b"\n")
            for body in bodies:
                body.file.seek(0)
                while chunk := body.file.read(COPY_BYTES):
                    stdin.write(chunk)
                    await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered, or has ended
        line = await stdout.readline()
        if not line.endswith(b"\n"):
            status = await self.close()
            if status >= 0:
                raise RuntimeError(f"the process that stores images ended with status {status}, see above")
            return None
        answer: list[Any] | str = json.loads(line)
        return answer


def _described(body: Body) -> dict[str, Any]:
    return {name: getattr(body, name) for name in Body.__dataclass_fields__ if name != "file"}


def serve(workspace: Workspace, max_pixels: int, source: BinaryIO, answers: BinaryIO) -> None:
    """Answer batches until there are no more, or one can't be written."""
    journal = Journal(workspace)
    with quiet_pillow():
        while line := source.readline():
            answer: list[Any] | str
            try:
                bodies = [Body(_received(source, one["n_bytes"]), **one) for one in json.loads(line)]
                results = store_bodies(workspace, journal, bodies, max_pixels)
                answer = [list(asdict(one).values()) for one in results]
            except ShelfpriceError as error:
                answer = str(error)
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
            if isinstance(answer, str):
                return  # the rest of the batch may not have been read


def _received(source: BinaryIO, n_bytes: int) -> IO[bytes]:
    file = tempfile.SpooledTemporaryFile(SPILL_BYTES)  # noqa: SIM115 - closed when stored
    while n_bytes > 0:
        chunk = source.read(min(n_bytes, COPY_BYTES))
        if not chunk:
            sys.exit(1)  # the run was killed in the midst of a body
        keep(file, chunk)
        n_bytes -= len(chunk)
    return file


def main(root: str, max_pixels: str) -> None:
    """Serve standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends us in its own time
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not be taken for an answer
    try:
        serve(Workspace(root), int(max_pixels), sys.stdin.buffer, answers)
    except BrokenPipeError:
        os._exit(1)  # nobody waits for the answer: the run was killed


if __name__ == "__main__":
    main(*sys.argv[1:])
