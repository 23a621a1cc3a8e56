"""Two libraries of encoders without weights: letters of a text counted, colours of an image averaged."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from embed.encoders.base import Address, HashFile, Resolved, Sources, image_preprocessing
from embed.encoders.registry import register_encoder
from store.vectors.spec import EncoderSpec, digest
from tests import letter_encoder

TEXT, IMAGE = "vowels@full", "colours"
PIXELS, CELLS = 8, 2


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """`colours:2` averages each colour in 2 x 2 cells."""
    side = (PIXELS, PIXELS)
    spec = EncoderSpec(
        name=address.name,
        modality="image",
        library="colours",
        model=address.model,
        weights_sha256=digest(address.model, characters=64),
        dim=3 * CELLS * CELLS,
        preprocessing=image_preprocessing(
            size=side,
            resize="squash",
            resize_to=side,
            interpolation="bilinear",
            mean=[0.5] * 3,
            std=[0.5] * 3,
        ),
        pooling="mean",
        normalize=False,
    )
    return [Resolved(address, spec, {}, "1")]


class Colours:
    """Implements `embed.encoders.base.ImageEncoder`."""

    def __init__(self, spec: EncoderSpec) -> None:
        import torch

        self.spec = spec
        self.module = torch.nn.AdaptiveAvgPool2d(CELLS)

    def forward(self, pixels: Any) -> Any:
        return self.module(pixels).flatten(1)


def load(resolved: Sequence[Resolved]) -> list[Any]:
    return [Colours(one.spec) for one in resolved]


def register() -> None:
    """Make both known to this process."""
    register_encoder(letter_encoder)
    register_encoder(SimpleNamespace(PREFIX="colours", ALIASES={IMAGE: "2"}, resolve=resolve, load=load))
