"""`fusion`: the winning system's EfficientNet-BERT head: modalities attend to one another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from heads.network_head import NetworkHead

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True, eq=False)
class Fusion(NetworkHead):
    """Each vector set projected to 512, attention between them, an MLP 1536-768-384-192-1.

    Fields, where taken in, are one more modality: the MLP then starts at 2048.
    """

    name: ClassVar[str] = "fusion"
    summary: ClassVar[str] = "vector sets projected to 512, attention between them, MLP 1536-768-384-192-1"

    fields: bool = False  # take parsed fields in

    def _network(self, widths: list[int]) -> "nn.Module":
        from heads.networks import Filled, FusionNetwork

        return Filled(widths, FusionNetwork(widths, self.dropout))
