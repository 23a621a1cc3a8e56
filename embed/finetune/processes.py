"""One process or several (`torchrun`, `accelerate launch`): ranks, sums over all, the process that writes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from embed.forward.devices import open_devices

BUCKET = 2**24  # numbers that are summed at once
PATIENCE = timedelta(hours=2)  # rank 0 reads and warms up while the others wait


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    n: int
    device: torch.device

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.n > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every process, all of one shape, on the CPU."""
        if self.n == 1:
            return [tensor]
        own = tensor.to(self.device)
        parts = [torch.empty_like(own) for _ in range(self.n)]
        dist.all_gather(parts, own)
        return [part.cpu() for part in parts]

    def wait(self) -> None:
        """Until every process is here."""
        if self.n > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gradients summed over processes; a parameter without one everywhere keeps none.

        All at once after the backward pass, so that processes may cut their rows up differently.
        """
        if self.n == 1:
            return
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self.device)
        dist.all_reduce(has)
        bucket: list[torch.nn.Parameter] = []
        for at, (parameter, count) in enumerate(zip(parameters, has.tolist(), strict=True)):
            if count:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                bucket.append(parameter)
            if bucket and (sum(p.numel() for p in bucket) >= BUCKET or at == len(parameters) - 1):
                self._sum_bucket([p.grad for p in bucket if p.grad is not None])
                bucket = []

    def _sum_bucket(self, gradients: list[torch.Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view(gradient.shape))

    def close(self) -> None:
        if self.n > 1 and dist.is_initialized():
            dist.destroy_process_group()


def open_processes(device: str) -> Processes:
    """The processes that `torchrun` or `accelerate launch` started, or this one alone.

    Args:
        device: one that `open_devices` takes; with several processes `auto` and `cuda` are each process's own GPU.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n == 1:
        return Processes(0, 1, open_devices([device])[0])
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    (found,) = open_devices(["cpu" if device == "auto" else device])
    if not dist.is_initialized():
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=PATIENCE)
    return Processes(dist.get_rank(), n, found)
