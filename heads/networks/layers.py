"""The networks of the heads, as plain torch modules: vectors in, log price out. Fine-tuning puts them on encoders."""

import itertools
from collections.abc import Sequence

import torch
from torch import nn

ATTENTION_HEADS = 8

BYTE = 256


class Dropout(nn.Dropout):
    """`nn.Dropout`, several times as fast on a processor, where torch draws one number after another on one core.

    A byte decides on each value, eight from one draw: there the share dropped is the multiple of 1/256 next to `p`.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape and dtype as given."""
        dropped = round(self.p * BYTE)
        if x.device.type != "cpu" or dropped >= BYTE:
            return super().forward(x)
        if not self.training or not dropped:
            return x
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * kept.to(x.dtype).mul_(BYTE / (BYTE - dropped))


class Filled(nn.Module):
    """A network whose input gets a learned vector where a modality is missing."""

    def __init__(self, widths: Sequence[int], network: nn.Module) -> None:
        """Args:
        widths: features of each modality, side by side in the input.
        network: takes the input once filled.
        """
        super().__init__()
        self.learned = nn.ParameterList([nn.Parameter(0.02 * torch.randn(width)) for width in widths])
        self.network = network
        self.widths = tuple(widths)

    def forward(self, x: torch.Tensor, missing: torch.Tensor | None = None) -> torch.Tensor:
        """What the network makes of the filled input.

        Args:
            x: shape (n_rows, sum of widths), at the mean where missing.
            missing: shape (n_rows, n_modalities), True where a row lacks a modality; None: none does.
        """
        if missing is not None and bool(missing.any()):
            filled = [
                part + missing[:, i : i + 1].to(x.dtype) * vector.to(x.dtype)
                for i, (part, vector) in enumerate(
                    zip(x.split(self.widths, dim=1), self.learned, strict=True)
                )
            ]
            x = torch.cat(filled, dim=1)
        out: torch.Tensor = self.network(x)
        return out


def layer_norm_mlp(
    width: int, hidden: Sequence[int] = (1024, 512, 256, 128), dropout: float = 0.2
) -> nn.Sequential:
    """1024-512-256-128-1 with LayerNorm and GELU, the head on CLIP ViT-L/14; (n_rows, width) -> (n_rows, 1)."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU(), Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))


def batch_norm_mlp(
    width: int, hidden: Sequence[int] = (2048, 1024, 512, 256, 128), dropout: float = 0.2
) -> nn.Sequential:
    """2048-1024-512-256-128-1 with BatchNorm and ReLU, the head on CLIP ViT-H/14; (n_rows, width) -> (n_rows, 1)."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.BatchNorm1d(size), nn.ReLU(), Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))


class FusionNetwork(nn.Module):
    """EfficientNet-BERT's head: modalities projected to 512 attend to one another, then 1536-768-384-192-1.

    For two modalities the MLP reads 1536 features: both projections and what attention makes of them.
    """

    def __init__(
        self,
        widths: Sequence[int],
        projected: int = 512,
        hidden: Sequence[int] = (768, 384, 192),
        dropout: float = 0.2,
        side: int = 0,
    ) -> None:
        """Args:
        widths: features of each modality, side by side in the input.
        projected: features that each is projected to, divisible by 8.
        side: so many of the last modalities reach the MLP through attention alone.
        """
        super().__init__()
        self.widths = tuple(widths)
        self.main = len(widths) - side
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(width, projected), nn.LayerNorm(projected), nn.GELU()) for width in widths
        )
        self.attention = nn.MultiheadAttention(projected, ATTENTION_HEADS, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(projected)
        fused = projected * (self.main + 1)
        self.mlp = layer_norm_mlp(fused, hidden, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n_rows, sum of widths) -> (n_rows, 1) log price."""
        parts = x.split(self.widths, dim=1)
        projected = [project(part) for project, part in zip(self.projections, parts, strict=True)]
        tokens = torch.stack(projected, dim=1)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        together = self.norm(tokens + attended).mean(dim=1)
        prices: torch.Tensor = self.mlp(torch.cat([*projected[: self.main], together], dim=1))
        return prices


class SparseNetwork(nn.Module):
    """A small MLP on sparse rows: the first layer is a sum of word vectors. (n_rows, n_words) -> (n_rows, 1)."""

    def __init__(self, n_words: int, dense_width: int = 0, hidden: Sequence[int] = (192, 64, 64)) -> None:
        """Args:
        n_words: columns of the sparse rows.
        dense_width: features given beside them, 0: none.
        """
        super().__init__()
        self.words = nn.EmbeddingBag(n_words, hidden[0], mode="sum", include_last_offset=True)
        nn.init.normal_(self.words.weight, std=0.05)
        self.dense = nn.Linear(dense_width, hidden[0]) if dense_width else None
        self.bias = nn.Parameter(torch.zeros(hidden[0]))
        layers: list[nn.Module] = [nn.ReLU()]
        for width, size in itertools.pairwise(hidden):
            layers += [nn.Linear(width, size), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def forward(
        self,
        columns: torch.Tensor,
        offsets: torch.Tensor,
        values: torch.Tensor,
        dense: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Log price, shape (n_rows, 1).

        Args:
            columns: column of each held value, shape (n_values,).
            offsets: where each row starts, and where the last ends, shape (n_rows + 1,).
            values: shape (n_values,).
            dense: shape (n_rows, dense_width).
        """
        first = self.words(columns, offsets, per_sample_weights=values) + self.bias
        if self.dense is not None and dense is not None:
            first = first + self.dense(dense)
        prices: torch.Tensor = self.mlp(first)
        return prices
