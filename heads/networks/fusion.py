"""`fusion`: the winning system's EfficientNet-BERT head: modalities attend to one another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from heads.networks.head import NetworkHead
from heads.params import param

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True, eq=False)
class Fusion(NetworkHead):
    """A network on log price: vector sets are projected to 512 numbers, attend to one another, and enter an MLP.

    The MLP has 1536-768-384-192-1 units. Fields, where taken in, are one more modality that the vector sets attend to:
    the layers stay the same.

    Source: the second model of the challenge's winning system, whose layers these are.
    """

    name: ClassVar[str] = "fusion"
    summary: ClassVar[str] = "vector sets projected to 512, attention between them, MLP 1536-768-384-192-1"

    projected: int = param(  # features that each vector set is projected to
        512, low=8, high=8192, multiple_of=8
    )
    hidden: tuple[int, ...] = param((768, 384, 192), low=1, high=16_384)

    def _network(self, widths: list[int]) -> "nn.Module":
        from heads.networks.layers import Filled, FusionNetwork

        side = len(widths) - len(self.design_.blocks_) if self.design_.blocks_ else 0
        return Filled(widths, FusionNetwork(widths, self.projected, self.hidden, self.dropout, side))
