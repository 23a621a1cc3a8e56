"""What a page shows: its code and commands, and output held against what they print."""

import doctest
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e-?\d+)?")
NEAR = 0.05  # relative: scores move a little with the processor
# What the command `shelfprice` does, line after line: libraries are imported once.
ONE_PROCESS = """
import json, sys
from store.cli import main
for line in json.loads(sys.argv[1]):
    print("$ shelfprice", *line, flush=True)
    try:
        main(line, "shelfprice")
    except SystemExit as end:
        if end.code:
            raise
"""


def blocks(page: Path, *languages: str) -> list[str]:
    """The code of a page's blocks in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def command_lines(page: Path) -> list[tuple[list[str], bool]]:
    """The words of every `shelfprice` line of a page, and whether it is a whole line of code or part of a sentence."""
    code = "".join(blocks(page, "", "sh")).replace("\\\n", " ")
    lines = [(line, True) for line in code.splitlines() if line.startswith("shelfprice ")]
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines += [(line, False) for line in re.findall(r"`(shelfprice [^`]+)`", text)]
    return [(shlex.split(line, comments=True)[1:], is_whole) for line, is_whole in lines]


def run_lines(lines: Sequence[Sequence[str]], folder: Path) -> str:
    """What the words after `shelfprice` print, run one after the other in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, json.dumps(lines)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def reads_alike(found: str, expected: str) -> bool:
    """The same words, and numbers that differ by no more than `NEAR`; spaces count for one."""
    texts = [NUMBER.sub("#", " ".join(text.split())) for text in (found, expected)]
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (found, expected)]
    return texts[0] == texts[1] and all(abs(a - b) <= NEAR * max(a, b) for a, b in zip(*numbers, strict=True))


class AboutChecker(doctest.OutputChecker):
    """Lets numbers of a score be about what is shown; whole numbers are exact."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if super().check_output(want, got, optionflags):
            return True
        return "." in want and reads_alike(got, want)


def copy_vectors(source: Path, workspace: Path, *, shards: bool = True) -> None:
    """Give a workspace the vectors of another, so that equal texts and images are not embedded again.

    Args:
        shards: False: only what was converted and measured; every vector is computed.
    """
    left_out = None if shards else shutil.ignore_patterns("part-*.parquet", "failed-*.parquet")
    shutil.copytree(source / "vectors", workspace / "vectors", ignore=left_out)
