"""A library of encoders as someone else's package would bring it, in one file: a text's vector counts its letters."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from embed.encoders.base import Address, HashFile, Resolved, Sources, Tokens, text_preprocessing
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

PREFIX = "letters"
ALIASES = {"vowels": "aeiou", "cased-vowels": "aeiouAEIOU"}
MAX_TOKENS = 64


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """`letters:abc` counts a, b and c."""
    if not set(address.model) <= set(string.ascii_letters):
        raise EncoderError(f"{address.name}: {address.model!r} is more than letters")
    spec = EncoderSpec(
        name=address.name,
        modality="text",
        library="letters",
        model=address.model,
        weights_sha256=digest(address.model, characters=64),
        dim=len(address.model),
        preprocessing=text_preprocessing(tokenizer_sha256=digest("code points"), max_tokens=MAX_TOKENS),
        pooling="mean",
        normalize=False,
    )
    return [Resolved(address, spec, {}, "1")]


def load(resolved: Sequence[Resolved]) -> list[Any]:
    return [LetterCounter(one) for one in resolved]


class LetterCounter:
    """Implements `embed.encoders.base.TextModel`."""

    pad_id = 0

    def __init__(self, resolved: Resolved) -> None:
        import torch

        self.spec = resolved.spec
        self.module = torch.nn.Embedding(128, self.spec.dim)
        weights = torch.zeros(128, self.spec.dim)
        weights[[ord(letter) for letter in self.spec.model], torch.arange(self.spec.dim)] = 1.0
        self.module.load_state_dict({"weight": weights})

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        codes = [np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int32) for text in texts]
        cut = [code[:MAX_TOKENS] for code in codes]
        n_truncated = sum(len(code) > MAX_TOKENS for code in codes)
        return Tokens(cut, np.arange(len(texts), dtype=np.int32), n_truncated)

    def forward(self, ids: Any, mask: Any) -> Any:
        return (self.module(ids) * mask[:, :, None]).sum(1)


def expected(text: str, letters: str) -> list[float]:
    """The vector of a text."""
    return [float(text[:MAX_TOKENS].count(letter)) for letter in letters]
