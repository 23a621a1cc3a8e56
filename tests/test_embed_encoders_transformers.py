import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from embed.encoders.base import Sources
from embed.encoders.libraries.transformers import load, resolve
from embed.encoders.registry import parse_address
from store.errors import EncoderError
from tests.fake_models import fake_hub_cache, save_tiny_bert, save_tiny_tokenizer

OFFLINE = Sources(offline=True)
TEXTS = ["red cotton shirt", "pack of six " * 60, "x", ""]


def hash_file(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def resolved(address, sources=OFFLINE):
    return resolve(parse_address(str(address)), sources, hash_file)


def vectors(encoder, texts):
    sequences = encoder.tokenize(texts).sequences
    longest = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), longest), encoder.pad_id)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    with torch.no_grad():
        return encoder.forward(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()


def library_vectors(folder, texts, pooling, max_tokens):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:  # one at a time: no padding at all
        inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        found.append({"cls": hidden[0], "mean": hidden.mean(dim=0), "last": hidden[-1]}[pooling].numpy())
    return np.stack(found)


@pytest.fixture
def bert(tmp_path):
    return save_tiny_bert(tmp_path / "bert")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_those_of_the_library_one_text_at_a_time(bert, pooling):
    (encoder,) = load(resolved(f"{bert}?pooling={pooling}&max_tokens=32"))
    ours = vectors(encoder, TEXTS)
    assert ours.shape == (4, encoder.spec.dim) == (4, 32)
    np.testing.assert_allclose(ours, library_vectors(bert, TEXTS, pooling, 32), atol=2e-6)


@pytest.mark.parametrize("kind", ["roberta", "t5", "distilbert", "gpt2"])
def test_other_architectures_give_the_librarys_vectors(tmp_path, kind):
    from transformers import (
        DistilBertConfig,
        DistilBertModel,
        GPT2Config,
        GPT2Model,
        RobertaConfig,
        RobertaModel,
        T5Config,
        T5EncoderModel,
    )

    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}
    if kind == "roberta":
        model = RobertaModel(RobertaConfig(**sizes, intermediate_size=64, max_position_embeddings=40))
    elif kind == "t5":
        model = T5EncoderModel(
            T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
        )
    elif kind == "gpt2":
        model = GPT2Model(GPT2Config(vocab_size=100, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    else:
        model = DistilBertModel(
            DistilBertConfig(vocab_size=100, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
        )
    folder = save_tiny_tokenizer(tmp_path / kind)
    model.save_pretrained(folder)
    (one,) = resolved(f"{folder}?pooling=mean")
    longest = {"roberta": 38, "t5": 512, "distilbert": 512, "gpt2": 64}
    assert one.spec.preprocessing["max_tokens"] == longest[kind]
    with torch.no_grad():
        ids = torch.tensor([[2, 5, 6, 7, 3]])
        expected = model.eval()(input_ids=ids).last_hidden_state.mean(dim=1).numpy()
    (encoder,) = load([one])
    np.testing.assert_allclose(encoder.forward(ids, torch.ones_like(ids)).detach(), expected, atol=2e-6)


def test_weights_in_shards_are_loaded_and_all_of_them_hashed(bert, tmp_path):
    from transformers import AutoModel

    folder = save_tiny_tokenizer(tmp_path / "shards")
    AutoModel.from_pretrained(bert).save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    np.testing.assert_array_equal(
        vectors(load(resolved(folder))[0], TEXTS), vectors(load(resolved(bert))[0], TEXTS)
    )
    before = resolved(folder)[0].spec.weights_sha256
    shards[-1].write_bytes(shards[-1].read_bytes() + b" ")
    assert resolved(folder)[0].spec.weights_sha256 != before
    shards[-1].unlink()
    with pytest.raises(EncoderError, match=rf"lacks {shards[-1].name}"):
        resolved(folder)


def test_the_fingerprint_holds_what_changes_a_vector_and_nothing_else(bert, tmp_path):
    def fingerprint(address):
        return resolved(address)[0].spec.fingerprint

    base = fingerprint(f"{bert}?pooling=cls&max_tokens=32")
    assert fingerprint(f"{save_tiny_bert(tmp_path / 'moved')}?pooling=cls&max_tokens=32") == base
    others = {
        fingerprint(f"{bert}?pooling=mean&max_tokens=32"),
        fingerprint(f"{bert}?pooling=cls&max_tokens=31"),
        fingerprint(f"{bert}?pooling=cls&max_tokens=32&long=chunks"),
        fingerprint(f"{bert}?pooling=cls&max_tokens=32&prompt=query: "),
        fingerprint(f"{save_tiny_bert(tmp_path / 'other', seed=1)}?pooling=cls&max_tokens=32"),
    }
    assert len(others | {base}) == 6


def test_bert_base_is_the_first_token_of_256_as_in_the_winning_system(tmp_path, monkeypatch, bert):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = {path.name: path.read_bytes() for path in bert.iterdir()}
    config = json.loads(files["config.json"]) | {"max_position_embeddings": 512}
    files["config.json"] = json.dumps(config).encode()
    fake_hub_cache(tmp_path, "google-bert/bert-base-uncased", files)
    (one,) = resolved("bert-base")
    assert (one.spec.pooling, one.spec.preprocessing["max_tokens"]) == ("cls", 256)
    assert one.spec.name == "bert-base"


# ---- bad input -----------------------------------------------------------------------------------


def test_offline_without_the_model_names_files_places_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        EncoderError,
        match=r"bert-base: no config.json, tokenizer.json, model.safetensors of 'google-bert/bert-base-uncased' in "
        r".*: on a connected machine run 'shelfprice embed fetch bert-base",
    ):
        resolved("bert-base")


def test_a_folder_without_its_tokenizer_is_refused(bert):
    (bert / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"lacks tokenizer.json"):
        resolved(bert)


def test_a_damaged_tokenizer_is_one_clear_line(bert):
    (bert / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    with pytest.raises(EncoderError, match=r"the tokenizer can't be loaded, .*: fetch it again"):
        load(resolved(bert))


def test_truncated_weights_are_one_clear_line(bert):
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(EncoderError, match="can't be loaded, its weights are damaged or of another model"):
        load(resolved(bert))


def test_weights_of_another_model_are_refused_not_filled_up_at_random(bert, tmp_path):
    deeper = save_tiny_bert(tmp_path / "deeper", num_hidden_layers=3)
    (deeper / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    with pytest.raises(
        EncoderError, match=r"of another model, they lack 16 tensors \(first: encoder.layer.2"
    ):
        load(resolved(deeper))


def test_weights_of_another_width_are_refused(bert, tmp_path):
    wider = save_tiny_bert(tmp_path / "wider", hidden_size=48)
    (wider / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    with pytest.raises(EncoderError, match="can't be loaded, its weights are damaged or of another model"):
        load(resolved(wider))


def test_a_checkpoint_with_code_in_it_is_refused_unrun(bert, tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    (bert / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Evil()}, bert / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="can't be loaded"):
        load(resolved(bert))
    assert not ran.exists()


@pytest.mark.parametrize(
    "query, message",
    [
        ("pooling=max", "pooling must be one of mean, cls, last, got 'max'"),
        ("max_tokens=100000", "max_tokens must be a whole number from 3 to 64, got '100000'"),
        ("max_tokens=many", "max_tokens must be a whole number from 3 to 64, got 'many'"),
        ("long=cut", "long must be one of truncate, chunks, got 'cut'"),
        (
            "layers=2",
            "unknown option 'layers', one of chat, dim, long, max_patches, max_tokens, normalize, pooling",
        ),
    ],
)
def test_an_option_that_is_not_understood_is_named(bert, query, message):
    with pytest.raises(EncoderError, match=message):
        resolved(f"{bert}?{query}")
