import itertools
from dataclasses import replace

import pytest
import torch

from embed.encoders import registry
from embed.testing import check_encoder
from tests import letter_encoder
from tests.fake_models import save_tiny_clip, save_tiny_sentence_model, save_tiny_timm


class Broken:
    """The library of letters with one fault."""

    PREFIX = "broken"

    def __init__(self, declared=None, forward=None, dim=0):
        self.declared, self.forward, self.dim = declared or {}, forward, dim
        self.n = itertools.count()

    def resolve(self, address, sources, hash_file):
        (one,) = letter_encoder.resolve(replace(address, model="aeiou"), sources, hash_file)
        changes = {name: value(self) if callable(value) else value for name, value in self.declared.items()}
        return [replace(one, spec=replace(one.spec, **changes))]

    def load(self, resolved):
        spec = replace(resolved[0].spec, model="aeiou", dim=5)
        (encoder,) = letter_encoder.load([replace(resolved[0], spec=spec)])
        encoder.spec = resolved[0].spec
        if self.forward:
            plain = encoder.forward
            encoder.forward = lambda ids, mask: self.forward(self, plain(ids, mask), ids)
        return [encoder]


@pytest.mark.parametrize(
    "library, words",
    [
        (Broken({"model": lambda self: f"m{next(self.n)}"}), "resolved twice, it declares another thing"),
        (Broken({"modality": "sound"}), "modality must be one of text, image, joint, got 'sound'"),
        (Broken({"weights_sha256": "abc"}), "weights_sha256 must be 64 hex characters"),
        (Broken({"preprocessing": {"prompt": ""}}), "preprocessing lacks long, max_tokens, tokenizer_sha256"),
        (Broken({"normalize": True}), "normalize is declared, a vector is"),
        (Broken(forward=lambda self, X, ids: X * float("nan")), "a vector is not finite"),
        (Broken(forward=lambda self, X, ids: X * 0 + 1), "different items have the same vector"),
        (
            Broken(forward=lambda self, X, ids: X.roll(next(self.n), 1)),
            "loaded twice, it gives other vectors",
        ),
        (
            Broken(forward=lambda self, X, ids: X + torch.arange(5) * ids.shape[1]),
            "an item alone has another vector than among others",
        ),
    ],
)
def test_what_the_cache_relies_on_is_checked(monkeypatch, library, words):
    monkeypatch.setattr(registry, "_registered", {"broken": library})
    with pytest.raises(AssertionError, match=words):
        check_encoder("broken:x")


def test_an_encoder_without_a_fault_passes(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"letters": letter_encoder})
    check_encoder("vowels")
    check_encoder("letters:xyz", ["xylophone", "zinc", "x", "fizz"])


@pytest.mark.parametrize("save", [save_tiny_sentence_model, save_tiny_timm, save_tiny_clip])
def test_the_libraries_that_come_with_shelfprice_pass(tmp_path, save):
    check_encoder(str(save(tmp_path / "model")), offline=True)
