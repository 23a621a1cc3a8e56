"""`tabm`: many small networks that share most of their weights, trained and stopped as one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from heads.features.components import ComponentFeatures
from heads.features.rows import Rows
from heads.networks.head import NetworkHead
from heads.params import param

if TYPE_CHECKING:
    from torch import nn

    from heads.networks.training import Batch


@dataclass(kw_only=True, eq=False)
class TabM(NetworkHead):
    """TabM, many small networks that share weights, on principal components of vectors and fields.

    The members' log prices are averaged.

    Source: Gorishniy et al., TabM (2024), package `tabm`.
    """

    name: ClassVar[str] = "tabm"
    summary: ClassVar[str] = "TabM: many small networks sharing weights, on principal components and fields"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "tabm")
    code_version: ClassVar[int] = 5

    learning_rate: float = 2e-3
    batch_rows: int = 256
    dropout: float = 0.1
    seeds: int = 1
    members: int = param(16, low=1, high=1024)  # networks that share weights
    width: int = param(256, low=1, high=16_384)  # units of each layer
    blocks: int = param(2, low=1, high=64)  # layers
    components: int = param(128, low=1, high=65_536)  # principal components of each vector set

    def _fit_features(self, rows: Rows) -> None:
        self.features_ = ComponentFeatures(self.components, self.fields, unit_columns=True).fit(rows)

    def _widths(self) -> list[int]:
        assert self.features_.divisor_ is not None
        return [len(self.features_.divisor_)]

    def _network(self, widths: list[int]) -> "nn.Module":
        from tabm import TabM as Network

        return Network.make(
            n_num_features=sum(widths),
            d_out=1,
            k=self.members,
            d_block=self.width,
            n_blocks=self.blocks,
            dropout=self.dropout,
        )

    def _training_batch(self, rows: Rows) -> "Batch":
        return self._batch(rows)

    def _batch(self, rows: Rows) -> "Batch":
        import torch

        X = torch.from_numpy(np.ascontiguousarray(self.features_.transform(rows)))

        def batch(network: "nn.Module", index: "torch.Tensor") -> "torch.Tensor":
            out: torch.Tensor = network(X[index]).squeeze(-1)
            return out

        return batch
