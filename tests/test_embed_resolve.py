"""What was resolved is remembered: nothing is hashed twice, and nothing old is taken for what lies there now."""

import hashlib
import os
import shutil

import pytest

from embed.encoders.base import Sources
from embed.encoders.resolve import resolve
from store.workspace import Workspace
from tests.fake_models import save_tiny_bert, save_tiny_timm


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def bert(tmp_path):
    return save_tiny_bert(tmp_path / "bert")


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are hashed."""
    names: list[str] = []
    digest = hashlib.file_digest

    def spied(file, algorithm):
        names.append(os.path.basename(file.name))
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", spied)
    return names


def fingerprint(workspace, name):
    (one,) = resolve(workspace, str(name), Sources(offline=True))
    return one.spec.fingerprint


def test_weights_are_hashed_once_whatever_the_options(workspace, bert, hashed):
    first = fingerprint(workspace, bert)
    assert "model.safetensors" in hashed
    hashed.clear()
    assert fingerprint(workspace, bert) == first
    assert fingerprint(workspace, f"{bert}?pooling=cls") != first
    assert hashed == []


def test_files_that_changed_are_hashed_again(workspace, bert, tmp_path, hashed):
    first = fingerprint(workspace, bert)
    other = save_tiny_bert(tmp_path / "other", seed=1)
    shutil.copyfile(other / "model.safetensors", bert / "model.safetensors")
    hashed.clear()
    assert fingerprint(workspace, bert) != first
    assert hashed == ["model.safetensors"]


def test_a_file_that_joined_the_others_is_noticed(workspace, bert):
    first = fingerprint(workspace, bert)
    (bert / "added_tokens.json").write_text('{"oz": 60}')  # changes token ids
    assert fingerprint(workspace, bert) != first


@pytest.mark.parametrize("name", ["hf:model", "timm:resnet10t?weights=model.safetensors"])
def test_the_same_name_in_another_folder_is_another_model(workspace, tmp_path, monkeypatch, name):
    found = []
    for seed in (0, 1):
        here = tmp_path / str(seed)
        save_tiny_bert(here / "model", seed)
        shutil.copyfile(save_tiny_timm(here / "timm", seed) / "model.safetensors", here / "model.safetensors")
        monkeypatch.chdir(here)
        found.append(fingerprint(workspace, name))
    assert found[0] != found[1]
