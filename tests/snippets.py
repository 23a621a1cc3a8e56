"""Output that a page shows, held against what its Python prints."""

import doctest
import re
import shutil
from pathlib import Path

NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e-?\d+)?")
NEAR = 0.05  # relative: scores move a little with the processor


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
