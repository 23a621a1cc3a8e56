"""Encoders with a head on, as one module: images and token ids in, log price out."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from embed.encoders.base import PREPARED_BY, Encoder
from embed.finetune.feed import Prepared, TowerInput
from embed.finetune.layers import Layers, prepare_tower, rate_groups
from embed.finetune.recipe import FinetuneRecipe
from embed.forward.attention import avoid_wrong_attention
from embed.forward.convnet import is_convnet
from embed.forward.passes import scaled
from heads.features.design import VectorBlock
from heads.networks.head import NetworkParts


class TunedNetwork(nn.Module):
    """What is trained.

    Vectors are scaled with the mean and spread of the cached ones, as the head saw them in its warm-up; a row without a
    image, or without text, has the mean there, as in every head.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        parts: NetworkParts,
        head_network: nn.Module,
        recipe: FinetuneRecipe,
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleList([encoder.module for encoder in encoders])
        self.head = head_network
        self.frozen = False  # whether the encoders only compute
        self.gaps = parts.gaps
        self._encoders = list(encoders)
        self._blocks: list[VectorBlock] = parts.design.blocks_
        self._recipe = recipe
        for encoder in encoders:
            avoid_wrong_attention(encoder.spec.preprocessing)
        self.layers: list[Layers] = [
            prepare_tower(encoder.module, encoder.spec.name, recipe) for encoder in encoders
        ]
        # Batch statistics of a single row are none.
        self.least_rows = 2 if any(map(is_batch_norm, self.head.modules())) else 1
        for tower in self.towers:
            if is_convnet(tower):
                tower.to(memory_format=torch.channels_last)
        for at, block in enumerate(self._blocks):
            self.register_buffer(f"mean{at}", torch.from_numpy(block.mean_), persistent=False)
            self.register_buffer(f"divisor{at}", torch.from_numpy(block.divisor_), persistent=False)

    def train(self, mode: bool = True) -> "TunedNetwork":
        """Training mode, but for what is not trained, which drops nothing out, and the encoders' batch normalisation.

        Its statistics stay the pretrained ones: a step is the same however its rows are cut or spread over processes.
        """
        super().train(mode)
        for tower, layers in zip(self.towers, self.layers, strict=True):
            for part in [tower] if self.frozen else layers.untrained(tower):
                part.eval()
            for module in tower.modules():
                if is_batch_norm(module):
                    module.eval()
        return self

    def forward(self, prepared: Prepared, fields: torch.Tensor | None) -> torch.Tensor:
        """Log price less the mean that the head was trained around, shape (n_rows, 1).

        Args:
            fields: the rows' fields as the head takes them, shape (n_rows, n_fields); None: it takes none.
        """
        n_rows = len(prepared.rows)
        parts, missing = [], []
        for at, one in enumerate(prepared.inputs):
            vectors = self._vectors(at, one)
            mean, divisor = getattr(self, f"mean{at}"), getattr(self, f"divisor{at}")
            rows = torch.from_numpy(one.rows).to(mean.device, non_blocking=True)
            X = mean.new_zeros(n_rows, len(mean))
            if vectors is not None:
                X = X.index_copy(0, rows, (vectors.float() - mean) / divisor)
            lacks = torch.ones(n_rows, dtype=torch.bool, device=mean.device)
            lacks[rows] = False
            if self._blocks[at].indicates_:
                X = torch.cat([X, lacks[:, None].float()], dim=1)
            parts.append(X)
            missing.append(lacks)
        if fields is not None:
            parts.append(fields)
            missing.append(torch.zeros_like(missing[0]))
        flags = torch.stack(missing, dim=1) if self.gaps else None
        return cast(torch.Tensor, self.head(torch.cat(parts, dim=1), flags))

    def _vectors(self, at: int, one: TowerInput) -> torch.Tensor | None:
        if not one.arrays or not len(one.rows):
            return None
        if self.frozen:
            with torch.no_grad():
                return self._encode(at, one)
        return self._encode(at, one)

    def _encode(self, at: int, one: TowerInput) -> torch.Tensor:
        encoder: Any = self._encoders[at]
        device = getattr(self, f"mean{at}").device
        tensors = [torch.from_numpy(array).to(device, non_blocking=True) for array in one.arrays]
        if encoder.spec.modality == "image" and PREPARED_BY not in encoder.spec.preprocessing:
            tensors = [scaled(tensors[0], encoder.spec.preprocessing, channels_last=True)]
        vectors = encoder.forward(*tensors)
        if one.owner is None or one.weights is None:
            return cast(torch.Tensor, vectors)
        owner, weights = (torch.from_numpy(np.asarray(a)).to(device) for a in (one.owner, one.weights))
        vectors = vectors.float() * weights[:, None]
        pooled = vectors.new_zeros(len(one.rows), vectors.shape[1]).index_add(0, owner, vectors)
        pooled = (
            pooled / torch.zeros(len(one.rows), device=device).index_add_(0, owner, weights.float())[:, None]
        )
        return nn.functional.normalize(pooled, dim=-1) if encoder.spec.normalize else pooled

    # ---- what is trained -------------------------------------------------------------------------

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by name, each once."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def kept_buffers(self) -> dict[str, torch.Tensor]:
        """Buffers that training changes: statistics of the head's batch normalisation."""
        return {f"head.{name}": buffer for name, buffer in self.head.named_buffers()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser: `peak` is each group's own rate, which the schedule scales."""
        recipe = self._recipe
        rated = [(recipe.head_rate, [p for p in self.head.parameters() if p.requires_grad])]
        for encoder, layers in zip(self._encoders, self.layers, strict=True):
            rate = recipe.image_rate if encoder.spec.modality == "image" else recipe.text_rate
            rated += rate_groups(encoder.module, layers, rate, recipe.layer_decay)
        groups, seen = [], set()
        for rate, parameters in rated:
            for is_matrix in (True, False):
                own = [p for p in parameters if (p.ndim > 1) == is_matrix and id(p) not in seen]
                seen |= {id(p) for p in own}
                if own:
                    decay = recipe.weight_decay if is_matrix else 0.0
                    groups.append({"params": own, "lr": rate, "peak": rate, "weight_decay": decay})
        return groups

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that tuning changes, by name, as copies on the CPU."""
        found = {f"parameter/{name}": p.detach() for name, p in self.trained().items()}
        found |= {f"buffer/{name}": buffer for name, buffer in self.kept_buffers().items()}
        return {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in found.items()}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Put `state` back; other names are refused, so that no weights are missing."""
        own: dict[str, torch.Tensor] = {f"parameter/{name}": p for name, p in self.trained().items()}
        own |= {f"buffer/{name}": buffer for name, buffer in self.kept_buffers().items()}
        given = {name: t for name, t in state.items() if name.split("/")[0] in ("parameter", "buffer")}
        assert own.keys() == given.keys(), "a checkpoint of another configuration"
        for name, tensor in own.items():
            tensor.copy_(given[name])


def is_batch_norm(module: nn.Module) -> bool:
    """Whether it takes statistics over the rows of a batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
