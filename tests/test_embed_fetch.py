import errno
import hashlib
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from embed.encoders.base import Sources
from embed.encoders.fetch import fetch
from embed.encoders.registry import library_of, parse_address
from store.errors import EncoderError
from tests import family_models as of
from tests.fake_models import fake_hub_cache, save_tiny_bert, save_tiny_clip, save_tiny_sentence_model

HUB_CLIP = "timm/vit_large_patch14_clip_224.openai"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache of its own; what is not in it can't be had, as on a machine without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def cache_model(cache, repo, folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return fake_hub_cache(cache, repo, files)


def hash_file(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def loaded_offline(name, models_dir):
    address = parse_address(name)
    library = library_of(address)
    return library.load(library.resolve(address, Sources(models_dir, offline=True), hash_file))


def test_a_portable_folder_loads_where_there_is_neither_hub_nor_cache(cache, tmp_path):
    cache_model(cache, "somebody/tiny", save_tiny_bert(tmp_path / "bert"))
    cache_model(cache, "somebody/clip", save_tiny_clip(tmp_path / "clip"))
    names = ["hf:somebody/tiny?pooling=cls", "open_clip:hf-hub:somebody/clip"]
    fetched = fetch(names, tmp_path / "models")
    assert [one.encoder for one in fetched] == names
    assert all(one.n_bytes > 10_000 for one in fetched)
    shutil.rmtree(cache)
    (bert,) = loaded_offline(names[0], tmp_path / "models")
    image, text = loaded_offline(names[1], tmp_path / "models")
    assert (bert.spec.dim, image.spec.dim, text.spec.dim) == (32, 16, 16)


def test_a_folder_carried_over_hits_the_vectors_of_the_hubs_copy(cache, tmp_path):
    cache_model(cache, "somebody/tiny", save_tiny_bert(tmp_path / "bert"))
    (from_cache,) = loaded_offline("hf:somebody/tiny", None)
    fetch(["hf:somebody/tiny"], tmp_path / "models")
    (carried,) = loaded_offline("hf:somebody/tiny", tmp_path / "models")
    assert carried.spec.fingerprint == from_cache.spec.fingerprint


@pytest.mark.parametrize("library", ["st", "hf"])
def test_chat_template_and_processors_are_carried(cache, tmp_path, library):
    folder = of.qwen_vl(tmp_path / "vl")
    if library == "st":
        folder = of.as_sentence_model(folder, tmp_path / "sentences", "lasttoken", max_tokens=None)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    fake_hub_cache(cache, "somebody/vl", files)
    address = parse_address(f"{library}:somebody/vl")
    sources = Sources(offline=True), Sources(tmp_path / "models", offline=True)
    (from_cache,) = library_of(address).resolve(address, sources[0], hash_file)
    fetch([address.name], tmp_path / "models")
    shutil.rmtree(cache)
    (carried,) = library_of(address).resolve(address, sources[1], hash_file)
    assert carried.spec.fingerprint == from_cache.spec.fingerprint
    assert len(list((tmp_path / "models").rglob("*.jinja"))) == 1
    assert list((tmp_path / "models").rglob("*processor_config.json"))


def test_only_what_the_model_needs_is_carried(cache, tmp_path):
    snapshot = cache_model(cache, "somebody/tiny", save_tiny_bert(tmp_path / "bert"))
    for name in ("flax_model.msgpack", "tf_model.h5", "README.md", "onnx/model.onnx"):
        (snapshot / name).parent.mkdir(exist_ok=True)
        (snapshot / name).write_bytes(b"large")
    fetch(["hf:somebody/tiny"], tmp_path / "models")
    carried = {path.name for path in (tmp_path / "models").rglob("*") if path.is_file()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert carried == needed | {"README.md"}  # the card, which says the licence


def test_weights_in_the_old_format_are_carried_where_there_are_no_others(cache, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = save_tiny_clip(tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    torch.save(load_file(weights), folder / "open_clip_pytorch_model.bin")
    weights.unlink()
    cache_model(cache, "somebody/clip", folder)
    fetch(["open_clip:hf-hub:somebody/clip"], tmp_path / "models")
    assert len(loaded_offline("open_clip:hf-hub:somebody/clip", tmp_path / "models")) == 2


def test_a_sentence_model_in_the_old_format_is_downloaded_with_every_module(cache, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    repo = save_tiny_sentence_model(tmp_path / "repo", dense=48)
    for weights in list(repo.rglob("model.safetensors")):
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
        weights.unlink()

    def download(name, *, allow_patterns, local_files_only):
        if local_files_only:
            raise LocalEntryNotFoundError("nothing cached")
        snapshot = tmp_path / "snapshot"
        for path in filter(Path.is_file, repo.rglob("*")):
            relative = path.relative_to(repo).as_posix()
            if any(fnmatch(relative, pattern) for pattern in allow_patterns):
                (snapshot / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, snapshot / relative)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch(["st:somebody/tiny"], tmp_path / "models")
    (encoder,) = loaded_offline("st:somebody/tiny", tmp_path / "models")
    assert encoder.spec.dim == 48


def test_fetching_without_a_hub_says_what_is_missing_and_where_it_looked(cache, tmp_path):
    with pytest.raises(
        EncoderError, match=rf"clip-vit-l14: no open_clip_model.safetensors of '{HUB_CLIP}' in .*the hub"
    ):
        fetch(["clip-vit-l14"], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_why_the_hub_gave_nothing_is_said(cache, tmp_path, monkeypatch):
    def download(name, *, allow_patterns, local_files_only):
        raise (
            LocalEntryNotFoundError("nothing") if local_files_only else OSError(errno.ENOSPC, "No space left")
        )

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(
        EncoderError, match=r"in the hub's cache; the hub \(.*No space left\): on a connected"
    ):
        fetch(["hf:somebody/tiny"])


def test_an_unknown_encoder_is_named_before_anything_is_fetched(cache, tmp_path):
    cache_model(cache, "somebody/tiny", save_tiny_bert(tmp_path / "bert"))
    with pytest.raises(EncoderError, match="unknown encoder 'clip-vit-l41', did you mean clip-vit-l14"):
        fetch(["hf:somebody/tiny", "clip-vit-l41"], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(cache, tmp_path, monkeypatch):
    cache_model(cache, "somebody/tiny", save_tiny_bert(tmp_path / "bert"))

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(EncoderError, match=r"can't write .*config.json: No space left on device"):
        fetch(["hf:somebody/tiny"], tmp_path / "models")
    assert [path for path in (tmp_path / "models").rglob("*") if path.is_file()] == []
