"""Weights of big models: kept as they are stored, never doubled, their memory told, tuned by adapters alone."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from embed.encoders import base
from embed.encoders.base import Sources
from embed.encoders.registry import library_of
from embed.encoders.resolve import resolve
from embed.encoders.show import show, show_lines
from embed.finetune.layers import prepare_tower
from embed.finetune.recipe import FinetuneRecipe
from embed.forward.precision import candidates
from embed.job import report
from store.cli import main
from store.errors import EncoderError
from store.workspace import Workspace
from tests import family_models as of
from tests.fake_models import save_tiny_clip, save_tiny_timm
from tests.finetune_runs import demo_workspace, embedded, tiny_job

TEXTS = ["red shirt", "blue", "a very long text of many words"]
CARD = 24e9  # bytes


@pytest.fixture
def big(monkeypatch):
    """Whatever is loaded counts as big."""
    monkeypatch.setattr(base, "BIG_PARAMETERS", 1000)
    monkeypatch.setattr(report, "TOLD_MEMORY", 0)


def half_decoder(folder, dtype=torch.bfloat16, **sizes):
    from transformers import AutoModel

    full = of.decoder(folder.parent / f"{folder.name}-fp32", **sizes)
    of.save_tiny_tokenizer(folder)
    AutoModel.from_pretrained(full, dtype=dtype).save_pretrained(folder)
    return folder


def loaded(tmp_path, folder, precision="auto"):
    (one,) = resolve(
        Workspace(tmp_path / "workspace"), f"hf:{folder}?max_tokens=24", Sources(offline=True), precision
    )
    (encoder,) = library_of(one.address).load([one])
    return one, encoder


def vectors_of(encoder, texts):
    tokens = encoder.tokenize(texts)
    found = []
    for ids in tokens.sequences:
        row = torch.from_numpy(ids).long()[None]
        with torch.inference_mode():
            found.append(encoder.forward(row, torch.ones_like(row)).float().numpy()[0])
    return np.stack(found)


@pytest.mark.parametrize("dtype, name", [(torch.bfloat16, "bf16"), (torch.float16, "fp16")])
def test_weights_of_a_big_model_stay_as_they_are_stored(big, tmp_path, dtype, name):
    from transformers import AutoModel

    folder = half_decoder(tmp_path / "model", dtype)
    one, encoder = loaded(tmp_path, folder)
    assert one.loaded_as == name
    assert {parameter.dtype for parameter in encoder.module.parameters()} == {dtype}
    assert [mode.dtype for mode in candidates("auto", "cuda", False, name)] == [name]
    theirs = AutoModel.from_pretrained(folder, dtype=dtype).eval()
    with torch.inference_mode():
        expected = [
            theirs(torch.from_numpy(ids).long()[None]).last_hidden_state[0, -1].float().numpy()
            for ids in encoder.tokenize(TEXTS).sequences
        ]
    assert of_cosine(vectors_of(encoder, TEXTS), np.stack(expected)) >= 0.9999


def test_a_big_model_stored_in_fp32_and_a_small_one_in_half_are_measured_as_before(monkeypatch, tmp_path):
    one, encoder = loaded(tmp_path, half_decoder(tmp_path / "small"))
    assert one.loaded_as == "fp32"
    assert {parameter.dtype for parameter in encoder.module.parameters()} == {torch.float32}
    monkeypatch.setattr(base, "BIG_PARAMETERS", 1000)
    assert loaded(tmp_path, tmp_path / "small-fp32")[0].loaded_as == "fp32"


def test_the_precision_asked_for_decides_how_a_big_model_is_loaded(big, tmp_path):
    one, encoder = loaded(tmp_path, half_decoder(tmp_path / "model"), precision="fp32")
    assert one.loaded_as == "fp32"
    assert {parameter.dtype for parameter in encoder.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "save, weights",
    [
        (save_tiny_timm, "model.safetensors"),
        (save_tiny_clip, "open_clip_model.safetensors"),
        (of.static, "model.safetensors"),
    ],
)
def test_libraries_that_compute_in_fp32_are_told_to_take_fp32(big, tmp_path, save, weights):
    folder = save(tmp_path / "model")
    (path,) = folder.rglob(weights)
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    found = resolve(Workspace(tmp_path / "workspace"), str(folder), Sources(offline=True))
    assert found[0].n_parameters > 1000
    for one, encoder in zip(found, library_of(found[0].address).load(found), strict=True):
        assert one.loaded_as == "fp32"
        assert one.memory_bytes == 4 * one.n_parameters
        assert {parameter.dtype for parameter in encoder.module.parameters()} == {torch.float32}


def test_the_plan_says_what_a_big_model_takes(big, tmp_path):
    folder = half_decoder(tmp_path / "model")
    workspace = demo_workspace(tmp_path / "demo", train=20, test=4)
    result = CliRunner().invoke(
        main,
        ["embed", "plan", "--offline", "-e", f"hf:{folder}?max_tokens=24@name", "-w", workspace.root],
        catch_exceptions=False,
    )
    assert "its weights take 0.0 GB of memory (bf16, as stored)" in result.output
    assert result.exit_code == 0


def test_eight_billion_weights_of_two_bytes_fit_a_card_of_24_gb(tmp_path):
    """The header of a file says how many there are: it is made here, the weights are not."""
    folder = of.decoder(tmp_path / "model")
    of.set_json(folder / "config.json", hidden_size=4096)
    shapes = {"embed_tokens.weight": [151936, 4096], "layers": [36, 192_936_000]}
    write_header(folder / "model.safetensors", shapes)
    (shown,) = show([f"hf:{folder}?max_tokens=24"], Sources(offline=True))
    assert 15e9 < shown.memory_bytes < 16.5e9 < CARD
    assert "GB in memory" in show_lines(shown)[0]
    (packed,) = show([f"hf:{folder}?max_tokens=24&quantize=4bit"], Sources(offline=True))
    assert packed.memory_bytes < 5e9


def test_packed_weights_are_another_recipe_and_are_refused_without_a_gpu(tmp_path):
    folder = of.decoder(tmp_path / "model")
    workspace = Workspace(tmp_path / "workspace")
    plain, packed = (
        resolve(workspace, f"hf:{folder}?max_tokens=24{option}", Sources(offline=True), "auto")[0]
        for option in ("", "&quantize=8bit")
    )
    assert plain.spec.fingerprint != packed.spec.fingerprint
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(EncoderError, match=r"quantize=8bit needs .*shelfprice\[quantize\]"):
        library_of(packed.address).load([packed])


def test_weights_in_half_precision_are_tuned_by_adapters_alone(big, tmp_path):
    _, encoder = loaded(tmp_path, half_decoder(tmp_path / "model"))
    with pytest.raises(EncoderError, match="too coarse for training: pass --lora"):
        prepare_tower(encoder.module, "model", FinetuneRecipe())
    prepare_tower(encoder.module, "model", replace(FinetuneRecipe(), lora=2, last_blocks=1))
    trained = {name: p for name, p in encoder.module.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    ids = torch.from_numpy(encoder.tokenize(TEXTS[:1]).sequences[0]).long()[None]
    encoder.forward(ids, torch.ones_like(ids)).float().square().sum().backward()
    assert all(p.grad is not None for p in trained.values())


def test_adapters_go_into_the_last_three_blocks_of_a_big_model_unless_more_are_asked_for(big, tmp_path):
    address = f"hf:{half_decoder(tmp_path / 'model', num_hidden_layers=5)}?max_tokens=24@name"
    workspace = demo_workspace(tmp_path / "demo", train=20, test=4)
    embedded(workspace, address, precision="auto")
    job = tiny_job(workspace, (address,), "big", lora=2, warmup_epochs=0)
    (encoder,) = job.load_encoders()
    prepare_tower(encoder.module, "model", job.recipe)
    tuned = {name.split("layers.")[1][0] for name, p in encoder.module.named_parameters() if p.requires_grad}
    assert tuned == {"2", "3", "4"}
    assert (
        tiny_job(workspace, (address,), "all", lora=2, warmup_epochs=0, last_blocks=5).recipe.last_blocks == 5
    )


def of_cosine(ours, theirs):
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).min())


def write_header(path, shapes):
    """A safetensors file of bf16 tensors, without the tensors."""
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
