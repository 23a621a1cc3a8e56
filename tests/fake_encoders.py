"""Encoders without a model or torch: a vector is made of the words' lengths. For tests of the job."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from embed.encoders.base import Address, Resolved
from embed.forward.local import LocalRunner
from embed.inputs import InputFailure
from embed.inputs.batch import Batch, RowWindow
from embed.job.catalog import CatalogSource
from embed.job.run import EncodeRequest
from store.vectors.sets import VectorSet
from store.vectors.spec import EncoderSpec, Modality
from store.workspace import Workspace
from tests.fakes import fake_spec

DIM = 4


def fake_resolved(
    name: str = "fake", modality: Any = "text", weights: str = "0" * 64, **changes: Any
) -> Resolved:
    """A resolved encoder that does not exist."""
    from dataclasses import replace

    spec = replace(fake_spec(name, DIM, modality, weights), **changes)
    return Resolved(Address(name, "fake", name), spec, {}, "1")


def fake_request(workspace: Workspace, *vector_sets: str, **changes: Any) -> EncodeRequest:
    """One fake encoder with its sets of the catalogue: `fake@name`, or an image set without composition."""
    encoder = vector_sets[0].partition("@")[0]
    modality: Modality = "text" if "@" in vector_sets[0] else "image"
    resolved = fake_resolved(encoder, modality, **changes)
    sets = tuple(VectorSet.parse(name, modality) for name in vector_sets)
    return EncodeRequest(resolved, CatalogSource(workspace, sets))


def fake_vector(content: str) -> np.ndarray:
    """Shape (DIM,): lengths of the first words, moved a little by the whole text."""
    lengths = [len(word) for word in content.split()[:DIM]]
    noise = int.from_bytes(hashlib.sha256(content.encode()).digest()[:2], "little") / 2**16
    return np.array([*lengths, *[0] * DIM][:DIM], np.float32) + np.float32(noise)


class FakeEncoder(LocalRunner):
    """Vectors without a model.

    Args:
        spec: of the encoder it stands for.
        seconds: each batch takes.
        rows: of a batch.
        fails: contents that give no vector.
        on_batch: called before each batch is encoded, with how many were.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        seconds: float = 0.0,
        rows: int = 2,
        fails: Callable[[str], bool] = lambda content: False,
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.spec = spec
        self._seconds = seconds
        self._rows = rows
        self._fails = fails
        self._on_batch = on_batch

    def begin(self, window: RowWindow, n_rows: int) -> str:
        return "nothing to choose"

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        for window in windows:
            rows = list(zip(window.keys, window.contents, strict=True))
            for start in range(0, len(rows), self._rows):
                chunk = rows[start : start + self._rows]
                good = [(key, content) for key, content in chunk if not self._fails(content)]
                failures = [(k, InputFailure("decode", f"{c} is broken")) for k, c in chunk if self._fails(c)]
                vectors = np.array([fake_vector(content) for _, content in good]).reshape(-1, DIM)
                yield Batch(window.vector_set, [key for key, _ in good], (vectors,), failures=failures)

    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        for n, batch in enumerate(batches):
            self._on_batch(n)
            time.sleep(self._seconds)
            yield batch, batch.arrays[0]

    def provenance(self) -> dict[str, Any]:
        return {"precision": "fp32"}


def fake_loader(
    loads: list[str] | None = None, **options: Any
) -> Callable[[Sequence[Resolved]], list[FakeEncoder]]:
    """Loads fake encoders with these options; `loads` gathers the names of what was loaded."""

    def load(resolved: Sequence[Resolved]) -> list[FakeEncoder]:
        if loads is not None:
            loads.extend(one.spec.name for one in resolved)
        return [FakeEncoder(one.spec, **options) for one in resolved]

    return load
