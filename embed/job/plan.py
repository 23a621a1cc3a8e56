"""What is missing and how much work it is. Reads keys only: no model, no torch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embed.encoders.base import Resolved
from embed.encoders.recipes import changed_recipe
from embed.forward.devices import device_kind, host
from embed.job.share import Share
from embed.job.source import Source, WantedKeys
from embed.job.verify import read_checked_keys
from store.errors import CorruptFileError
from store.schema import KEY_BYTES
from store.timings import Timings
from store.vectors.keys import NO_KEYS, KeyBuffer, count_of, union, without
from store.vectors.shard import failure_names, shard_names
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

STORE_THREADS = 16  # that ask an object store for keys
SAMPLED_SHARDS = 8  # looked at for the speed of earlier runs


@dataclass(frozen=True)
class SplitCounts:
    """Rows of one split, as one vector set sees them."""

    n_rows: int
    n_empty: int  # no image, or no text left to embed
    n_failed: int  # there, but on record as failed

    @property
    def without_vector(self) -> float:
        """Share of rows that have no vector and will get none."""
        return (self.n_empty + self.n_failed) / self.n_rows if self.n_rows else 0.0


@dataclass(frozen=True)
class SetPlan:
    """One vector set: distinct contents."""

    vector_set: str
    splits: dict[str, SplitCounts]
    n_distinct: int
    n_hits: int
    n_failed: int

    @property
    def n_missing(self) -> int:
        return self.n_distinct - self.n_hits - self.n_failed


@dataclass(frozen=True)
class Cached:
    """What an encoder's folder holds."""

    present: np.ndarray  # sorted keys that have a vector
    failed: np.ndarray  # sorted keys on record as failed, without a vector
    damaged: dict[str, str]  # file -> reason
    files: tuple[str, ...]  # all that was read: another list means that another run wrote


@dataclass(frozen=True)
class EncoderPlan:
    """All vector sets of one encoder: they share a folder and one load of the model."""

    resolved: Resolved
    sets: tuple[SetPlan, ...]
    missing: np.ndarray  # sorted keys
    n_wanted: int
    n_failed: int
    damaged: dict[str, str]
    files: tuple[str, ...]
    rows_per_second: float | None  # of earlier runs on this machine and kind of device
    n_elsewhere: int = 0  # missing keys that fall to other shares of the work
    changed_recipe: str | None = None  # why the vectors that are current are others than these

    @property
    def spec(self) -> EncoderSpec:
        return self.resolved.spec

    @property
    def n_hits(self) -> int:
        return self.n_wanted - self.n_failed - len(self.missing) - self.n_elsewhere

    @property
    def has_nothing_to_embed(self) -> bool:
        """There is no image at all (or no text)."""
        return self.n_wanted == 0

    def own(self, share: Share | None) -> "EncoderPlan":
        """The same with the missing keys of one share alone; None: all of them."""
        if share is None:
            return self
        missing = share.of(self.missing)
        return replace(self, missing=missing, n_elsewhere=len(self.missing) - len(missing))

    @property
    def bytes_to_write(self) -> int:
        return len(self.missing) * (2 * self.spec.dim + KEY_BYTES)

    @property
    def seconds(self) -> float | None:
        """Estimate of the work; None where this machine has never run the encoder."""
        if not len(self.missing):
            return 0.0
        return len(self.missing) / self.rows_per_second if self.rows_per_second else None


def plan_encoder(
    workspace: Workspace,
    resolved: Resolved,
    source: Source,
    *,
    retry_failed: bool = False,
    wanted: WantedKeys | None = None,
    keys_only: bool = False,
    devices: Sequence[str] = ("auto",),
) -> EncoderPlan:
    """Wanted keys of every split minus what is present minus what failed before.

    Args:
        source: of all that is wanted of this encoder.
        retry_failed: count failures on record as missing.
        wanted: the source's keys, if they were read already.
        keys_only: see `read_cached`.
        devices: that the work would run on.
    """
    spec = resolved.spec
    cached = read_cached(workspace, spec, keys_only=keys_only)
    failed = NO_KEYS if retry_failed else cached.failed
    wanted = wanted or source.wanted()
    sets, everything, missing = [], [], []
    for vector_set, splits in wanted.sets.items():
        counts = {
            split: SplitCounts(found.n_rows, found.n_rows - found.n_filled, found.rows_in(failed))
            for split, found in splits.items()
        }
        distinct = wanted.distinct(vector_set)
        n_failed = count_of(failed, distinct)
        lacking = without(without(distinct, cached.present), failed)
        n_hits = len(distinct) - n_failed - len(lacking)
        sets.append(SetPlan(vector_set, counts, len(distinct), n_hits, n_failed))
        everything.append(distinct)
        missing.append(lacking)
    all_keys = union(everything)
    return EncoderPlan(
        resolved,
        tuple(sets),
        union(missing),
        len(all_keys),
        count_of(failed, all_keys),
        cached.damaged,
        cached.files,
        measured_rate(workspace, spec, devices),
        changed_recipe=changed_recipe(workspace, resolved),
    )


def read_cached(workspace: Workspace, spec: EncoderSpec, *, keys_only: bool = False) -> Cached:
    """What an encoder's folder holds; on a disk every byte is checked, so that a damaged shard counts as missing.

    Args:
        keys_only: on a disk too, check the keys alone; vectors are checked when they are read.
    """
    keys_only |= not workspace.is_local
    shards, records = shard_names(workspace, spec.folder), failure_names(workspace, spec.folder)
    damaged: dict[str, str] = {}
    present, failed = KeyBuffer(), KeyBuffer()

    def keys_of(name: str) -> np.ndarray | CorruptFileError:
        try:
            relative = f"{spec.folder}/{name}"
            return read_checked_keys(workspace, relative, spec.dim, keys_only=keys_only)
        except CorruptFileError as error:
            return error

    with ThreadPoolExecutor(1 if workspace.is_local else STORE_THREADS) as pool:
        for name, keys in zip(shards, pool.map(keys_of, shards), strict=True):
            if isinstance(keys, CorruptFileError):
                damaged[name] = str(keys)
            else:
                present.add(keys)
    for name in records:
        try:
            failed.add(workspace.read_table(f"{spec.folder}/{name}", ["key"])["key"])
        except CorruptFileError as error:
            damaged[name] = str(error)
    have = present.distinct()
    return Cached(have, without(failed.distinct(), have), damaged, (*shards, *records))


def timing_step(spec: EncoderSpec, devices: Sequence[str] = ("auto",)) -> str:
    """What the work of an encoder on some devices is called among a user's timings."""
    return f"encoder {spec.name} {spec.fingerprint} on {device_kind(devices)}"


def with_timings(plan: EncoderPlan, timings: Timings) -> EncoderPlan:
    """The plan with the speed of the user's earlier runs on this machine, where its workspace knows none."""
    if plan.rows_per_second is not None or not len(plan.missing):
        return plan
    found = timings.estimate(timing_step(plan.spec), len(plan.missing))
    return plan if found is None else replace(plan, rows_per_second=len(plan.missing) / found.seconds)


def measured_rate(
    workspace: Workspace, spec: EncoderSpec, devices: Sequence[str] = ("auto",)
) -> float | None:
    """Rows per second over some shards that this machine wrote, on devices of this kind."""
    n_rows, seconds, is_cpu = 0, 0.0, device_kind(devices) == "cpu"
    for name in shard_names(workspace, spec.folder)[:SAMPLED_SHARDS]:
        try:
            metadata: dict[str, Any] = workspace.read_metadata(f"{spec.folder}/{name}")
        except CorruptFileError:
            continue
        provenance = metadata.get("provenance", {})
        is_alike = str(provenance.get("device", "cpu" if is_cpu else "")).startswith("cpu") == is_cpu
        if provenance.get("host") == host() and is_alike and provenance.get("seconds"):
            n_rows += int(provenance.get("rows", 0))
            seconds += float(provenance["seconds"])
    return n_rows / seconds if seconds else None
