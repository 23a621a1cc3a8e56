"""The encoders by name and the addresses that documents show, found in a hub's cache as they lie there."""

import hashlib
import json

import pytest

from embed.encoders.base import Sources
from embed.encoders.registry import library_of, parse_address
from tests.fake_models import fake_hub_cache, save_tiny_sentence_model, save_tiny_timm, save_tiny_tokenizer

OFFLINE = Sources(offline=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def resolved(name):
    address = parse_address(name)
    hash_file = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()  # noqa: E731
    return library_of(address).resolve(address, OFFLINE, hash_file)


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "name, repo, dim, size, interpolation",
    [
        ("timm:convnext_base.fb_in22k", "timm/convnext_base.fb_in22k", 1024, 224, "bicubic"),
        ("efficientnet-b4", "timm/efficientnet_b4.ra2_in1k", 1792, 380, "bicubic"),
    ],
)
def test_a_timm_model_of_the_hub_gets_the_preprocessing_it_was_trained_with(
    cache, name, repo, dim, size, interpolation
):
    import timm

    architecture = repo.partition("/")[2]
    described = {"architecture": architecture.partition(".")[0], "pretrained_cfg": {}}
    settings = timm.get_pretrained_cfg(architecture).to_dict()
    described["pretrained_cfg"] = {k: v for k, v in settings.items() if v is not None}
    files = {"config.json": json.dumps(described).encode(), "model.safetensors": b"weights"}
    fake_hub_cache(cache, repo, files)
    (one,) = resolved(name)
    assert (one.spec.name, one.spec.dim) == (name, dim)
    assert one.spec.preprocessing["size"] == [size, size]
    assert one.spec.preprocessing["interpolation"] == interpolation
    assert one.spec.preprocessing["mean"] == list(settings["mean"])


@pytest.mark.parametrize("name", ["timm:somebody/tiny", "timm:hf-hub:somebody/tiny"])
def test_a_timm_model_that_is_not_one_of_timms_own_says_itself_what_it_is(cache, tmp_path, name):
    fake_hub_cache(cache, "somebody/tiny", files_of(save_tiny_timm(tmp_path / "tiny")))
    (one,) = resolved(name)
    assert (one.spec.model, one.spec.dim, one.spec.preprocessing["size"]) == ("resnet10t", 512, [32, 32])


def test_clip_h14_is_two_encoders_of_1024_numbers(cache):
    fake_hub_cache(
        cache, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", {"open_clip_model.safetensors": b"weights"}
    )
    image, text = resolved("clip-vit-h14")
    assert (image.spec.name, text.spec.name) == ("clip-vit-h14.image", "clip-vit-h14.text")
    assert image.spec.dim == text.spec.dim == 1024
    assert image.model_key == text.model_key


def test_siglip_is_squashed_and_its_text_canonicalised_to_64_tokens(cache, tmp_path):
    tokenizer = files_of(save_tiny_tokenizer(tmp_path / "tokenizer"))
    fake_hub_cache(cache, "timm/ViT-B-16-SigLIP", {"open_clip_model.safetensors": b"weights", **tokenizer})
    image, text = resolved("open_clip:ViT-B-16-SigLIP/webli")
    assert image.spec.preprocessing["resize"] == "squash"
    assert image.spec.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert text.spec.preprocessing["max_tokens"] == 64
    assert image.spec.dim == text.spec.dim == 768


def test_deberta_takes_its_options_from_the_address(cache, tmp_path):
    """Its repository holds weights in the old format alone."""
    config = {"model_type": "deberta-v2", "hidden_size": 1024, "max_position_embeddings": 512}
    tokenizer = files_of(save_tiny_tokenizer(tmp_path / "tokenizer"))
    files = {"config.json": json.dumps(config).encode(), "pytorch_model.bin": b"weights", **tokenizer}
    fake_hub_cache(cache, "microsoft/deberta-v3-large", files)
    (one,) = resolved("hf:microsoft/deberta-v3-large?pooling=mean&max_tokens=384")
    assert (one.spec.pooling, one.spec.preprocessing["max_tokens"], one.spec.dim) == ("mean", 384, 1024)


def test_a_sentence_model_of_the_hub_pools_as_its_own_files_say(cache, tmp_path):
    folder = save_tiny_sentence_model(tmp_path / "bge", max_tokens=16, pooling="cls")
    fake_hub_cache(cache, "BAAI/bge-small-en-v1.5", files_of(folder))
    (one,) = resolved("st:BAAI/bge-small-en-v1.5")
    assert (one.spec.pooling, one.spec.normalize) == ("cls", True)
    assert one.spec.preprocessing["max_tokens"] == 16
