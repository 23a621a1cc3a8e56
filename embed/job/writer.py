"""Vectors on their way to disk: gathered, then published as one shard every so often."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from embed.forward.devices import host
from embed.inputs import InputFailure
from embed.inputs.batch import Batch
from store.errors import WorkspaceError
from store.schema import KEY_BYTES
from store.vectors.keys import arrow_keys
from store.vectors.shard import publish_failures, publish_shard
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

NOT_FINITE = InputFailure("encode", "the vector is not finite in float16")


class ShardWriter:
    """Publishes when enough bytes or seconds have gathered, and when its block is left, by an error too.

    Args:
        provenance: of the encoder, asked for with each shard.
        shard_bytes: a shard is published when it would grow beyond.
        shard_seconds: or when so long has passed since the last.
    """

    def __init__(
        self,
        workspace: Workspace,
        spec: EncoderSpec,
        provenance: Callable[[], dict[str, Any]],
        shard_bytes: int,
        shard_seconds: float,
    ) -> None:
        self.n_published = 0
        self.n_failed = 0
        self.example = ""  # one failure, for people
        self.records: set[str] = set()  # files of failures published here
        self._workspace = workspace
        self._spec = spec
        self._provenance = provenance
        self._shard_rows = max(1, shard_bytes // (2 * spec.dim + KEY_BYTES))
        self._shard_seconds = shard_seconds
        self._keys: list[bytes] = []
        self._vectors: list[np.ndarray] = []
        self._failures: list[tuple[bytes, str, str]] = []
        self._since = time.perf_counter()

    def add(self, batch: Batch, vectors: np.ndarray) -> None:
        """Take one batch with its vectors, shape (n_keys, dim); publish if it is time."""
        with np.errstate(over="ignore"):
            half = vectors.astype(np.float16)
        finite = np.isfinite(half).all(axis=1)
        self._fail(batch.failures)
        self._fail([(batch.keys[i], NOT_FINITE) for i in np.flatnonzero(~finite)])
        self._keys += batch.keys if finite.all() else [batch.keys[i] for i in np.flatnonzero(finite)]
        self._vectors.append(half[finite])
        if len(self._keys) >= self._shard_rows or time.perf_counter() - self._since >= self._shard_seconds:
            self.publish()

    def publish(self) -> None:
        """Make all that was added so far part of the cache."""
        now = time.perf_counter()
        if self._keys:
            provenance = {
                "host": host(),
                **self._provenance(),
                "rows": len(self._keys),
                "seconds": round(now - self._since, 3),
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            folder = self._spec.folder
            publish_shard(
                self._workspace, folder, arrow_keys(self._keys), np.concatenate(self._vectors), provenance
            )
            self.n_published += len(self._keys)
            self._keys, self._vectors = [], []
        record = publish_failures(self._workspace, self._spec.folder, self._failures)
        self.records |= {record} if record else set()
        self._failures = []
        self._since = now

    def __enter__(self) -> "ShardWriter":
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, WorkspaceError):  # a disk that is full is full still
            self.publish()

    def _fail(self, failures: list[tuple[bytes, InputFailure]]) -> None:
        self._failures += [(key, failure.stage, failure.reason) for key, failure in failures]
        self.n_failed += len(failures)
        if failures and not self.example:
            failure = failures[0][1]
            self.example = f"{failure.stage}: {failure.reason}"
