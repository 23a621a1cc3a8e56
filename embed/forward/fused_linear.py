"""On a CPU in bf16, a linear layer, its bias and the activation behind it as one oneDNN call on packed weights.

Eager torch writes the bias out to the size of the result first, makes another pass for the activation, and rounds
the same input anew for each layer that takes it (query, key and value). In fp32 everything stays as it was.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from embed.forward.wiring import Exchange, find_pairs

TOLERANCE = 1e-5  # of the largest value of the vectors, in fp32: only the wiring has changed
# activations by class name: what oneDNN calls them, and which variant
ACTIVATIONS = {
    "GELU": ("gelu", "none"),
    "GELUActivation": ("gelu", "none"),  # of transformers
    "PytorchGELUTanh": ("gelu", "tanh"),
    "GELUTanh": ("gelu", "tanh"),
    "SiLU": ("swish", ""),
    "SiLUActivation": ("swish", ""),
    "ReLU": ("relu", ""),
}


class Roundings:
    """The last input that was rounded, so that the next layer that takes the same need not do it again."""

    def __init__(self) -> None:
        self._last: tuple[Any, int, torch.Tensor] | None = None

    def of(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`x` in another type."""
        if x.dtype == dtype:
            return x
        if self._last is not None:
            source, version, rounded = self._last
            if source() is x and version == x._version and rounded.dtype == dtype:
                return rounded
        rounded = x.to(dtype)
        self._last = (weakref.ref(x), x._version, rounded)
        return rounded


class FusedLinear(nn.Module):
    """A linear layer with the activation behind it, if any.

    Args:
        weight: shape (n_out, n_in).
        bias: shape (n_out,), or None.
        activation: what follows; one of `ACTIVATIONS`, or None.
        roundings: shared by the layers of a network.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        activation: nn.Module | None,
        roundings: Roundings,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False) if bias is not None else None
        self.activation = activation
        self._call = _onednn_name(activation) or ("none", "")
        self._roundings = roundings
        self._packed: tuple[torch.Tensor, torch.Tensor | None] | None = None

    @property
    def in_features(self) -> int:
        """As a plain layer tells it."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """As a plain layer tells it."""
        return self.weight.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (..., n_in) -> (..., n_out), in bf16 under autocast."""
        if not torch.is_autocast_enabled("cpu"):
            self._packed = None  # another mode was chosen: its memory is free again
            y = nn.functional.linear(x, self.weight, self.bias)
            return y if self.activation is None else self.activation(y)
        x = self._roundings.of(x, torch.get_autocast_dtype("cpu"))
        weight, bias = self._packed or self._pack(x)
        name, variant = self._call
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], variant or None)
        return y

    def _pack(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        n_rows = x.numel() // x.shape[-1]
        weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.to(x.dtype), n_rows)
        self._packed = weight, self.bias.to(x.dtype) if self.bias is not None else None
        return self._packed


class FusedAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence to itself, on fused layers; what else is asked of it goes to the plain one."""

    def __init__(self, plain: nn.MultiheadAttention, roundings: Roundings) -> None:
        super().__init__()
        assert plain.in_proj_weight is not None
        self.plain = plain
        self.in_proj = FusedLinear(plain.in_proj_weight, plain.in_proj_bias, None, roundings)
        self.out_proj = FusedLinear(plain.out_proj.weight, plain.out_proj.bias, None, roundings)

    @property
    def batch_first(self) -> bool:
        """As the plain one tells it."""
        return self.plain.batch_first

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        **other: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Shape (n_rows, n_tokens, width) -> the same, and no weights."""
        itself = query is key and key is value and not need_weights and not other
        added = attn_mask is None or (attn_mask.ndim == 2 and attn_mask.is_floating_point())
        if not (itself and added and torch.is_autocast_enabled("cpu")):
            found: tuple[torch.Tensor, torch.Tensor | None] = self.plain(
                query, key, value, need_weights=need_weights, attn_mask=attn_mask, **other
            )
            return found
        n_rows, n_tokens, width = query.shape
        heads = self.in_proj(query).view(n_rows, n_tokens, 3, self.plain.num_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mask = attn_mask.to(q.dtype) if attn_mask is not None else None
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(n_rows, n_tokens, width)), None


@torch.no_grad()
def fuse_linear_layers(module: nn.Module, run: Callable[[], torch.Tensor]) -> int:
    """Put fused layers in place of a network's linear ones; undone where that would change its vectors.

    Args:
        module: in eval mode, fp32, on the CPU.
        run: vectors of an example, through the module.

    Returns:
        How many layers were fused; 0 where the CPU has no bf16 of its own.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0
    names = [name for name, child in module.named_modules() if name and type(child) is nn.Linear]
    attentions = [name for name, child in module.named_modules() if name and _is_plain_attention(child)]
    if not names and not attentions:
        return 0
    activations = tuple({type(m) for m in module.modules() if _onednn_name(m) is not None})
    exchange, roundings = Exchange(module), Roundings()
    try:
        pairs, before = find_pairs(module, run, (nn.Linear,), activations)
        follows = {pair.maker: pair.taker for pair in pairs}
        for name in names:
            linear: Any = module.get_submodule(name)
            activation = module.get_submodule(follows[name]) if name in follows else None
            exchange.put(name, FusedLinear(linear.weight, linear.bias, activation, roundings))
            if name in follows:
                exchange.put(follows[name], nn.Identity())
        for name in attentions:
            attention: Any = module.get_submodule(name)
            exchange.put(name, FusedAttention(attention, roundings))
        if torch.allclose(run(), before, rtol=0, atol=TOLERANCE * float(before.abs().max())):
            return len(names) + 2 * len(attentions)
    except (RuntimeError, AttributeError, TypeError):  # a library that looks into its layers
        pass
    exchange.undo()
    return 0


def _is_plain_attention(module: nn.Module) -> bool:
    return (
        type(module) is nn.MultiheadAttention
        and module.in_proj_weight is not None
        and module.batch_first
        and module.bias_k is None
        and not module.add_zero_attn
    )


def _onednn_name(activation: nn.Module | None) -> tuple[str, str] | None:
    """oneDNN's name and variant of an activation; None where it has none."""
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    return ACTIVATIONS.get(type(activation).__name__)
