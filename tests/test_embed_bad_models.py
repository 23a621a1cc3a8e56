"""Whatever is wrong with an encoder: the command ends with one line and code 1, and leaves nothing half-written."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from store.cli import main
from store.workspace import Workspace
from tests.fake_models import save_tiny_bert, save_tiny_clip, save_tiny_sentence_model, save_tiny_timm
from tests.fakes import catalog_table, publish_catalog


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_bert(folder / "hf")
    save_tiny_sentence_model(folder / "st", max_tokens=8)
    save_tiny_clip(folder / "open_clip")
    save_tiny_timm(folder / "timm")
    return folder


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path / "workspace")
    rows = [{"sample_id": i, "name": f"red shirt {i}", "price": 1.0} for i in range(12)]
    publish_catalog(made, catalog_table(rows))
    return made


def run(workspace, encoder, *more):
    arguments = ["embed", "run", "--offline", "--devices", "cpu", "--precision", "fp32", "-e", encoder, *more]
    return CliRunner().invoke(main, [*arguments, "-w", workspace.root])


def assert_one_line(result, *words):
    assert result.exit_code == 1, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in last


def assert_nothing_half_written(workspace):
    files = [path.name for path in Path(workspace.root).rglob("*") if path.is_file()]
    assert not [name for name in files if name.startswith((".writing", "part-"))]


@pytest.mark.parametrize(
    "encoder, words",
    [
        ("clip-vit-l41", ["did you mean clip-vit-l14"]),
        ("tensorflow:resnet", ["unknown library 'tensorflow', one of open_clip, st, timm, hf"]),
        ("hf:", ["an address is hf:MODEL"]),
        ("timm:convnext_bse.fb_in22k", ["did you mean", "convnext_base.fb_in22k"]),
        ("timm:convnext_base.fb_in22kk", ["did you mean convnext_base.fb_in22k"]),
        ("timm:nobody/nothing", ["config.json", "of 'nobody/nothing'"]),
        ("open_clip:ViT-B-16-SigLIP/weblo", ["has no weights 'weblo', one of webli"]),
        ("hf:nobody/nothing?pooling", ["options are written ?key=value"]),
        ("hf:nobody/nothing?pooling=cls&pooling=mean", ["the option 'pooling' is given twice"]),
        ("hf:nobody/nothing", ["config.json", "shelfprice embed fetch hf:nobody/nothing"]),
        (
            "hf:nobody/nothing?pooling=cls&long=chunks",
            ['embed fetch "hf:nobody/nothing?pooling=cls&long=chunks"'],
        ),
        ("hf:/nowhere/bert", ["'/nowhere/bert' is no folder here, and no name of a model on the hub"]),
        ("minilm.image", ["the model has no towers: leave out .image"]),
        ("st:nobody/nothing@name", ["modules.json", "shelfprice embed fetch st:nobody/nothing"]),
    ],
)
def test_a_name_or_address_that_leads_nowhere(workspace, encoder, words, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert_one_line(run(workspace, encoder), *words)
    assert_nothing_half_written(workspace)


@pytest.mark.parametrize(
    "library, weights",
    [
        ("hf", "model.safetensors"),
        ("st", "model.safetensors"),
        ("open_clip", "open_clip_model.safetensors"),
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "corrupt", "of another model"])
def test_weights_that_are_damaged_or_of_another_model(workspace, models, tmp_path, library, weights, damage):
    broken = shutil.copytree(models / library, tmp_path / "broken")
    path = broken / weights
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "corrupt":
        path.write_bytes(b"\xff" * 64 + content[64:])
    else:
        shutil.copy(models / "timm" / "model.safetensors", path)
    name = f"{broken}.text@name" if library == "open_clip" else f"{broken}@name"
    assert_one_line(run(workspace, name), "broken")
    assert_nothing_half_written(workspace)
    shutil.copy(models / library / weights, path)
    assert "12 embedded" in run(workspace, name).output  # mended, the same command goes on


@pytest.mark.parametrize("library", ["hf", "st"])
def test_a_tokenizer_that_is_missing(workspace, models, tmp_path, library):
    broken = shutil.copytree(models / library, tmp_path / "broken")
    (broken / "tokenizer.json").unlink()
    (broken / "vocab.txt").unlink(missing_ok=True)
    assert_one_line(run(workspace, f"{broken}@name"), "broken", "tokenizer")
    assert_nothing_half_written(workspace)


def test_a_sentence_model_whose_weights_hold_code_is_refused_unrun(workspace, models, tmp_path):
    import torch

    broken, ran = shutil.copytree(models / "st", tmp_path / "broken"), tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    (broken / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Evil()}, broken / "pytorch_model.bin")
    assert_one_line(run(workspace, f"{broken}@name"), "broken")
    assert not ran.exists()


def test_a_disk_that_fills_up_while_publishing(workspace, models, monkeypatch):
    real, calls = os.replace, []

    def full(source, target):
        if "part-" in str(target):
            calls.append(target)
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    asked = ("--batch-tokens", "12", "--publish-every", "0")
    assert_one_line(run(workspace, f"{models / 'hf'}@name", *asked), "no space left", "run the command again")
    monkeypatch.undo()
    assert not [path for path in Path(workspace.root).rglob(".writing*")]
    result = run(workspace, f"{models / 'hf'}@name")
    assert "12 distinct texts, 12 with a vector" in result.output
    assert "12 embedded" not in result.output  # what was published before the disk was full is kept


def test_a_workspace_that_can_not_be_written(workspace, models):
    Path(workspace.path("vectors")).write_text("in the way, as a read-only mount would be")
    assert_one_line(run(workspace, f"{models / 'hf'}@name"), "can't write")
