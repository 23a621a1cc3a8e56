"""Exponential mean of a network's weights over steps: what is scored, kept and predicts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class RunningMean:
    """The mean of trained weights beside the weights themselves; with a decay of 0 it is the weights.

    Args:
        parameters: that are trained.
        decay: a step.
        every: so many steps lie between weights that enter, each with the share of as many.
        buffers: that are taken as they are at a step that enters, such as batch statistics.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        decay: float,
        every: int = 1,
        buffers: Sequence[torch.Tensor] = (),
    ) -> None:
        self._parameters, self._buffers = list(parameters), list(buffers)
        self._decay, self._every = decay, every
        self.steps = 0
        self.mean = [p.detach().clone() for p in self._parameters] if decay else []
        self._held = [b.clone() for b in self._buffers] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """After a step."""
        if not self._decay:
            return
        self.steps += 1
        if self.steps % self._every:
            return
        share = 1.0 - min(self._decay, (1 + self.steps) / (10 + self.steps)) ** self._every
        torch._foreach_lerp_(self.mean, [p.detach() for p in self._parameters], share)
        for held, buffer in zip(self._held, self._buffers, strict=True):
            held.copy_(buffer)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the mean inside, and its own weights again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        if not self._decay:
            return
        own, mean = [*self._parameters, *self._buffers], [*self.mean, *self._held]
        for tensor, held in zip(own, mean, strict=True):
            before = tensor.detach().clone()
            tensor.copy_(held)
            held.copy_(before)
