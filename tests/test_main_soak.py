"""`make soak` in small: some cases of every attack; and that it sees what it looks for."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.soak import verdict
from tests.soak.commands import Said, end, result_of, start

ATTACKS = ("tampering", "flips", "fuzz", "kills", "pairs", "disks")


def test_two_cases_of_every_attack_find_nothing(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    only = [word for name in ATTACKS for word in ("--only", name)]
    command = [sys.executable, "-m", "tests.soak", "--most", "2", "--minutes", "9", "--seed", "5", *only]
    done = subprocess.run(
        [*command, "--to", str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    said = "\n".join(path.read_text() for path in tmp_path.iterdir())
    assert done.returncode == 0, done.stdout + done.stderr + said
    assert "0 failures" in done.stdout
    assert tuple(re.findall(r"^(\w+): \d+ cases", done.stdout, re.MULTILINE)) == ATTACKS


def broken():
    raise ValueError("a fault")


@pytest.mark.parametrize(
    "action, fault",
    [
        (broken, "traceback"),
        (lambda: time.sleep(60), "hang"),
        (lambda: [None for _ in iter(int, 1)], "hang"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "crash"),
        (lambda: sys.exit("one line"), None),
    ],
)
def test_a_child_that_ends_badly_is_told_from_one_that_says_why(tmp_path, action, fault):
    with open(tmp_path / "output", "wb+") as output:
        code = end(start(action, output.fileno()), 0.3)
        output.seek(0)
        assert Said("", code, output.read().decode()).fault == fault


AGAIN = (1, "Error: x.json is damaged: run 'shelfprice heads run' again")


class FakeWorld:
    """Commands that say what they are told to, and a workspace that means what it is told to."""

    steps, looks, outcome = ("heads run",), (), {"submission": "a", "folds": "b"}
    usual = frozenset({"# rows, # that failed"})

    def __init__(self, said, found):
        self.said, self.found, self.ran = list(said), found, []

    def run(self, root, commands):
        for command in commands:
            self.ran.append(command)
            code, output = self.said.pop(0) if self.said else (0, "")
            yield Said(command, code, output)

    def meaning(self, root):
        return self.outcome | self.found


@pytest.mark.parametrize(
    "said, found, outcome",
    [
        ([], {}, "unchanged"),
        ([], {"submission": "c"}, "silent"),
        ([], {"folds": "c"}, "unread"),
        ([(0, "x.json was damaged and is written anew")], {"submission": "c"}, "noted"),
        ([(0, "8 rows, 0 that failed")], {"submission": "c"}, "silent"),
        ([(0, "x.json was damaged and is written anew")], {}, "healed"),
        ([(1, "Error: x.json is damaged: look at it")], {}, "stuck"),
        ([AGAIN], {}, "told"),
        ([AGAIN] * 3, {}, "stuck"),
        ([AGAIN, (1, "Error: 'shelfprice catalog clean' comes first"), (0, ""), AGAIN], {}, "told"),
        ([(1, "Traceback (most recent call last):")], {}, "traceback"),
        ([(None, "")], {}, "hang"),
    ],
)
def test_a_verdict_is_of_what_was_said_and_of_what_came_of_it(tmp_path, said, found, outcome):
    assert verdict.follow(FakeWorld(said, found), tmp_path, ("ensemble submit",), "x.json").outcome == outcome


def test_what_a_message_says_to_delete_is_deleted(tmp_path):
    (tmp_path / "folds.parquet").mkdir()
    message = f"Error: can't read {tmp_path}/folds.parquet: Is a directory: delete it, then run 'shelfprice heads run'"
    world = FakeWorld([(1, message)], {})
    assert verdict.follow(world, tmp_path, ("ensemble submit",), "folds.parquet").outcome == "told"
    assert not (tmp_path / "folds.parquet").exists()


def test_a_function_in_a_child_returns_plain_data_or_says_how_it_ended():
    assert result_of(lambda: {"a": [1, None]}) == {"a": [1, None]}
    with pytest.raises(RuntimeError, match="a fault"):
        result_of(broken)
