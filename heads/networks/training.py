"""The one training loop of the networks: vectors in memory as one tensor, batches by index, no loader.

What it keeps is the weights with the least SMAPE on rows set aside, groups whole, of the rows that it may use.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from heads.features.memory import block_order
from heads.folds.nested import inner_cells
from heads.networks.losses import LOSSES
from heads.networks.running_mean import RunningMean
from heads.networks.schedule import SCHEDULES, RateSchedule
from heads.params import check_params, param
from store.errors import HeadError
from store.metric import smape_log

Batch = Callable[[nn.Module, torch.Tensor], torch.Tensor]  # (network, row positions) -> (n, outputs)
PREDICTED_ROWS = 4096
PRECISIONS = ("auto", "fp32", "bf16")
LONG_EPOCH = 100  # steps: the running mean passes over most of them


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained."""

    loss: str = param("smape", one_of=tuple(LOSSES))
    learning_rate: float = param(1e-3, low=1e-9, high=20)  # the highest learning rate
    weight_decay: float = param(1e-4, low=0, high=1000)
    batch_rows: int = param(256, low=1, high=1_000_000)
    epochs: int = param(40, low=1, high=100_000)  # passes over the rows, at most
    patience: int = param(8, low=0, high=100_000)  # epochs without a better score on the rows set aside
    warmup: float = param(0.1, low=0, below=1)  # share of the steps over which the rate rises
    schedule: str = param("cosine", one_of=SCHEDULES)
    clip: float = param(1.0, above=0, high=1e9)  # greatest norm of a gradient
    average: float = param(  # decay of the running mean of the weights, which is kept; 0: off
        0.995, low=0, below=1
    )
    aside: int = param(8, low=0, high=1_000_000)  # one in so many groups is set aside for early stopping
    precision: str = param("auto", one_of=PRECISIONS)


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about."""

    network: nn.Module  # in evaluation mode
    mean: float  # log price that its outputs are added to
    epochs: int  # until its best score
    smape: float | None  # on the rows set aside, percent; None: no row was


def train_network(
    name: str,
    network: nn.Module,
    batch: Batch,
    log_price: np.ndarray,
    group: np.ndarray,
    recipe: TrainingRecipe,
    seed: int,
    weight: np.ndarray | None = None,
) -> Trained:
    """Train on all rows but those set aside; deterministic for a seed and a thread count.

    Args:
        batch: the network's outputs for rows by position, so that it alone knows where features lie.
        log_price: shape (n_rows,).
        group: shape (n_rows,), rows of one group are set aside together.
        weight: what each row counts in loss and score, shape (n_rows,), of mean 1; None: all alike.

    Raises:
        HeadError: the loss is no longer finite; names the head and the epoch.
    """
    check_params(TrainingRecipe, vars(recipe), name)
    aside = stopping_rows(group, recipe.aside, seed)
    seen, held = np.flatnonzero(~aside), np.flatnonzero(aside)
    mean = float(np.average(log_price[seen], weights=None if weight is None else weight[seen]))
    target = torch.from_numpy((log_price - mean).astype(np.float32))[:, None]
    counts = None if weight is None else torch.from_numpy(weight.astype(np.float32))[:, None]
    batch_rows = min(recipe.batch_rows, len(seen))
    per_epoch = max(1, len(seen) // batch_rows)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = RateSchedule(recipe.schedule, recipe.epochs * per_epoch, recipe.warmup)
    average = RunningMean(
        list(network.parameters()),
        recipe.average,
        every=4 if per_epoch >= LONG_EPOCH else 1,
        buffers=list(network.buffers()),
    )
    loss_of, steps = LOSSES[recipe.loss], 0
    _set_rate(optimizer, recipe, schedule, steps)
    best: Trained | None = None
    for epoch in range(1, recipe.epochs + 1):
        network.train(bool(batch_rows > 1))  # one row has no spread for BatchNorm to divide by
        total = torch.zeros(())
        order = torch.from_numpy(block_order(seen, np.random.default_rng((seed, epoch))))
        for step in range(per_epoch):
            rows = order[step * batch_rows : (step + 1) * batch_rows]
            with autocast(recipe.precision):
                predicted = batch(network, rows)
            loss = loss_of(predicted.float(), target[rows], None if counts is None else counts[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            clipped_step(optimizer, recipe.clip)
            steps += 1
            _set_rate(optimizer, recipe, schedule, steps)
            average.update()
            total += loss.detach()
        if not math.isfinite(float(total)):
            raise HeadError(
                f"{name} diverged in epoch {epoch}: its loss is {float(total) / per_epoch}; "
                f"lower its learning_rate (now {recipe.learning_rate:g}) in shelfprice.toml"
            )
        with average.applied():
            score = None
            if len(held):
                predicted_held = predict_network(network, batch, held, recipe.precision) + mean
                if not np.isfinite(predicted_held).all():
                    raise HeadError(
                        f"{name} diverged in epoch {epoch}: it predicts no finite price; lower its learning_rate"
                    )
                score = smape_log(log_price[held], predicted_held, None if weight is None else weight[held])
                schedule.observe(score)
            if best is None or score is None or score < (best.smape or np.inf):
                best = Trained(copy.deepcopy(network), mean, epoch, score)
            elif epoch - best.epochs >= recipe.patience:
                break
    assert best is not None, "a recipe has at least one epoch"
    best.network.eval()
    return best


@torch.no_grad()
def predict_network(network: nn.Module, batch: Batch, rows: np.ndarray, precision: str) -> np.ndarray:
    """Mean of the outputs of rows by position, shape (len(rows),) float64."""
    network.eval()
    parts = []
    for start in range(0, len(rows), PREDICTED_ROWS):
        with autocast(precision):
            out = batch(network, torch.from_numpy(rows[start : start + PREDICTED_ROWS]))
        parts.append(out.double().mean(dim=1).numpy())
    return np.concatenate(parts) if parts else np.empty(0)


def stopping_rows(group: np.ndarray, one_in: int, seed: int) -> np.ndarray:
    """Which rows early stopping is judged on, another choice for each seed; shape (n_rows,) bool."""
    if one_in < 2:
        return np.zeros(len(group), dtype=bool)
    aside: np.ndarray = inner_cells(group, one_in) == seed % one_in
    return aside if 0 < aside.sum() < len(group) else np.zeros(len(group), dtype=bool)


def resolved_precision(precision: str) -> str:
    """What `auto` stands for on this machine: bf16 where the processor multiplies it in hardware."""
    if precision != "auto":
        return precision
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def autocast(precision: str) -> AbstractContextManager[None]:
    """Products in bf16, sums and weights in float32."""
    if resolved_precision(precision) == "bf16":
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's own generator set for what is built and dropped out inside, and put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _set_rate(
    optimizer: torch.optim.Optimizer, recipe: TrainingRecipe, schedule: RateSchedule, step: int
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * schedule.share(step)


def clipped_step(optimizer: torch.optim.Optimizer, most: float) -> None:
    """A step on gradients clipped to the norm `most`, which a fused optimiser scales as it reads them."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    optimizer.grad_scale = (norm / most).clamp_(min=1.0)  # type: ignore[attr-defined]
    optimizer.step()
