"""Training rows -> batches for the model, prepared ahead of it: which rows in which order, images, token ids.

Everything random is drawn from (seed, epoch, row), so that a batch is the same whoever prepares it, on how many
processes, before or after a kill.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from embed.encoders.base import Encoder, Item, ItemModel, TextModel
from embed.finetune.augment import augment_image, augment_rows, larger
from embed.finetune.towers import Tower
from embed.forward.devices import cores
from embed.forward.transfer import pinned
from embed.inputs import InputFailure
from embed.inputs.decoders import DecoderProcesses
from embed.inputs.image_batches import OneByOne
from embed.inputs.items import read_content, stacked
from embed.inputs.texts import padded
from embed.job.catalog import blob_reader, contents_of
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import MADE_AGAIN, known_links
from store.catalog.images.open import quiet_pillow
from store.catalog.parse.compose import compose
from store.catalog.read import read_split
from store.errors import WorkspaceError
from store.vectors.folded import embedded_keys
from store.vectors.keys import among
from store.vectors.sets import columns_of, iter_image_keys
from store.workspace import Workspace

WINDOW_BATCHES = 16  # so many batches are sorted by length together, so that little is padded


@dataclass(frozen=True)
class TowerInput:
    """What enters one tower."""

    rows: np.ndarray  # (n_present,) positions in the batch of the rows that have such content
    arrays: tuple[
        np.ndarray, ...
    ]  # images (n, height, width, 3) uint8, or ids and mask (n_sequences, longest)
    owner: np.ndarray | None = None  # (n_sequences,): which of `rows`; None: one each
    weights: np.ndarray | None = None  # (n_sequences,): tokens


@dataclass(frozen=True)
class Prepared:
    """One batch, or a part of it."""

    rows: np.ndarray  # (n_rows,) positions among the training rows
    inputs: tuple[TowerInput, ...]  # one a tower


def epoch_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_rows: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """All rows in random order as full batches, texts of like length together; the odd rows wait for another epoch.

    Args:
        rows: positions, shape (n_rows,).
        lengths: of each training row's text, by position.

    Returns:
        Positions of each batch, shape (batch_rows,).
    """
    random = np.random.default_rng((seed, epoch))
    order = rows[random.permutation(len(rows))]
    n_batches = max(1, len(rows) // batch_rows)
    order = order[: n_batches * batch_rows]
    batches: list[np.ndarray] = []
    for start in range(0, len(order), WINDOW_BATCHES * batch_rows):
        window = order[start : start + WINDOW_BATCHES * batch_rows]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[at : at + batch_rows] for at in range(0, len(window), batch_rows)]
    return [batches[i] for i in random.permutation(len(batches))]


class Feed:
    """Reads, decodes and tokenises the training rows of some towers.

    Args:
        encoders: of the towers, for their tokenizers.
        valid: one a tower, shape (n_train,): rows that have a cached vector, and so content that can be read.
        processes: images are decoded in processes of their own, for a GPU that would wait for threads.
        pins: arrays are put into page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(
        self,
        workspace: Workspace,
        towers: Sequence[Tower],
        encoders: Sequence[Encoder],
        valid: Sequence[np.ndarray],
        seed: int,
        processes: bool = False,
        pins: bool = False,
    ) -> None:
        self._processes, self._pins = processes, pins
        self._decoders: dict[str, DecoderProcesses | OneByOne] = {}  # by their preprocessing, as JSON
        self._workspace, self._towers, self._encoders, self._valid = workspace, towers, encoders, valid
        self._seed = seed
        self._contents: list[Any] = []
        self.lengths = np.zeros(len(valid[0]), np.int64)
        for tower in towers:
            if tower.is_image or tower.takes_items:
                contents = _embedded_contents(workspace, tower)
                self._contents.append(contents)
                if tower.takes_items:
                    self.lengths += np.array([max(map(len, row), default=0) for row in contents])
                continue
            columns = [*columns_of(tower.vector_set), "bullets"]
            table = read_split(workspace, "train", list(dict.fromkeys(columns))).combine_chunks()
            self._contents.append(table)
            texts = compose(str(tower.vector_set.composition), table)
            limit = 5 * tower.resolved.spec.preprocessing["max_tokens"]  # longer ones are cut alike
            self.lengths += np.array([min(len(text or ""), limit) for text in texts.to_pylist()])
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="decode")

    def close(self) -> None:
        """Release the threads, and end the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for decoder in self._decoders.values():
            decoder.close()

    def batches(self, batches: Sequence[np.ndarray], epoch: int | None) -> Iterator[Prepared]:
        """Each batch prepared.

        Args:
            batches: positions of rows.
            epoch: that augmentation is drawn for; None: no augmentation.
        """
        with quiet_pillow():
            for rows in batches:
                yield self.prepare(rows, epoch)

    def prepare(self, rows: np.ndarray, epoch: int | None) -> Prepared:
        """One batch."""
        inputs = []
        for at, tower in enumerate(self._towers):
            present = np.flatnonzero(self._valid[at][rows])
            taken = rows[present]
            if tower.is_image or tower.takes_items:
                contents = [(row, content) for row in taken.tolist() for content in self._contents[at][row]]
                arrays = self._images(at, contents, epoch) if tower.is_image else self._items(at, contents)
                counts = np.array([len(self._contents[at][row]) for row in taken.tolist()], np.int64)
                if (counts == 1).all():
                    inputs.append(TowerInput(present, arrays))
                else:
                    owner = np.repeat(np.arange(len(taken)), counts)
                    inputs.append(TowerInput(present, arrays, owner, np.ones(len(owner), np.int64)))
            else:
                inputs.append(self._texts(at, taken, present, epoch))
        if self._pins:
            inputs = [replace(one, arrays=pinned(one.arrays)) for one in inputs]
        return Prepared(rows, tuple(inputs))

    def _random(self, row: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, epoch, row))

    def _images(self, at: int, digests: list[tuple[int, str]], epoch: int | None) -> tuple[np.ndarray, ...]:
        """Images of (row, digest)."""
        if not digests:
            return ()
        preprocessing = self._towers[at].resolved.spec.preprocessing
        decoder = self._decoder(preprocessing if epoch is None else larger(preprocessing))
        images = blob_reader(self._workspace)

        def some(asked: list[tuple[int, str]]) -> np.ndarray:
            found = decoder(images, [digest for _, digest in asked])
            for (_, digest), failure in zip(asked, found.failures, strict=True):
                if failure is not None:
                    raise WorkspaceError(
                        f"image {blob_path(digest)} could be read when it was embedded and can't now: "
                        f"{failure.reason}: {MADE_AGAIN}"
                    )
            if epoch is None:
                return found.pixels
            fill = cast(tuple[int, int, int], tuple(round(255 * m) for m in preprocessing["mean"]))
            size = tuple(preprocessing["size"])
            augmented = (
                augment_image(pixels, size, self._random(row, epoch), fill)
                for (row, _), pixels in zip(asked, found.pixels, strict=True)
            )
            return np.stack(list(augmented))

        n = -(-len(digests) // cores()) if decoder.at_once > 1 else 1
        parts = [digests[start : start + n] for start in range(0, len(digests), n)]
        return (np.concatenate(list(self._pool.map(some, parts))),)

    def _decoder(self, preprocessing: dict[str, Any]) -> DecoderProcesses | OneByOne:
        name = json.dumps(preprocessing, sort_keys=True)
        if name not in self._decoders:
            kind = DecoderProcesses if self._processes else OneByOne
            self._decoders[name] = kind(preprocessing)
        return self._decoders[name]

    def _items(self, at: int, contents: list[tuple[int, str]]) -> tuple[np.ndarray, ...]:
        """Inputs, of (row, content), of an encoder that prepares them itself; they are never augmented."""
        if not contents:
            return ()
        encoder = cast(ItemModel, self._encoders[at])
        images = blob_reader(self._workspace) if self._towers[at].vector_set.has_image else None
        found = list(self._pool.map(lambda one: read_content(images, one[1]), contents))
        items = [one if isinstance(one, InputFailure) else encoder.prepare(one) for one in found]
        for (row, _), item in zip(contents, items, strict=True):
            if isinstance(item, InputFailure):
                raise WorkspaceError(
                    f"training row {row} of {self._towers[at].vector_set} could be embedded and can't be now: "
                    f"{item.reason}: run 'shelfprice catalog images' or ingest it again"
                )
        max_tokens = self._towers[at].resolved.spec.preprocessing.get("max_tokens", 0)
        return stacked(cast(list[Item], items), encoder.fills, max_tokens)

    def _texts(self, at: int, rows: np.ndarray, present: np.ndarray, epoch: int | None) -> TowerInput:
        if not len(rows):
            return TowerInput(present, ())
        encoder, table = cast(TextModel, self._encoders[at]), self._contents[at].take(pa.array(rows))
        if epoch is not None:
            table = augment_rows(table, [self._random(row, epoch) for row in rows.tolist()])
        texts = compose(str(self._towers[at].vector_set.composition), table)
        tokens = encoder.tokenize([text or "" for text in texts.to_pylist()])
        max_tokens = self._towers[at].resolved.spec.preprocessing["max_tokens"]
        ids, mask = padded(tokens.sequences, encoder.pad_id, max_tokens)
        if len(tokens.sequences) == len(rows):
            return TowerInput(present, (ids, mask))
        return TowerInput(present, (ids, mask), tokens.owner.astype(np.int64), mask.sum(axis=1))


def _embedded_contents(workspace: Workspace, tower: Tower) -> list[list[str]]:
    """What enters for each training row, of what has a cached vector: of a row with several images one each."""
    have, _ = embedded_keys(workspace, tower.resolved.spec)
    known = known_links(workspace) if tower.vector_set.has_image else {}
    rows: list[list[str]] = []
    for parts in iter_image_keys(workspace, tower.vector_set, "train"):
        start = len(rows)
        rows += [[] for _ in range(parts[0][0].num_rows)]
        for batch, keys in parts:
            contents = contents_of(tower.vector_set, batch, known)
            for at in np.flatnonzero(among(have, keys)).tolist():
                rows[start + at].append(contents[at])
    return rows


def part_of(prepared: Prepared, start: int, stop: int) -> Prepared:
    """Rows `start` to `stop` of a batch: what enters the model at once when memory is short."""
    inputs = []
    for one in prepared.inputs:
        kept = np.flatnonzero((one.rows >= start) & (one.rows < stop))
        if one.owner is None:
            arrays = tuple(array[kept] for array in one.arrays)
            inputs.append(TowerInput(one.rows[kept] - start, arrays))
            continue
        assert one.weights is not None
        sequences = np.flatnonzero(np.isin(one.owner, kept))
        owner = np.searchsorted(kept, one.owner[sequences])
        arrays = tuple(array[sequences] for array in one.arrays)
        inputs.append(TowerInput(one.rows[kept] - start, arrays, owner, one.weights[sequences]))
    return Prepared(prepared.rows[start:stop], tuple(inputs))
