"""Data that the source of contents, the workers that prepare inputs and the model exchange."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from embed.inputs import InputFailure


@dataclass(frozen=True)
class ImageReader:
    """Where the bytes of images come from."""

    read: Callable[
        [str], bytes
    ]  # by what a window's `contents` hold; an OSError or WorkspaceError is a failure
    waits: bool = False  # on a network: several are asked for at once
    # By the same, the local file that holds those bytes and their hex SHA-256; None where they are no file's.
    file: Callable[[str], tuple[str, str] | None] = lambda content: None


@dataclass(frozen=True)
class RowWindow:
    """Rows to embed, in the order of their source."""

    vector_set: str  # whose rows these are, for what is reported
    keys: list[bytes]  # content keys, distinct
    # Texts, or what `images` reads by: hex SHA-256. For image and text together both, with a line break between them;
    # either may be empty.
    contents: list[str]
    images: ImageReader | None = None  # None: contents are texts

    def sample(self, n_rows: int) -> "RowWindow":
        """At most so many of the rows, spread over the window."""
        step = max(1, len(self.keys) // n_rows)
        chosen = slice(None, n_rows * step, step)
        return replace(self, keys=self.keys[chosen], contents=self.contents[chosen])


@dataclass(frozen=True)
class Batch:
    """One forward pass."""

    vector_set: str
    keys: list[bytes]  # one per vector
    arrays: tuple[np.ndarray, ...]  # first axis: sequences or images, (n_inputs, ...)
    owner: np.ndarray | None = None  # (n_inputs,): which key an input belongs to; None: one each, in order
    weights: np.ndarray | None = (
        None  # (n_inputs,): share of an input in its key's vector, where `owner` is given
    )
    failures: list[tuple[bytes, InputFailure]] = field(default_factory=list)  # inputs that are in no batch
    n_truncated: int = 0  # texts of this batch that lost tokens, or images whose file lacks its end

    @property
    def units(self) -> int:
        """Size as `BatchLimit` counts it: padded tokens, or images."""
        return units_of(self.arrays)


def units_of(arrays: tuple[Any, ...]) -> int:
    """Padded tokens of token ids (two axes) or of patches (three), or images (four); arrays or tensors."""
    shape = arrays[0].shape
    return math.prod(shape[:2]) if len(shape) < 4 else int(shape[0])


def padded_length(longest: Any, most: int) -> Any:
    """Tokens that the rows of a batch are padded to: of the longest row, or one more.

    On CUDA torch's attention with a mask is wrong for 32 n + 1 keys where one head of keys serves all heads of queries,
    as in Gemma: github.com/pytorch/pytorch/issues/191937. The longest that a model takes may be such a length:
    `avoid_wrong_attention`.

    Args:
        longest: an integer, or an array of them.
        most: tokens that the model takes; 0: it is never one more.
    """
    return longest + ((longest % 32 == 1) & (longest < most))


@dataclass
class BatchLimit:
    """Most units per forward pass; the model halves it when memory runs out, the preparers read it."""

    units: int


class Preparer(Protocol):
    """Windows -> batches; called in a background thread, ahead of the model."""

    limit: BatchLimit

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        """Every row of every window in exactly one batch or failure, in any order."""
