"""What a run will take: steps are counted, speed and memory are measured on a few steps that nothing keeps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embed.finetune.checkpoint import checkpoint_bytes
from embed.finetune.feed import Feed, epoch_batches
from embed.finetune.job import FinetuneJob
from embed.finetune.network import TunedNetwork
from embed.finetune.processes import Processes
from embed.finetune.step import Stepper
from embed.finetune.training import TrainingOptions
from embed.forward.devices import decodes_in_processes, device_name
from embed.job.plan import measured_rate

WARM_STEPS, TIMED_STEPS = 1, 3


@dataclass(frozen=True)
class FinetunePlan:
    """A run before it begins."""

    name: str
    folds: tuple[int, ...]
    n_trained: int  # rows of the first fold's model
    n_aside: int
    steps: int  # of a fold, at most
    batch_rows: int
    micro_rows: int
    parameters: int
    trained: int
    precision: str
    device: str
    rows_per_second: float
    hours: float  # of all folds, without their vectors
    n_embedded: int  # images and texts that each fold's model embeds afterwards, at most
    embedding_hours: (
        float | None
    )  # of all folds, at the speed of the encoders before tuning; None: not known here
    memory_bytes: int
    checkpoint_bytes: int


def plan(
    job: FinetuneJob, folds: Sequence[int], processes: Processes, options: TrainingOptions
) -> FinetunePlan:
    """Count, and measure a few steps on real rows; nothing is written."""
    chosen = tuple(job.chosen_folds(folds))
    part, recipe = job.training_part(chosen[0]), job.recipe
    head = job.head()
    parts = head.parts(part.rows)
    encoders = job.load_encoders()
    network = TunedNetwork(encoders, parts, parts.network, recipe).to(processes.device)
    targets = np.zeros(len(job.inputs.log_price))
    block = parts.design.field_block_
    fields = block.transform(job.inputs.train) if block is not None and block.names_ else None
    quiet = Stepper(network, recipe, processes, targets, fields, options.micro_rows, lambda line: None)
    valid = [matrix.valid for matrix in job.inputs.train.matrices]
    in_processes = decodes_in_processes(processes.device.type)
    feed = Feed(job.workspace, job.towers, encoders, valid, job.seed, in_processes)
    rows = part.positions[~part.aside]
    batches = epoch_batches(rows, feed.lengths, recipe.batch_rows, job.seed, 0)
    steps = recipe.epochs * max(1, len(rows) // recipe.batch_rows)
    began = 0.0
    taken = batches[: WARM_STEPS + TIMED_STEPS]
    for at, batch in enumerate(taken):
        if at == min(WARM_STEPS, len(taken) - 1):
            _synchronise(processes.device)
            began = time.perf_counter()
        own = batch[processes.rank :: processes.n]
        quiet.step(feed.prepare(own, 0 if recipe.augment else None), 1e-9)
    _synchronise(processes.device)
    feed.close()
    timed = max(1, len(taken) - WARM_STEPS)
    seconds = (time.perf_counter() - began) / timed
    trained = sum(p.numel() for p in quiet.parameters)
    parameters = sum(p.numel() for p in network.parameters())
    splits = [rows.matrices for rows in (job.inputs.train, job.inputs.test) if rows is not None]
    n_embedded = [sum(int(m.valid.sum()) for m in of_tower) for of_tower in zip(*splits, strict=True)]
    return FinetunePlan(
        name=job.name,
        folds=chosen,
        n_trained=len(rows),
        n_aside=int(part.aside.sum()),
        steps=steps,
        batch_rows=recipe.batch_rows,
        micro_rows=min(quiet.micro_rows, recipe.batch_rows),
        parameters=parameters,
        trained=trained,
        precision=quiet.precision,
        device=device_name(processes.device),
        rows_per_second=recipe.batch_rows / seconds,
        hours=seconds * steps * len(chosen) / 3600,
        n_embedded=sum(n_embedded),
        embedding_hours=_embedding_hours(job, n_embedded, processes, len(chosen)),
        memory_bytes=_peak_memory(processes.device),
        checkpoint_bytes=checkpoint_bytes(trained, bool(recipe.average)),
    )


def _embedding_hours(
    job: FinetuneJob, n_embedded: Sequence[int], processes: Processes, n_folds: int
) -> float | None:
    """By what the same encoders took here; `n_embedded` is of each tower."""
    device = [str(processes.device)]
    rates = [measured_rate(job.workspace, tower.resolved.spec, device) for tower in job.towers]
    if not all(rates):
        return None
    return n_folds * sum(n / rate for n, rate in zip(n_embedded, rates, strict=True) if rate) / 3600


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else 1024 * peak)
