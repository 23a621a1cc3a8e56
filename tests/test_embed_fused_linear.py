import copy

import pytest
import torch
from torch import nn

from embed.forward.fused_linear import FusedAttention, FusedLinear, Roundings, fuse_linear_layers

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this CPU has no bf16 of its own: nothing is fused",
)


def bert():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    model = BertModel(BertConfig(vocab_size=50, **sizes), add_pooling_layer=False).eval()
    ids = torch.arange(40).reshape(4, 10)
    return model, lambda module: module(input_ids=ids).last_hidden_state[:, 0]


def vit():
    import timm

    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 160, 160)
    return timm.create_model("test_vit", num_classes=0).eval(), lambda module: module(pixels)


def clip_tower():
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 32, 32)
    tower = VisionTransformer(32, 8, 64, 2, 2, 2.0, output_dim=16).eval()
    return tower, lambda module: module(pixels)


def in_bf16(run, module):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return run(module).float()


@pytest.mark.parametrize("make", [bert, vit, clip_tower])
def test_a_fused_network_gives_the_vectors_of_the_plain_one(make):
    plain, run = make()
    fused = copy.deepcopy(plain)
    assert fuse_linear_layers(fused, lambda: run(fused)) > 5
    assert any(isinstance(child, FusedLinear) and child.activation for child in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(run(fused), run(plain))
        exact = run(plain)
    ours, theirs = (torch.cosine_similarity(in_bf16(run, m), exact).min() for m in (fused, plain))
    assert ours > 0.999
    assert 1 - ours < 2 * (1 - theirs) + 1e-4  # no coarser than autocast alone


def test_attention_with_a_mask_is_that_of_the_plain_one():
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    fused = FusedAttention(plain, Roundings())
    x = torch.randn(2, 6, 32)
    mask = torch.full((6, 6), float("-inf")).triu(1)
    masked = [in_bf16(lambda m: m(x, x, x, need_weights=False, attn_mask=mask)[0], m) for m in (fused, plain)]
    torch.testing.assert_close(*masked, atol=2e-2, rtol=0)
    unmasked = in_bf16(lambda m: m(x, x, x, need_weights=False)[0], fused)
    assert (masked[0] - unmasked).abs().max() > 0.05
    crossed = [in_bf16(lambda m: m(x, x[:, :3], x[:, :3], need_weights=False)[0], m) for m in (fused, plain)]
    torch.testing.assert_close(*crossed, atol=0, rtol=0)


def test_an_input_that_changed_in_place_is_rounded_again():
    roundings, x = Roundings(), torch.ones(3)
    first = roundings.of(x, torch.bfloat16)
    assert roundings.of(x, torch.bfloat16) is first
    x += 1
    assert roundings.of(x, torch.bfloat16).tolist() == [2.0] * 3


class Twice(nn.Module):
    """What the layer makes goes to the activation and, unseen by any module, to the sum."""

    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), nn.GELU()

    def forward(self, x):
        made = self.layer(x)
        return self.act(made) + made


def test_a_fusion_that_would_change_the_vectors_is_undone():
    module, x = Twice().eval(), torch.randn(2, 4)
    before = module(x)
    assert fuse_linear_layers(module, lambda: module(x)) == 0
    assert type(module.layer) is nn.Linear
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)


def test_a_network_whose_example_fails_is_left_as_it_is():
    module = Twice()
    assert fuse_linear_layers(module, lambda: module(torch.randn(2, 5))) == 0
    assert type(module.layer) is nn.Linear


def test_fp32_keeps_no_packed_weights():
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    x = torch.randn(2, 4)
    assert fuse_linear_layers(module, lambda: module(x)) == 1
    in_bf16(lambda m: m(x), module)
    assert module[0]._packed is not None
    module(x)
    assert module[0]._packed is None
