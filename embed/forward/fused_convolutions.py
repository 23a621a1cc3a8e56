"""On a CPU, a convolution, the batch normalisation behind it and its activation as one oneDNN call.

Eager torch makes three passes over the largest tensors of a convnet, a fourth to pad them, and packs the weights
anew each time. In bf16, folding also spares a rounding.
"""

import math
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from embed.forward.wiring import Exchange, find_pairs

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # not those that change their weights as they run
NORMALISATIONS = (nn.BatchNorm2d, BatchNormAct2d)
TOLERANCE = 1e-4  # of the largest value of the vectors
MAX_PACKED = 4  # batch sizes and types whose packed weights are kept
N_EXACT = 4  # convolutions from the input on that stay in fp32: their roundings reach every later layer (with 3, one in
# 200 drawn packages fell below a cosine of 0.999)


class FusedConvolution(nn.Module):
    """A convolution with its normalisation folded in, and its activation where oneDNN has it.

    Args:
        conv: square kernel, zero padding.
        norm: what follows it.
        size: height and width that arrive here; always the same.
        exact: compute in fp32 under autocast too.
    """

    def __init__(self, conv: Any, norm: Any, size: tuple[int, int], *, exact: bool) -> None:
        super().__init__()
        folded = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        weight: torch.Tensor = folded[0]
        self.padding = list(conv.padding)
        if isinstance(conv, Conv2dSame):
            weight, self.padding = _symmetric(weight, conv, size)
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(folded[1].detach(), requires_grad=False)
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        activation = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
        self.fused = _fused(activation)
        self.activation = nn.Identity() if self.fused else activation
        self.exact = exact
        self._packed: dict[tuple[torch.dtype, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) -> the same kind, in the autocast type unless `exact`."""
        low = torch.is_autocast_enabled("cpu") and not self.exact
        dtype = torch.get_autocast_dtype("cpu") if low else torch.float32
        weight, bias = self._packed.get((dtype, len(x))) or self._pack(dtype, x)
        name, scalars = self.fused or ("none", [])
        x = torch.ops.mkldnn._convolution_pointwise(
            x.to(dtype),
            weight,
            bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            name,
            scalars,
            None,
        )
        return self.activation(x)

    def _pack(self, dtype: torch.dtype, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights laid out for this number of images: oneDNN wants others for one than for eight."""
        if len(self._packed) >= MAX_PACKED:
            self._packed.clear()
        weight = self.weight.to(dtype).contiguous(memory_format=torch.channels_last)
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, self.stride, self.dilation, self.groups, list(x.shape)
        )
        self._packed[dtype, len(x)] = packed, self.bias.to(dtype)
        return self._packed[dtype, len(x)]


@torch.no_grad()
def fuse_convolutions(module: nn.Module, size: tuple[int, int]) -> int:
    """Fuse in place every batch normalisation that does nothing but follow one convolution.

    Which ones do is seen by running the module; whether the vectors stay what they were is checked by running it
    again, and otherwise all is undone.

    Args:
        module: in eval mode, fp32, on the CPU.
        size: height and width of its images.

    Returns:
        How many were fused; 0 where torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available() or not any(
        isinstance(m, NORMALISATIONS) for m in module.modules()
    ):
        return 0
    example = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    pairs, before = find_pairs(module, lambda: module(example), CONVOLUTIONS, NORMALISATIONS)
    exchange = Exchange(module)
    try:
        for pair in pairs:
            conv: Any = module.get_submodule(pair.maker)
            if conv.padding_mode != "zeros":
                continue
            height, width = pair.arriving[-2:]
            exact = exchange.n < 2 * N_EXACT
            norm = module.get_submodule(pair.taker)
            exchange.put(pair.maker, FusedConvolution(conv, norm, (height, width), exact=exact))
            exchange.put(pair.taker, nn.Identity())
        after = module(example.contiguous(memory_format=torch.channels_last))
        if torch.allclose(after, before, rtol=0, atol=TOLERANCE * float(before.abs().max())):
            return exchange.n // 2
    except (RuntimeError, AttributeError, TypeError):  # another oneDNN, or a shape that it does not take
        pass
    exchange.undo()
    return 0


def _symmetric(weight: torch.Tensor, conv: Any, size: tuple[int, int]) -> tuple[torch.Tensor, list[int]]:
    """TensorFlow's padding, one pixel more behind than before: a zero row and column make it the same on both sides."""
    padding, grown = [], []
    for edge, kernel, stride, dilation in zip(
        size, conv.kernel_size, conv.stride, conv.dilation, strict=True
    ):
        total = max((math.ceil(edge / stride) - 1) * stride + (kernel - 1) * dilation + 1 - edge, 0)
        padding.append(total - total // 2)
        grown.append(total % 2)
    if any(grown) and max(conv.dilation) > 1:
        raise RuntimeError("a dilated kernel can't be grown by one pixel")
    return nn.functional.pad(weight, (grown[1], 0, grown[0], 0)), padding


def _fused(activation: nn.Module) -> tuple[str, list[float]] | None:
    """oneDNN's name and numbers of an activation; None where it has none."""
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0]
    names = {
        nn.Identity: "none",
        nn.ReLU: "relu",
        nn.SiLU: "swish",
        nn.Hardswish: "hardswish",
        nn.Sigmoid: "sigmoid",
    }
    name = names.get(type(activation))
    return (name, []) if name else None
