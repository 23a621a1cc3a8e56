"""On a CPU, a convolution, the batch normalisation behind it and its activation as one oneDNN call.

Eager torch makes three passes over the largest tensors of a convnet, a fourth to pad them, and packs the weights
anew each time. In bf16, folding also spares a rounding.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # not those that change their weights as they run
NORMALISATIONS = (nn.BatchNorm2d, BatchNormAct2d)
TOLERANCE = 1e-4  # of the largest value of the vectors
MAX_PACKED = 4  # batch sizes and types whose packed weights are kept
N_EXACT = 3  # convolutions from the input on that stay in fp32: their roundings reach every later layer


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
        """Weights laid out for this number of pictures: oneDNN wants others for one than for eight."""
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
        size: height and width of its pictures.

    Returns:
        How many were fused; 0 where torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available() or not any(
        isinstance(m, NORMALISATIONS) for m in module.modules()
    ):
        return 0
    example = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    pairs, before = _pairs(module, example)
    undo: list[Callable[[], None]] = []
    try:
        for rank, (conv, norm, arriving) in enumerate(pairs):
            undo += _replace(module, conv, norm, arriving, exact=rank < N_EXACT)
        after = module(example.contiguous(memory_format=torch.channels_last))
        if torch.allclose(after, before, rtol=0, atol=TOLERANCE * float(before.abs().max())):
            return len(pairs)
    except (RuntimeError, AttributeError, TypeError):  # another oneDNN, or a shape that it does not take
        pass
    for restore in reversed(undo):
        restore()
    return 0


def _pairs(
    module: nn.Module, example: torch.Tensor
) -> tuple[list[tuple[str, str, tuple[int, int]]], torch.Tensor]:
    """(convolution, normalisation, height and width arriving) that follow one another, in order; and the output."""
    made: dict[int, tuple[str, torch.Tensor]] = {}  # holds the tensors, so that no id is given twice
    sizes: dict[str, tuple[int, int]] = {}
    takers: dict[str, list[str]] = {}
    calls: dict[str, int] = {}
    hooks: list[Any] = []

    def watch(name: str, child: nn.Module) -> None:
        def arriving(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            for value in inputs:
                if id(value) in made:
                    takers.setdefault(made[id(value)][0], []).append(name)

        def leaving(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if type(child) in CONVOLUTIONS:
                made[id(output)] = (name, output)
                sizes[name] = tuple(inputs[0].shape[-2:])

        hooks.append(child.register_forward_pre_hook(arriving))
        hooks.append(child.register_forward_hook(leaving))

    children = dict(module.named_modules())
    for name, child in children.items():
        if type(child) in NORMALISATIONS or not list(child.children()):
            watch(name, child)
    try:
        output = module(example)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = []
    for conv, after in takers.items():
        alone = len(after) == 1 and calls[conv] == calls[after[0]] == 1
        if alone and type(children[after[0]]) in NORMALISATIONS and children[conv].padding_mode == "zeros":
            pairs.append((conv, after[0], sizes[conv]))
    return pairs, output


def _replace(
    module: nn.Module, conv: str, norm: str, size: tuple[int, int], *, exact: bool
) -> list[Callable[[], None]]:
    fused = FusedConvolution(module.get_submodule(conv), module.get_submodule(norm), size, exact=exact)
    return [_put(module, conv, fused), _put(module, norm, nn.Identity())]


def _put(module: nn.Module, name: str, new: nn.Module) -> Callable[[], None]:
    """Set a submodule; returns what puts the old one back."""
    parent_name, _, attribute = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    old = getattr(parent, attribute)
    setattr(parent, attribute, new)
    return lambda: setattr(parent, attribute, old)


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
