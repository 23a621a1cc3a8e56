"""Images hashed in processes of their own: decoders hold the interpreter's lock, so threads share one core.

Each is given digests on its standard input, a line each, and answers with a line of JSON for each.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from store.catalog.clean.images import Hashed, hashes_of
from store.errors import CatalogError
from store.workspace import Workspace

LEAST_EACH = 1_000  # images: a process for fewer takes longer to start than it saves


def hashes_in_processes(workspace: Workspace, digests: list[str], processes: int) -> list[Hashed]:
    """Shape and colour of each image, in the order given.

    Raises:
        CatalogError: a process died of it.
    """
    n = max(1, min(processes, len(digests) // LEAST_EACH))
    with tqdm(total=len(digests), desc="image hashes", unit="image", disable=None) as bar:
        if n == 1:
            return list(_told(hashes_of(workspace, digests), bar))
        size = -(-len(digests) // n)
        slices = [digests[start : start + size] for start in range(0, len(digests), size)]
        with ThreadPoolExecutor(len(slices)) as pool:  # threads that wait for the processes
            parts = pool.map(lambda part: list(_told(_in_process(workspace, part), bar)), slices)
            return [one for part in parts for one in part]


def _told(hashed: Iterator[Hashed], bar: "tqdm[Any]") -> Iterator[Hashed]:
    for one in hashed:
        bar.update(1)
        yield one


def _in_process(workspace: Workspace, digests: list[str]) -> Iterator[Hashed]:
    command = [sys.executable, "-m", __name__, workspace.root]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    n_done = 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died before it had read them: told below
            process.stdin.write("".join(f"{digest}\n" for digest in digests))
            process.stdin.close()
        for line in process.stdout:
            digest, value, reason = json.loads(line)
            n_done += 1
            yield digest, None if value is None else base64.b64decode(value), reason
    if n_done < len(digests):
        raise CatalogError(
            f"a process that hashes images ended with status {process.returncode} after {n_done} of {len(digests)}, "
            "killed or out of memory: run 'shelfprice catalog clean --processes 1'"
        )


def main(root: str) -> None:
    """Read all digests, then answer for each."""
    digests = sys.stdin.read().split()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not be taken for an answer
    for digest, value, reason in hashes_of(Workspace(root), digests):
        answers.write(json.dumps([digest, value and base64.b64encode(value).decode(), reason]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
