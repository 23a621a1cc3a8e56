"""What a network of convolutions is made of."""

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
