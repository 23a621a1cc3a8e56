"""Plan, prepare, encode, publish: every row that lacks a vector gets one, or a failure on record."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from embed.encoders.base import Resolved
from embed.inputs.batch import Batch
from embed.job.limits import FailureLimits, check_coverage, check_failures
from embed.job.plan import EncoderPlan, plan_encoder
from embed.job.share import Share
from embed.job.source import Source, WantedKeys
from embed.job.verify import set_aside
from embed.job.writer import ShardWriter
from store.vectors.sets import publish_current, publish_spec
from store.vectors.shard import failure_names, shard_names
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

LOCK_FILE = "lock"


class Runner(Protocol):
    """An encoder at work, in this process (`embed.forward.local.LocalRunner`) or on other machines."""

    def start(self, source: Source, missing: np.ndarray) -> str:
        """Get ready for these sorted keys; returns what was chosen, in words."""

    def results(self) -> AbstractContextManager[Iterator[tuple[Batch, np.ndarray]]]:
        """Each batch of what was started with its vectors, shape (n_keys, dim), in any order."""

    def provenance(self) -> dict[str, Any]:
        """What was chosen, and where it ran."""


Loader = Callable[[Sequence[Resolved]], Sequence[Runner]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class EncodeRequest:
    """One encoder and what it is to embed."""

    resolved: Resolved
    source: Source


@dataclass(frozen=True)
class EmbedOptions:
    """Options of a run."""

    limits: FailureLimits = field(default_factory=FailureLimits)
    retry_failed: bool = False
    share: Share | None = None  # of the missing keys; None: all of them
    shard_bytes: int = 64 * 2**20
    shard_seconds: float = 60.0
    is_current: bool = True  # what an encoder's name stands for becomes what this run made
    progress: bool = True  # a bar, where stderr is a terminal
    keys_only: bool = (
        False  # of the cache are read, not every byte: for those who find out when they read vectors
    )


@dataclass(frozen=True)
class EmbedOutcome:
    """What a run did for one encoder."""

    plan: EncoderPlan  # as it stands after the run
    n_embedded: int
    n_failed: int  # in this run
    seconds: float  # from the first batch to the last shard
    # Vector set -> share of its texts, of this run, that lost tokens, or of its images that lack their end.
    truncated: dict[str, float]


def run(
    workspace: Workspace, requests: Sequence[EncodeRequest], options: EmbedOptions, load: Loader, say: Say
) -> list[EmbedOutcome]:
    """Embed all that is missing, encoder by encoder; models are loaded only where something is.

    Args:
        requests: encoders with what they are to embed.
        load: loads one model, whose encoders come in the order asked for.
        say: takes lines for people.

    Raises:
        FailureLimitError: too many inputs fail, or the splits differ too much in coverage.
        EncoderError: a model can't be loaded.
        WorkspaceError: the disk is full, or the workspace can't be written. What was published stays.
    """
    models: dict[tuple[str, str, str], list[EncodeRequest]] = {}
    for request in requests:
        models.setdefault(request.resolved.model_key, []).append(request)
    outcomes: list[EmbedOutcome] = []
    for group in models.values():
        outcomes += _run_model(workspace, group, options, load, say)
    return outcomes


def _run_model(
    workspace: Workspace, requests: list[EncodeRequest], options: EmbedOptions, load: Loader, say: Say
) -> list[EmbedOutcome]:
    wanted = [request.source.wanted() for request in requests]

    def plan_all() -> list[EncoderPlan]:
        return [
            plan_encoder(
                workspace,
                request.resolved,
                request.source,
                retry_failed=options.retry_failed,
                wanted=keys,
                keys_only=options.keys_only,
            )
            for request, keys in zip(requests, wanted, strict=True)
        ]

    publish = publish_current if options.is_current else publish_spec
    plans = plan_all()
    for plan in plans:
        _check(plan, options.limits)
    if not any(len(plan.own(options.share).missing) or plan.damaged for plan in plans):
        for plan in plans:
            publish(workspace, plan.spec)
        return [EmbedOutcome(plan, 0, 0, 0.0, {}) for plan in plans]
    with ExitStack() as locks:
        for folder in sorted(plan.spec.folder for plan in plans):
            locks.enter_context(
                workspace.lock(
                    f"{folder}/{_lock_file(options.share)}",
                    lambda: say("another run is at work here: waiting for it"),
                )
            )
        if any(plan.files != _files(workspace, plan.spec) for plan in plans):
            plans = plan_all()
        for plan in plans:
            _mend(workspace, plan, say)
            publish(workspace, plan.spec)
        runners = (
            load([plan.resolved for plan in plans])
            if any(len(p.own(options.share).missing) for p in plans)
            else [None] * len(plans)
        )
        return [
            _run_encoder(workspace, plan, request.source, keys, runner, options, say)
            for plan, request, keys, runner in zip(plans, requests, wanted, runners, strict=True)
        ]


def _run_encoder(
    workspace: Workspace,
    plan: EncoderPlan,
    source: Source,
    wanted: WantedKeys,
    runner: Runner | None,
    options: EmbedOptions,
    say: Say,
) -> EmbedOutcome:
    whole, plan = plan, plan.own(options.share)
    if runner is None or not len(plan.missing):
        return EmbedOutcome(whole, 0, 0, 0.0, {})
    # Records of failures hold keys of other shares too, which this run does not try again.
    supersedes = options.retry_failed and options.share is None
    old_records = failure_names(workspace, plan.spec.folder) if supersedes else []
    share = f" (share {options.share} of {len(whole.missing)})" if options.share else ""
    say(f"{plan.spec.name}: {len(plan.missing)} to embed{share}, {runner.start(source, plan.missing)}")
    start = time.perf_counter()
    library = f"{plan.spec.library} {plan.resolved.library_version}"
    writer = ShardWriter(
        workspace,
        plan.spec,
        lambda: {"library": library, **runner.provenance()},
        options.shard_bytes,
        options.shard_seconds,
    )
    texts: dict[str, list[int]] = {}
    with (
        tqdm(
            total=len(plan.missing),
            desc=plan.spec.name,
            unit=" rows",
            disable=None if options.progress else True,
            smoothing=0.1,
        ) as bar,
        runner.results() as results,
        writer,  # publishes what is done, however this block is left
    ):
        for batch, vectors in results:
            writer.add(batch, vectors)
            count = texts.setdefault(batch.vector_set, [0, 0])
            count[0] += len(batch.keys)
            count[1] += batch.n_truncated
            bar.update(len(batch.keys) + len(batch.failures))
            n_failed = plan.n_failed + writer.n_failed
            check_failures(plan.spec.name, n_failed, plan.n_wanted, options.limits, writer.example)
    seconds = time.perf_counter() - start
    for (
        name
    ) in old_records:  # every failure in them was tried again and now stands elsewhere, if it failed again
        if name not in writer.records:
            workspace.remove(f"{plan.spec.folder}/{name}")
    after = plan_encoder(workspace, plan.resolved, source, wanted=wanted, keys_only=options.keys_only)
    check_coverage(after, options.limits)
    truncated = {
        name: n / total
        for name, (total, n) in texts.items()
        if total and (n or plan.spec.modality != "image")
    }
    return EmbedOutcome(after, writer.n_published, writer.n_failed, seconds, truncated)


def _lock_file(share: Share | None) -> str:
    return LOCK_FILE if share is None else f"{LOCK_FILE}-{share.i}-of-{share.n}"


def _check(plan: EncoderPlan, limits: FailureLimits) -> None:
    if not plan.has_nothing_to_embed:
        check_failures(plan.spec.name, plan.n_failed, plan.n_wanted, limits)
        check_coverage(plan, limits)


def _mend(workspace: Workspace, plan: EncoderPlan, say: Say) -> None:
    """Sweep what killed runs left half-written; put damaged files aside."""
    workspace.sweep(plan.spec.folder)
    for reason in plan.damaged.values():
        say(f"{reason}: put aside, its rows are embedded again")
    set_aside(workspace, plan.spec.folder, list(plan.damaged))


def _files(workspace: Workspace, spec: EncoderSpec) -> tuple[str, ...]:
    return (*shard_names(workspace, spec.folder), *failure_names(workspace, spec.folder))
