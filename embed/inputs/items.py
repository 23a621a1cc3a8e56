"""Rows of models that prepare their inputs themselves -> batches of about equal padded size: images of any size, images with texts."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from embed.encoders.base import Item, RowContent
from embed.inputs import InputFailure
from embed.inputs.batch import Batch, BatchLimit, ImageReader, RowWindow, padded_length
from embed.inputs.decoded import read_image
from embed.inputs.image_batches import THREADS_THAT_WAIT
from embed.inputs.images import decode_whole
from embed.inputs.texts import plan_batches
from store.catalog.images.open import quiet_pillow

BATCHES_TOGETHER = 8  # so many batches of rows are sorted by length together
BYTES_TOGETHER = 512 * 2**20  # of prepared rows, at most


class ItemPreparer:
    """Opens images with a pool of threads and prepares rows one by one; see `Preparer`.

    Args:
        prepare: of the encoder.
        fills: of the encoder.
        limit: most padded tokens or patches per forward pass.
        n_threads: that read and open images; more where reading waits.
        max_tokens: of a row with text; see `padded_length`.
    """

    def __init__(
        self,
        prepare: Callable[[RowContent], Item | InputFailure],
        fills: Sequence[int],
        limit: BatchLimit,
        n_threads: int,
        max_tokens: int = 0,
    ) -> None:
        self.limit = limit
        self._prepare, self._fills, self._n_threads = prepare, fills, n_threads
        self._max_tokens = max_tokens

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        gathered = _Gathered()
        for label, key, content in self._contents(windows):
            prepared = self._prepare(content) if isinstance(content, RowContent) else content
            if gathered.keys and (label != gathered.label or gathered.is_full(self.limit)):
                yield from self._batches_of(gathered)
                gathered = _Gathered()
            gathered.add(label, key, prepared)
        yield from self._batches_of(gathered)

    def _batches_of(self, gathered: "_Gathered") -> Iterator[Batch]:
        failures = gathered.failures
        for group in gathered.alike():  # arrays of other inner shapes can't be stacked
            items = [gathered.items[at] for at in group]
            lengths = padded_length(np.array([len(item.arrays[0]) for item in items]), self._max_tokens)
            for rows in plan_batches(lengths, np.ones(len(items), np.int64), self.limit.units):
                chosen = [items[row] for row in rows]
                yield Batch(
                    gathered.label,
                    [gathered.keys[group[row]] for row in rows],
                    stacked(chosen, self._fills, self._max_tokens),
                    failures=failures,
                    n_truncated=sum(item.is_truncated for item in chosen),
                )
                failures = []
        if failures:
            yield Batch(gathered.label, [], (), failures=failures)

    def _contents(
        self, windows: Iterator[RowWindow]
    ) -> Iterator[tuple[str, bytes, RowContent | InputFailure]]:
        first = next(windows, None)
        if first is None:
            return
        ahead: deque[tuple[str, bytes, Future[RowContent | InputFailure]]] = deque()
        n_threads = self._n_threads * (THREADS_THAT_WAIT if first.images and first.images.waits else 1)
        with quiet_pillow(), ThreadPoolExecutor(n_threads, thread_name_prefix="decode") as pool:
            try:
                for window in itertools.chain([first], windows):
                    for key, content in zip(window.keys, window.contents, strict=True):
                        future = pool.submit(read_content, window.images, content)
                        ahead.append((window.vector_set, key, future))
                        if len(ahead) > 2 * n_threads:  # whole images are large
                            label, key, done = ahead.popleft()
                            yield label, key, done.result()
                for label, key, done in ahead:
                    yield label, key, done.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class _Gathered:
    """Prepared rows of one vector set."""

    def __init__(self) -> None:
        self.label = ""
        self.keys: list[bytes] = []
        self.items: list[Item] = []
        self.failures: list[tuple[bytes, InputFailure]] = []
        self._units = self._bytes = 0

    def add(self, label: str, key: bytes, prepared: Item | InputFailure) -> None:
        self.label = label
        if isinstance(prepared, InputFailure):
            self.failures.append((key, prepared))
            return
        self.keys.append(key)
        self.items.append(prepared)
        self._units += len(prepared.arrays[0])
        self._bytes += sum(array.nbytes for array in prepared.arrays)

    def is_full(self, limit: BatchLimit) -> bool:
        return self._units >= BATCHES_TOGETHER * limit.units or self._bytes >= BYTES_TOGETHER

    def alike(self) -> list[list[int]]:
        """Positions of rows whose arrays have the same shapes but for their lengths."""
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for at, item in enumerate(self.items):
            inner = tuple(array.shape[1:] for array in item.arrays)
            groups.setdefault(inner, []).append(at)
        return list(groups.values())


def stacked(items: Sequence[Item], fills: Sequence[int], max_tokens: int = 0) -> tuple[np.ndarray, ...]:
    """Arrays of one batch: each padded to the longest, and last the length of each row in each.

    Args:
        fills: what each is padded with.
        max_tokens: of a row, for arrays with an entry a token; see `padded_length`.
    """
    arrays = []
    for at, fill in enumerate(fills):
        parts = [item.arrays[at] for item in items]
        longest = max(len(part) for part in parts)
        if all(len(part) == len(item.arrays[0]) for part, item in zip(parts, items, strict=True)):
            longest = padded_length(longest, max_tokens)
        whole = np.full((len(items), longest, *parts[0].shape[1:]), fill, parts[0].dtype)
        for row, part in enumerate(parts):
            whole[row, : len(part)] = part
        arrays.append(whole)
    lengths = np.array([[len(array) for array in item.arrays] for item in items], np.int64)
    return (*arrays, lengths)


def read_content(images: ImageReader | None, content: str) -> RowContent | InputFailure:
    """What a window's `contents` stand for, its image opened."""
    if images is None:
        return RowContent(text=content)
    digest, _, text = content.partition("\n")
    if not digest:
        return RowContent(text=text)
    found = read_image(images, digest, decode_whole)
    return found if isinstance(found, InputFailure) else RowContent(text or None, found)
