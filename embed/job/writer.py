"""Writes vectors: they are gathered and published as one shard at a time."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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

    A thread writes one shard while the next is gathered, so that the model is not waited for.

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._written: Future[tuple[int, str | None]] | None = None
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
        """Make all that was added so far part of the cache, once what was begun before is; returns at once."""
        self.wait()
        now = time.perf_counter()
        if not self._keys and not self._failures:
            self._since = now
            return
        provenance = {
            "host": host(),
            **(self._provenance() if self._keys else {}),
            "rows": len(self._keys),
            "seconds": round(now - self._since, 3),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._written = self._thread.submit(
            self._write, self._keys, self._vectors, self._failures, provenance
        )
        self._keys, self._vectors, self._failures = [], [], []
        self._since = now

    def wait(self) -> None:
        """Until what was begun is published.

        Raises:
            WorkspaceError: it could not be.
        """
        if self._written is None:
            return
        written, self._written = self._written, None
        n_rows, record = written.result()
        self.n_published += n_rows
        self.records |= {record} if record else set()

    def _write(
        self,
        keys: list[bytes],
        vectors: list[np.ndarray],
        failures: list[tuple[bytes, str, str]],
        provenance: dict[str, Any],
    ) -> tuple[int, str | None]:
        folder = self._spec.folder
        if keys:
            publish_shard(self._workspace, folder, arrow_keys(keys), np.concatenate(vectors), provenance)
        return len(keys), publish_failures(self._workspace, folder, failures)

    def __enter__(self) -> "ShardWriter":
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._thread:
            if not isinstance(error, WorkspaceError):  # the disk is still full
                self.publish()
                self.wait()

    def _fail(self, failures: list[tuple[bytes, InputFailure]]) -> None:
        self._failures += [(key, failure.stage, failure.reason) for key, failure in failures]
        self.n_failed += len(failures)
        if failures and not self.example:
            failure = failures[0][1]
            self.example = f"{failure.stage}: {failure.reason}"
