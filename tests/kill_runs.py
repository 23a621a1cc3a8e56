"""Runs the job on a fake encoder in a child process and kills it with SIGKILL, again and again; imports no torch.

    python -m tests.kill_runs WORKSPACE TIMES SEED

Prints how many vectors were published after each kill.
"""

import os
import random
import signal
import sys
import time

from embed.job.run import EmbedOptions, run
from store.vectors.keys import key_array
from store.vectors.shard import read_keys
from store.workspace import Workspace
from tests.fake_encoders import fake_loader, fake_request


def main(root: str, times: int, seed: int) -> None:
    rng = random.Random(seed)
    workspace = Workspace(root)
    request = fake_request(workspace, "fake@name")
    for attempt in range(times):
        seen, tell = os.pipe()
        child = os.fork()
        if child == 0:
            load = fake_loader(seconds=0.01, on_batch=lambda n, tell=tell: os.write(tell, b"."))
            run(workspace, [request], EmbedOptions(shard_seconds=0.03), load, lambda line: None)
            os._exit(0)
        os.close(tell)
        if attempt % 4:  # in the midst of the work; every fourth at any moment, while planning too
            os.read(seen, 1)
        time.sleep(rng.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(seen)
        reader = os.fork()  # Arrow's threads must not be started in the process that forks
        if reader == 0:
            keys = key_array(read_keys(workspace, request.resolved.spec.folder))
            sys.stdout.write(f"{len(keys)}\n")
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(reader, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
