"""Python that a page shows, run in the order shown, and its output held against the block that follows it."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"\d[\d,]*\.?\d*")
NEAR = 0.05  # relative: scores move a little with the processor


def run_snippets(page: Path) -> int:
    """Run every block of a page in one namespace, in the current folder; how many there were.

    Raises:
        AssertionError: a block prints something else than the `text` block after it.
    """
    names: dict[str, Any] = {"__name__": "snippets"}
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```)?", page.read_text(), re.M | re.S)
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), names)
        found = printed.getvalue()
        assert reads_alike(found, expected), (
            f"{page.name}: {code}\nprints\n{found}\nand the page says\n{expected}"
        )
    return len(blocks)


def reads_alike(found: str, expected: str) -> bool:
    """The same words, and numbers that differ by no more than `NEAR`; spaces count for one."""
    texts = [NUMBER.sub("#", " ".join(text.split())) for text in (found, expected)]
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (found, expected)]
    return texts[0] == texts[1] and all(abs(a - b) <= NEAR * max(a, b) for a, b in zip(*numbers, strict=True))
