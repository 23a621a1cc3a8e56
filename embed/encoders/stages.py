"""Vectors of a network of timm's that keep what its early stages see: colours, textures, how many of a thing.

A classifier's last features leave out what does not tell its classes apart, but a price may depend on it.
Source: Evci et al., "Head2Toe: utilizing intermediate representations for better transfer learning", 2022.
"""

import inspect
from typing import Any, cast

import torch
from torch import nn

MOST_STAGES = 8  # of a network with more, such as one of 24 equal blocks, evenly spaced ones are read …
SPACED = 4  # … so many
LEAST_VARIANCE = 1e-6  # below it a deviation has no gradient


class StageFeatures(nn.Module):
    """The features that the network pools, then mean and deviation of each channel of each stage, side by side.

    Args:
        model: of timm's, without a classifier.

    Raises:
        ValueError: its stages can't be read.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not hasattr(model, "forward_intermediates"):
            raise ValueError("it gives no maps of its stages")
        self.model = model
        self._stages, self._how = _stages_of(model)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        model = cast(Any, self.model)
        last, maps = model.forward_intermediates(pixels, indices=self._stages, **self._how)
        parts = [model.forward_head(last).float()]
        for one in maps:
            channels = one.float().flatten(2)
            deviation = (channels.var(dim=2, correction=0) + LEAST_VARIANCE).sqrt()
            parts += [channels.mean(dim=2), deviation]
        return torch.cat(parts, dim=1)


def stage_dim(model: nn.Module, size: tuple[int, int]) -> int:
    """Numbers of a vector, of a model on the meta device."""
    with torch.device("meta"), torch.no_grad():
        return int(StageFeatures(model.eval())(torch.empty(1, 3, *size)).shape[1])


def _stages_of(model: nn.Module) -> tuple[list[int], dict[str, Any]]:
    """Which maps are read, and how they are asked for: all stages, where the library counts more than resolutions."""
    asked = inspect.signature(cast(Any, model).forward_intermediates).parameters
    if "extra_blocks" in asked:
        blocks = len(cast(Any, model).blocks)
        return list(range(1, blocks + 1)), {"extra_blocks": True}  # 0 is the stem
    n_stages = len(cast(Any, model).feature_info)
    if n_stages <= MOST_STAGES:
        return list(range(n_stages)), {}
    return [n_stages * at // SPACED - 1 for at in range(1, SPACED + 1)], {}
