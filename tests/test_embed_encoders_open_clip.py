import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embed.encoders.base import Sources
from embed.encoders.libraries.open_clip import load, resolve
from embed.encoders.open_clip_architecture import tag_architecture
from embed.encoders.registry import parse_address
from embed.inputs.images import decode_image
from store.errors import EncoderError
from tests.fake_images import encoded, photo
from tests.fake_models import (
    CLIP_PREPROCESS,
    TINY_CLIP,
    fake_hub_cache,
    save_tiny_bert,
    save_tiny_clip,
    save_tiny_tokenizer,
)

OFFLINE = Sources(offline=True)
TEXTS = [
    "Red cotton shirt, pack of 6",
    "coffee beans " * 70,
    "x",
    "Größe 42 — 6 × 330 ml 😀",
    "it's  50% off",
]
SIGLIP_TEXT = {
    "context_length": 12,
    "vocab_size": 100,
    "hf_tokenizer_name": "nobody/nothing",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 32,
    "heads": 2,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}


def hash_file(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def resolved(address, sources=OFFLINE):
    return resolve(parse_address(str(address)), sources, hash_file)


def text_vectors(encoder, texts):
    tokens = encoder.tokenize(texts)
    assert tokens.owner.tolist() == list(range(len(texts)))
    longest = max(len(sequence) for sequence in tokens.sequences)
    ids = np.full((len(texts), longest), encoder.pad_id)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(tokens.sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    with torch.no_grad():
        return encoder.forward(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()


def image_vectors(encoder, contents):
    preprocessing = encoder.spec.preprocessing
    pixels = np.stack([decode_image(content, preprocessing) for content in contents])
    mean, std = (np.array(preprocessing[key], np.float32) for key in ("mean", "std"))
    scaled = (pixels.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        return encoder.forward(torch.from_numpy(scaled).permute(0, 3, 1, 2)).numpy()


def library_model(folder):
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), open_clip.get_tokenizer(f"local-dir:{folder}"), transform


def assert_same_as_the_library(folder):
    image, text = load(resolved(folder))
    assert (image.spec.name, text.spec.name) == (f"{folder}.image", f"{folder}.text")
    model, tokenizer, transform = library_model(folder)
    contents = [encoded(photo(60, 40, seed), "PNG") for seed in range(3)]
    pixels = torch.stack([transform(Image.open(BytesIO(content))) for content in contents])
    with torch.no_grad():
        np.testing.assert_allclose(
            image_vectors(image, contents), model.encode_image(pixels, normalize=False), atol=2e-5
        )
        np.testing.assert_allclose(
            text_vectors(text, TEXTS), model.encode_text(tokenizer(TEXTS), normalize=False), atol=2e-5
        )
    assert image.spec.dim == text.spec.dim == image_vectors(image, contents).shape[1]


@pytest.fixture
def clip(tmp_path):
    return save_tiny_clip(tmp_path / "clip")


def test_both_towers_give_the_librarys_vectors(clip):
    assert_same_as_the_library(clip)


@pytest.mark.parametrize(
    "changes",
    [
        {"quick_gelu": False, "custom_text": True},
        {"text_cfg": {**TINY_CLIP["text_cfg"], "pool_type": "eos", "eos_id": 49407}},
        {"text_cfg": SIGLIP_TEXT, "custom_text": True, "init_logit_bias": -10},
        {"text_cfg": {**SIGLIP_TEXT, "tokenizer_kwargs": {"strip_sep_token": True}}},
        {
            "text_cfg": {
                "hf_model_name": "nobody/bert",
                "hf_tokenizer_name": "nobody/bert",
                "context_length": 20,
                "hf_proj_type": "mlp",
                "hf_pooler_type": "mean_pooler",
            }
        },
        {
            "custom_text": True,
            "text_cfg": {
                **TINY_CLIP["text_cfg"],
                "context_length": 76,
                "embed_cls": True,
                "output_tokens": True,
            },
            "vision_cfg": {**TINY_CLIP["vision_cfg"], "attentional_pool": True, "output_tokens": True},
            "multimodal_cfg": {"width": 32, "heads": 2, "layers": 1, "context_length": 76},
        },
        {
            "vision_cfg": {"timm_model_name": "test_efficientnet", "image_size": 64, "timm_pool": "avg"},
            "custom_text": True,
        },
    ],
    ids=[
        "own text class",
        "pooled at eos",
        "SigLIP",
        "stripped",
        "BERT as text tower",
        "CoCa",
        "timm as image tower",
    ],
)
def test_every_kind_of_tower_gives_the_librarys_vectors(tmp_path, changes):
    folder = tmp_path / "clip"
    text = changes.get("text_cfg", {})
    if "hf_tokenizer_name" in text:
        save_tiny_tokenizer(folder)
    if "hf_model_name" in text:  # the library looks for its configuration by name: give it a folder
        bert = save_tiny_bert(tmp_path / "bert")
        changes = {"text_cfg": {**text, "hf_model_name": str(bert)}}
    assert_same_as_the_library(save_tiny_clip(folder, **changes))


def test_squashed_preprocessing_of_a_folder_is_the_folders(tmp_path):
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    assert_same_as_the_library(save_tiny_clip(tmp_path / "clip", preprocess=preprocess))


def test_a_text_is_as_long_as_its_words_and_the_truncated_are_counted(clip):
    _, text = load(resolved(clip))
    tokens = text.tokenize(TEXTS)
    assert [len(sequence) for sequence in tokens.sequences][:3] == [9, 77, 3]
    assert tokens.n_truncated == 1


def test_long_texts_can_be_cut_into_chunks(clip):
    (text,) = load(resolved(f"{clip}.text?long=chunks"))
    tokens = text.tokenize(["short", "coffee beans " * 70])
    assert tokens.owner.tolist() == [0, 1, 1]
    assert tokens.n_truncated == 0
    assert all(sequence[0] == 49406 and sequence[-1] == 49407 for sequence in tokens.sequences)
    assert sum(len(sequence) - 2 for sequence in tokens.sequences[1:]) == 140


def test_chunks_padded_to_full_length_weigh_what_they_hold(tmp_path):
    folder = save_tiny_clip(save_tiny_tokenizer(tmp_path / "clip"), text_cfg=SIGLIP_TEXT, custom_text=True)
    (text,) = load(resolved(f"{folder}.text?long=chunks"))
    tokens = text.tokenize(["red " * 13])
    assert [len(sequence) for sequence in tokens.sequences] == [12, 12]
    assert tokens.weights.tolist() == [12, 5]


def test_the_configuration_of_a_foreign_text_tower_counts(tmp_path):
    bert = save_tiny_bert(tmp_path / "bert")
    foreign = {"hf_model_name": str(bert), "hf_tokenizer_name": str(bert), "hf_pooler_type": "mean_pooler"}
    clip = save_tiny_clip(
        tmp_path / "clip", text_cfg={**foreign, "context_length": 20, "hf_proj_type": "mlp"}
    )
    image, text = (one.spec.fingerprint for one in resolved(clip))
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    assert resolved(clip)[0].spec.fingerprint == image
    assert resolved(clip)[1].spec.fingerprint != text


def test_two_towers_come_out_of_one_load(clip):
    image, text = resolved(clip)
    assert image.model_key == text.model_key
    assert image.spec.fingerprint != text.spec.fingerprint


def test_one_tower_alone_is_what_its_name_asks_for(clip):
    (image,) = resolved(f"{clip}.image")
    assert (image.spec.name, image.spec.modality) == (f"{clip}.image", "image")
    assert image.spec.fingerprint == resolved(clip)[0].spec.fingerprint


def test_a_moved_folder_keeps_its_fingerprint_and_other_weights_do_not(clip, tmp_path):
    moved = save_tiny_clip(tmp_path / "moved")
    other = save_tiny_clip(tmp_path / "other", seed=1)
    assert resolved(moved)[0].spec.fingerprint == resolved(clip)[0].spec.fingerprint
    assert resolved(other)[0].spec.fingerprint != resolved(clip)[0].spec.fingerprint


def test_another_activation_is_another_encoder(clip, tmp_path):
    other = save_tiny_clip(tmp_path / "other", quick_gelu=False)
    assert hash_file(other / "open_clip_model.safetensors") == hash_file(clip / "open_clip_model.safetensors")
    assert resolved(other)[0].spec.fingerprint != resolved(clip)[0].spec.fingerprint


def test_openai_weights_get_the_activation_they_were_trained_with():
    assert tag_architecture(parse_address("open_clip:ViT-L-14/openai"))[0].config["quick_gelu"] is True
    assert tag_architecture(parse_address("clip-vit-h14"))[0].config["quick_gelu"] is False


def test_the_alias_of_the_winning_system_resolves_from_the_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = {"open_clip_model.safetensors": b"weights"}
    snapshot = fake_hub_cache(tmp_path, "timm/vit_large_patch14_clip_224.openai", files)
    image, text = resolved("clip-vit-l14")
    assert (image.spec.name, text.spec.name) == ("clip-vit-l14.image", "clip-vit-l14.text")
    assert image.files["weights"] == str(snapshot / "open_clip_model.safetensors")
    assert image.spec.dim == text.spec.dim == 768
    assert {key: image.spec.preprocessing[key] for key in ("size", "resize", "interpolation", "mean")} == {
        "size": [224, 224],
        "resize": "shortest",
        "interpolation": "bicubic",
        "mean": CLIP_PREPROCESS["mean"],
    }


# ---- bad input -----------------------------------------------------------------------------------


def test_offline_without_weights_names_the_files_the_places_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    sources = Sources(models_dir=tmp_path / "models", offline=True)
    with pytest.raises(
        EncoderError,
        match=r"clip-vit-l14: no open_clip_model.safetensors of 'timm/vit_large_patch14_clip_224.openai' "
        r"in .*models.*cache.*: on a connected machine run 'shelfprice embed fetch clip-vit-l14",
    ):
        resolved("clip-vit-l14", sources)


def test_offline_without_the_tokenizer_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = save_tiny_clip(tmp_path / "clip", text_cfg=SIGLIP_TEXT, custom_text=True)
    with pytest.raises(EncoderError, match=r"no .*tokenizer.json.* of 'nobody/nothing'"):
        resolved(f"{folder}.text")
    assert resolved(f"{folder}.image")[0].spec.dim == 16


def test_a_folder_that_does_not_state_its_preprocessing_is_refused(tmp_path):
    folder = save_tiny_clip(tmp_path / "clip", preprocess={"mean": [0.5] * 3})
    with pytest.raises(
        EncoderError, match=r"does not state std, interpolation, resize_mode in preprocess_cfg"
    ):
        resolved(folder)


def test_a_configuration_that_describes_no_model_is_one_clear_line(clip):
    path = clip / "open_clip_config.json"
    described = json.loads(path.read_text())
    described["model_cfg"]["vision_cfg"]["layrs"] = 2
    path.write_text(json.dumps(described))
    with pytest.raises(EncoderError, match=r"can't build what its configuration describes: .*layrs"):
        load(resolved(clip))


def test_an_unknown_architecture_offers_the_nearest(tmp_path):
    with pytest.raises(EncoderError, match=r"knows no architecture 'ViT-L14', did you mean ViT-L-14"):
        resolved("open_clip:ViT-L14/openai")


def test_an_unknown_tag_lists_the_known_ones():
    with pytest.raises(EncoderError, match=r"ViT-L-14 has no weights 'opnai', one of openai, "):
        resolved("open_clip:ViT-L-14/opnai")


def test_weights_alone_without_a_tag_are_refused(clip):
    with pytest.raises(EncoderError, match="the tag whose preprocessing they were trained with"):
        resolved(f"open_clip:ViT-L-14?weights={clip / 'open_clip_model.safetensors'}")


def test_an_unknown_option_is_named(clip):
    with pytest.raises(EncoderError, match="unknown option 'size', one of dim, long, normalize, weights"):
        resolved(f"{clip}?size=224")


def test_weights_of_another_model_are_refused(clip, tmp_path):
    image_size = {**TINY_CLIP["vision_cfg"], "image_size": 64}
    other = save_tiny_clip(tmp_path / "other", vision_cfg=image_size)
    (other / "open_clip_model.safetensors").write_bytes((clip / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(
        EncoderError, match=r"holds the weights of another model: 1 of \d+ .* 'visual.positional_embedding'"
    ):
        load(resolved(other))


def test_truncated_weights_are_one_clear_line(clip):
    path = clip / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(EncoderError, match=r"is damaged or no checkpoint: .*: fetch it again"):
        load(resolved(clip))


def test_a_checkpoint_with_code_in_it_is_refused_unrun(clip, tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    (clip / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": Evil()}, clip / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderError, match="is damaged or no checkpoint"):
        load(resolved(clip))
    assert not ran.exists()


def test_a_checkpoint_in_place_of_the_hubs_weights_is_loaded_with_the_tags_preprocessing(clip):
    weights = clip / "open_clip_model.safetensors"
    (image,) = resolved(f"open_clip:ViT-B-16-SigLIP/webli.image?weights={weights}")
    assert image.spec.weights_sha256 == hash_file(weights)
    assert image.spec.preprocessing["resize"] == "squash"
    with pytest.raises(EncoderError, match="holds the weights of another model"):
        load([image])


def test_a_checkpoint_that_is_not_there_is_named():
    with pytest.raises(EncoderError, match=r"there is no file /nowhere/x.pt: check weights="):
        resolved("open_clip:ViT-B-32/openai?weights=/nowhere/x.pt")


def test_a_checkpoint_in_place_of_a_folders_weights_is_the_one_that_is_hashed_and_loaded(clip, tmp_path):
    other = save_tiny_clip(tmp_path / "other", seed=1) / "open_clip_model.safetensors"
    (given,), (own,) = resolved(f"{clip}.image?weights={other}"), resolved(f"{clip}.image")
    assert given.spec.weights_sha256 == hash_file(other) != own.spec.weights_sha256
    contents = [encoded(photo(60, 40, seed), "PNG") for seed in range(2)]
    theirs = image_vectors(load(resolved(f"{other.parent}.image"))[0], contents)
    np.testing.assert_array_equal(image_vectors(load([given])[0], contents), theirs)
    with pytest.raises(EncoderError, match=r"there is no file .*nowhere.pt: check weights="):
        resolved(f"{clip}.image?weights={tmp_path}/nowhere.pt")


def test_vectors_may_be_scaled_to_unit_length_but_not_cut_where_nothing_says_so(clip):
    (image,) = load(resolved(f"{clip}.image?normalize=yes"))
    vectors = image_vectors(image, [encoded(photo(60, 40), "PNG")])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    with pytest.raises(
        EncoderError, match=r"dim=8 would cut vectors of 16 numbers, and neither .*\(Matryoshka\)"
    ):
        resolved(f"{clip}.image?dim=8")
