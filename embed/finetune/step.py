"""One optimiser step: parts of a batch that fit into memory, precision, clipping, the running mean of the weights."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from embed.finetune.feed import Prepared, part_of
from embed.finetune.network import TunedNetwork
from embed.finetune.processes import Processes
from embed.finetune.recipe import FinetuneRecipe
from embed.forward.memory import is_out_of_memory
from heads.networks.losses import LOSSES
from heads.networks.running_mean import RunningMean
from store.errors import HeadError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_precision(policy: str, device: torch.device) -> str:
    """What `auto` stands for on a device: bf16 where it is fast, else fp16 on a GPU, else fp32."""
    if policy != "auto":
        return policy
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "bf16"
    return "fp32"


@dataclass
class Losses:
    """What a step found, on the device until it is asked for."""

    sums: torch.Tensor  # (2,): loss and SMAPE, means over the batch
    norm: torch.Tensor | None  # of the gradients; None: a scaler passes over steps whose gradients overflow

    def numbers(self) -> tuple[float, float]:
        """Loss, and SMAPE in percent; both NaN where the gradients, and so the weights now, are not finite."""
        if self.norm is not None and not math.isfinite(float(self.norm)):
            return math.nan, math.nan
        loss, smape = self.sums.tolist()
        return loss, smape


class Stepper:
    """Takes steps.

    Args:
        log_price: of every training row, less the mean that the head was trained around, shape (n_train,).
        fields: of every training row, as the head takes them, shape (n_train, n_fields); None: it takes none.
        micro_rows: rows that enter the model at once; halved when memory runs out, the step stays the same.
    """

    def __init__(
        self,
        network: TunedNetwork,
        recipe: FinetuneRecipe,
        processes: Processes,
        log_price: np.ndarray,
        fields: np.ndarray | None,
        micro_rows: int,
        log: Callable[[str], None],
    ) -> None:
        self.network, self.processes, self.micro_rows = network, processes, micro_rows
        # What training mode was last set for, which looks at every module: not at every step. None: it is not set.
        self._trains_encoders: bool | None = None
        self.precision = training_precision(recipe.precision, processes.device)
        self._device, self._recipe, self._log = processes.device, recipe, log
        self._loss = LOSSES[recipe.loss]
        self._target = torch.from_numpy(log_price.astype(np.float32))[:, None]
        self._fields = None if fields is None else torch.from_numpy(fields.astype(np.float32))
        self.parameters = list(network.trained().values())
        fused = processes.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(network.parameter_groups(), fused=fused)
        self.optimizer.zero_grad(set_to_none=True)  # the warm-up trained the head in place
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.precision == "fp16")
        self.mean = RunningMean(self.parameters, recipe.average)

    def step(self, prepared: Prepared, share: float) -> Losses:
        """One step on this process's part of a batch.

        Args:
            share: of the peak rates.

        Raises:
            OutOfMemoryError: one row alone does not fit.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        if self._trains_encoders != (not self.network.frozen):
            self.network.train()
            self._trains_encoders = not self.network.frozen
        sums = self._gradients_that_fit(prepared)
        self.processes.sum_gradients(self.parameters)
        self.processes.sum(sums)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.mean.update()
        return Losses(sums, None if self.scaler.is_enabled() else norm)

    def _gradients_that_fit(self, prepared: Prepared) -> torch.Tensor:
        while True:
            random = _random_state(self._device)
            try:
                return self._gradients(prepared)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                least, at_once = self.network.least_rows, min(self.micro_rows, len(prepared.rows))
                if at_once <= least:
                    rows = "a single row" if least == 1 else f"{least} rows, the fewest for batch statistics"
                    raise HeadError(
                        f"fine-tuning runs out of memory on {rows}: pass --gradient-checkpointing, --lora or "
                        "--last-blocks, or a smaller image (ENCODER?size=)"
                    ) from error
            self.optimizer.zero_grad(set_to_none=True)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            _set_random_state(self._device, random)
            self.micro_rows = max(least, at_once // 2)
            self._log(f"out of memory: {self.micro_rows} rows at once from here on, the same rows a step")

    def _gradients(self, prepared: Prepared) -> torch.Tensor:
        n_rows = len(prepared.rows)
        n_all = n_rows * self.processes.n
        sums = torch.zeros(2, device=self._device)
        ends = even_ends(n_rows, self.micro_rows, self.network.least_rows)
        for start, stop in itertools.pairwise([0, *ends]):
            part = prepared if stop - start == n_rows else part_of(prepared, start, stop)
            predicted, target = self._predicted(part)
            share = (stop - start) / n_all
            loss = self._loss(predicted, target) * share
            self.scaler.scale(loss).backward()
            with torch.no_grad():
                smape = 200.0 * torch.tanh((predicted - target).abs() / 2.0).mean() * share
                sums += torch.stack([loss.detach(), smape])
        return sums

    def _predicted(self, part: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(part.rows)
        fields = None if self._fields is None else self._fields[rows].to(self._device, non_blocking=True)
        with self.autocast():
            predicted = self.network(part, fields)
        return predicted.float(), self._target[rows].to(self._device, non_blocking=True)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Products in the chosen type, sums and weights in fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, DTYPES[self.precision])

    @torch.no_grad()
    def predict(self, batches: Iterator[Prepared]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and what the network says of them, log price less the mean, with the running mean of the weights."""
        with self.mean.applied():
            self.network.eval()
            self._trains_encoders = None
            for prepared in batches:
                for start in range(0, len(prepared.rows), self.micro_rows):
                    part = part_of(prepared, start, min(start + self.micro_rows, len(prepared.rows)))
                    yield part.rows, self._predicted(part)[0].double().mean(dim=1).cpu().numpy()


def even_ends(n_rows: int, most: int, least: int) -> list[int]:
    """Where parts of a batch end: all of a size within one, at most `most` rows unless that is below `least`."""
    n_parts = max(1, min(-(-n_rows // most), n_rows // least))
    return [n_rows * part // n_parts for part in range(1, n_parts + 1)]


def _random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
