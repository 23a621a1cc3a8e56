"""What is special about convolutional encoders: their first layers want fp32.

Autocast rounds what passes between layers. The first few layers, with few and widely spread channels, carry most of
that error and little of the work, so a network that is too coarse in bf16 may keep those in fp32.
"""

from collections.abc import Callable

import torch
from torch import nn


def is_convnet(module: nn.Module) -> bool:
    """True for a network of convolutions; a transformer's single patch convolution makes none."""
    return sum(isinstance(m, nn.Conv2d) for m in module.modules()) > 1


def stages(module: nn.Module) -> list[nn.Module]:
    """Parts of a network in the order they are declared, sequences taken apart, blocks left whole."""
    parts = list(module.children())
    while len(parts) == 1 and not isinstance(parts[0], nn.Sequential):  # a wrapper around the network
        parts = list(parts[0].children())
    return [leaf for part in parts for leaf in _unrolled(part)]


def _unrolled(part: nn.Module) -> list[nn.Module]:
    if not isinstance(part, nn.Sequential | nn.ModuleList):
        return [part]
    return [leaf for child in part for leaf in _unrolled(child)]


def keep_in_fp32(module: nn.Module, n_stages: int, device_type: str) -> None:
    """Run the first `n_stages` stages outside of autocast, and the others as autocast says."""
    for position, stage in enumerate(stages(module)):
        vars(stage).pop("forward", None)
        if position < n_stages:
            stage.forward = _outside_autocast(stage, device_type)


def _outside_autocast(stage: nn.Module, device_type: str) -> Callable[[torch.Tensor], torch.Tensor]:
    forward = type(stage).forward

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type, enabled=False):
            output: torch.Tensor = forward(stage, x.float())
        return output

    return run
