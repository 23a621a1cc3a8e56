"""`mlp-layernorm` and `mlp-batchnorm`: the winning system's heads on CLIP ViT-L/14 and ViT-H/14."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from heads.networks.head import NetworkHead
from heads.params import param

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True, eq=False)
class MlpLayerNorm(NetworkHead):
    """A network on log price of vectors and fields: 1024-512-256-128-1 units with LayerNorm and GELU."""

    name: ClassVar[str] = "mlp-layernorm"
    summary: ClassVar[str] = "network 1024-512-256-128-1, LayerNorm, GELU, on vectors and fields"
    beyond_memory: ClassVar[bool] = True

    hidden: tuple[int, ...] = param((1024, 512, 256, 128), low=1, high=16_384)

    def _network(self, widths: list[int]) -> "nn.Module":
        from heads.networks.layers import Filled, layer_norm_mlp

        return Filled(widths, layer_norm_mlp(sum(widths), self.hidden, dropout=self.dropout))


@dataclass(kw_only=True, eq=False)
class MlpBatchNorm(NetworkHead):
    """A network on log price of vectors and fields: 2048-1024-512-256-128-1 units with BatchNorm and ReLU."""

    name: ClassVar[str] = "mlp-batchnorm"
    summary: ClassVar[str] = "network 2048-1024-512-256-128-1, BatchNorm, ReLU, on vectors and fields"
    beyond_memory: ClassVar[bool] = True

    hidden: tuple[int, ...] = param((2048, 1024, 512, 256, 128), low=1, high=16_384)

    def _network(self, widths: list[int]) -> "nn.Module":
        from heads.networks.layers import Filled, batch_norm_mlp

        return Filled(widths, batch_norm_mlp(sum(widths), self.hidden, dropout=self.dropout))
