"""Texts -> batches of about equal padded size: sorted by length within a window, no padding to the maximum."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from embed.encoders.base import Tokens
from embed.inputs.batch import Batch, BatchLimit, RowWindow, padded_length

FIRST_ROWS = 512  # of a run are tokenised before its first pass


def plan_batches(lengths: np.ndarray, counts: np.ndarray, budget: int) -> list[np.ndarray]:
    """Group texts so that each batch, padded to its longest sequence, stays within a token budget.

    Args:
        lengths: longest sequence of each text, shape (n_texts,), > 0.
        counts: sequences of each text (1, or more where it was cut into chunks), shape (n_texts,).
        budget: padded tokens of a batch; a text that alone exceeds it is a batch of its own.

    Returns:
        Positions of each batch's texts; every position once, longest batches first.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    start, n_sequences = 0, 0
    for at, position in enumerate(order):
        n_sequences += int(counts[position])
        if at > start and n_sequences * int(lengths[order[start]]) > budget:
            batches.append(order[start:at])
            start, n_sequences = at, int(counts[position])
    if len(order):
        batches.append(order[start:])
    return batches


def _growing(window: RowWindow) -> Iterator[RowWindow]:
    """A large window in parts, each twice the one before: the model need not wait for all of it to be tokenised."""
    start, n = 0, FIRST_ROWS if len(window.keys) > 2 * FIRST_ROWS else len(window.keys)
    while start < len(window.keys):
        yield replace(
            window, keys=window.keys[start : start + n], contents=window.contents[start : start + n]
        )
        start, n = start + n, 2 * n


class TextPreparer:
    """Tokenises window by window; see `Preparer`.

    Args:
        tokenize: of the encoder.
        pad_id: token id of padding.
        limit: most padded tokens per forward pass.
        max_tokens: of a text; see `padded_length`.
    """

    def __init__(
        self,
        tokenize: Callable[[Sequence[str]], Tokens],
        pad_id: int,
        limit: BatchLimit,
        max_tokens: int = 0,
    ) -> None:
        self.limit = limit
        self._tokenize = tokenize
        self._pad_id = pad_id
        self._max_tokens = max_tokens

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        first = next(windows, None)
        if first is None:
            return
        for window in itertools.chain(_growing(first), windows):
            yield from self._window(window)

    def _window(self, window: RowWindow) -> Iterator[Batch]:
        tokens = self._tokenize(window.contents)
        sizes = np.array([len(sequence) for sequence in tokens.sequences])
        counts = np.bincount(tokens.owner, minlength=len(window.keys))
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])  # position of each text's first sequence
        lengths = np.maximum(padded_length(np.maximum.reduceat(sizes, first), self._max_tokens), 1)
        chunked = bool((counts > 1).any())
        weights = sizes if tokens.weights is None else tokens.weights
        n_truncated = tokens.n_truncated
        for rows in plan_batches(lengths, counts, self.limit.units):
            at = (
                np.concatenate([np.arange(first[r], first[r] + counts[r]) for r in rows]) if chunked else rows
            )
            yield Batch(
                window.vector_set,
                [window.keys[r] for r in rows.tolist()],
                padded([tokens.sequences[i] for i in at.tolist()], self._pad_id, self._max_tokens),
                owner=np.repeat(np.arange(len(rows)), counts[rows]) if chunked else None,
                weights=weights[at] if chunked else None,
                n_truncated=n_truncated,
            )
            n_truncated = 0  # counted with the window's first batch


def padded(
    sequences: Sequence[np.ndarray], pad_id: int, max_tokens: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of token sequences, shape (n_sequences, longest) int64, padded on the right; see `padded_length`.

    Where no sequence has a token, they are padded all the same: a model can't take arrays without columns.
    """
    sizes = np.array([len(sequence) for sequence in sequences])
    is_token = np.arange(padded_length(max(int(sizes.max()), 1), max_tokens)) < sizes[:, None]
    ids = np.full(is_token.shape, pad_id, dtype=np.int64)
    ids[is_token] = np.concatenate(sequences)
    return ids, is_token.astype(np.int64)
