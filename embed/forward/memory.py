"""Inputs that do not fit into memory are halved until they do."""

from collections.abc import Callable
from typing import Any, TypeVar

from embed.inputs.batch import BatchLimit, units_of

T = TypeVar("T")


def within_memory(
    run: Callable[[tuple[Any, ...]], T],
    inputs: tuple[Any, ...],
    limit: BatchLimit,
    join: Callable[[list[T]], T],
    free: Callable[[], None] = lambda: None,
) -> T:
    """What `run` gives for inputs, in parts where they are too many.

    Args:
        inputs: arrays or tensors of the same length.
        limit: most units per pass; lowered when memory runs out.
        join: makes one of several results.
        free: gives back what memory the device holds unused, before the next try.

    Raises:
        RuntimeError: one input alone does not fit.
    """
    n = len(inputs[0])
    if n == 1 or units_of(inputs) <= limit.units:
        try:
            return run(inputs)
        except RuntimeError as error:
            if not is_out_of_memory(error) or n == 1:
                raise
        free()
        limit.units = max(1, units_of(inputs) // 2)
    middle = (n + 1) // 2
    parts = [tuple(a[:middle] for a in inputs), tuple(a[middle:] for a in inputs)]
    return join([within_memory(run, part, limit, join, free) for part in parts])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has no memory left, in the words of torch, OpenVINO or of what lies beneath them."""
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(
        words in text
        for words in (
            "out of memory",
            "alloc_failed",  # cuBLAS and cuDNN
            "can't allocate memory",
            "bad_alloc",
        )
    )
