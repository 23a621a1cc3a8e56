"""A line on stderr that is updated while work goes on; none where stderr is no terminal."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tqdm import tqdm

SECONDS = 1.0  # between two moves
MOST_CHARACTERS = 60  # of what is said, so that the line fits into 80 columns


class Moving:
    """What is being done now; the time beside it is updated by a thread."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar = bar

    def say(self, text: str) -> None:
        """Replace what is said."""
        one_line = " ".join(text.split())
        cut = one_line if len(one_line) <= MOST_CHARACTERS else f"{one_line[: MOST_CHARACTERS - 1]}…"
        self._bar.set_description_str(cut)

    def above(self) -> AbstractContextManager[None]:
        """Lines printed inside stand above it."""
        return self._bar.external_write_mode()


@contextmanager
def moving(text: str) -> Iterator[Moving]:
    """Show `text` and the seconds since, which move at least every second."""
    with tqdm(
        desc=text, bar_format="{desc}: {elapsed}", disable=None, leave=False, dynamic_ncols=True
    ) as bar:
        done = threading.Event()

        def refresh() -> None:
            while not done.wait(SECONDS):
                bar.refresh()

        thread = threading.Thread(target=refresh, daemon=True)
        if not bar.disable:
            thread.start()
        try:
            yield Moving(bar)
        finally:
            done.set()
            if thread.is_alive():
                thread.join()
