"""Dimension and unit length of vectors: the model's own, or cut where the model was trained for that."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed.encoders.base import Address
from embed.encoders.hub import model_card, model_names
from embed.encoders.options import flag, number
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

CUT_FROM = "cut_from"  # in a spec's `extra`: what the model makes, where less is kept
# Source: the model cards. Last part of a name in lower case -> dimensions trained for; a range: any from the first on.
TRAINED: tuple[tuple[str, range | tuple[int, ...]], ...] = (
    (r"embeddinggemma-300m.*", (128, 256, 512, 768)),
    (r"embeddinggemma-2.*", (128, 256, 512, 768)),
    (r"qwen3-embedding-.*", range(32, 2**16)),
    (r"qwen3-vl-embedding-.*", range(64, 2**16)),
    (r"nomic-embed-text-v(1\.5|2-moe)", (64, 128, 256, 512, 768)),
    (r"modernbert-embed-(base|large)", (256,)),
    (r"snowflake-arctic-embed-(m-v1\.5|m-v2\.0|l-v2\.0)", (256,)),
    (r"mxbai-embed-large-v1", range(64, 2**16)),
    (r"jina-embeddings-v[345].*", range(32, 2**16)),
)
STATED = ("matryoshka_dimensions", "matryoshka_dims", "mrl_dimensions")  # in a model's configuration
CARD_SAYS = re.compile(r"matryoshka", re.IGNORECASE)
# The cards that sentence-transformers writes link to an introduction, whatever the training.
CARD_SAYS_NOT = re.compile(
    r"Introduction to Matryoshka[^\n]*|\b(?:not?|non|without)\b[^.\n]{0,40}matryoshka|<!--.*?-->|https?://[^\s)]*",
    re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True)
class VectorShape:
    """What is kept of a model's vectors."""

    dim: int
    normalize: bool
    extra: dict[str, Any]  # for the spec: empty where nothing is cut


def vector_shape(
    address: Address,
    folder: Path | None,
    config: dict[str, Any],
    *,
    own_dim: int,
    normalizes: bool,
    cut_to: int | None = None,
) -> VectorShape:
    """From the options `dim` and `normalize`.

    Args:
        folder: of the model, for its card.
        config: the model's `config.json`.
        own_dim: what the model makes.
        normalizes: whether the model's own files say so.
        cut_to: what the model's own files say vectors are cut to.

    Raises:
        EncoderError: the model was not trained for that dimension.
    """
    dim = number(address, "dim", 1, own_dim)
    if dim is not None and dim < own_dim and dim != cut_to:
        _check_trained(address, folder, config, dim, own_dim)
    dim = dim or cut_to or own_dim
    if dim >= own_dim:
        return VectorShape(own_dim, flag(address, "normalize", normalizes), {})
    return VectorShape(dim, flag(address, "normalize", True), {CUT_FROM: own_dim})


def _check_trained(
    address: Address, folder: Path | None, config: dict[str, Any], dim: int, own_dim: int
) -> None:
    trained: Sequence[int] | None = next((config[key] for key in STATED if config.get(key)), None)
    if trained is None:
        names = [name.lower() for name in model_names(address, config)]
        trained = next((dims for pattern, dims in TRAINED for n in names if re.fullmatch(pattern, n)), None)
    if trained is None and folder is not None and CARD_SAYS.search(CARD_SAYS_NOT.sub("", model_card(folder))):
        return
    if trained is None:
        raise EncoderError(
            f"{address.name}: dim={dim} would cut vectors of {own_dim} numbers, and neither the model's files nor its "
            "card say that it was trained for that (Matryoshka): leave dim out, or reduce in the head"
        )
    if dim not in trained:
        known = f"{trained[0]} to {own_dim}" if isinstance(trained, range) else ", ".join(map(str, trained))
        raise EncoderError(f"{address.name}: the model was not trained for dim={dim}: choose one of {known}")


def shaped(vectors: "torch.Tensor", spec: EncoderSpec) -> "torch.Tensor":
    """Vectors of shape (n_rows, at least dim) cut to the spec's dimension, then of unit length where it says so."""
    import torch

    if CUT_FROM in spec.extra:
        vectors = vectors[:, : spec.dim]
    return torch.nn.functional.normalize(vectors.float(), dim=-1) if spec.normalize else vectors
