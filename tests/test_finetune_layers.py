"""What is trained of an encoder: rates by depth, last blocks, adapters, recomputation; schedules and running means."""

import numpy as np
import pytest
import torch

from embed.encoders.base import Sources
from embed.encoders.registry import library_of, parse_address
from embed.finetune.layers import Layers, merge_adapters, prepare_tower, rate_groups
from embed.finetune.recipe import FinetuneRecipe, recipe_for
from embed.finetune.step import even_ends, training_precision
from embed.finetune.training import STALE_EPOCHS
from heads.networks.running_mean import RunningMean
from heads.networks.schedule import LEAST_SHARE, RateSchedule
from store.errors import ConfigError, EncoderError
from tests.fake_models import save_tiny_bert, save_tiny_clip
from tests.finetune_runs import save_tiny_efficientnet, with_one_thread

one_thread = pytest.fixture(scope="module", autouse=True)(with_one_thread)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("layers")
    return {
        "bert": str(save_tiny_bert(root / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)),
        "clip": str(save_tiny_clip(root / "clip")),
        "efficientnet": str(save_tiny_efficientnet(root / "efficientnet")),
    }


def load(folders, name):
    """Encoders by kind."""
    address = parse_address(folders[name])
    library = library_of(address)
    found = library.resolve(address, Sources(offline=True), lambda path: "0" * 64)
    return {one.spec.modality: one for one in library.load(found)}


IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 10, 3]])
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vectors(encoder):
    if encoder.spec.modality == "image":
        return encoder.forward(PIXELS)
    return encoder.forward(IDS, torch.ones_like(IDS))


KINDS = [("bert", "text"), ("clip", "text"), ("clip", "image"), ("efficientnet", "image")]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_rates_fall_from_the_top_to_the_first_layer(folders, name, kind):
    module = load(folders, name)[kind].module
    layers = Layers.of(module)
    groups = rate_groups(module, layers, 1.0, 0.5)
    rates = [rate for rate, _ in groups]
    assert rates == sorted(rates)
    assert sum(len(parameters) for _, parameters in groups) == len(list(module.parameters()))
    assert rates[0] == 0.5 ** (len(layers.blocks) + 1)
    assert len(layers.blocks) >= 2


def test_what_clip_applies_last_has_the_full_rate(folders):
    for tower, own in (("image", "tower.proj"), ("text", "text_projection")):
        layers = Layers.of(load(folders, "clip")[tower].module)
        assert layers.depth[own] == len(layers.blocks) + 1


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_last_blocks_leave_the_first_layers_alone(folders, name, kind):
    encoder = load(folders, name)[kind]
    layers = prepare_tower(encoder.module, "x", FinetuneRecipe(last_blocks=1))
    vectors(encoder).sum().backward()
    for parameter_name, parameter in encoder.module.named_parameters():
        is_trained = layers.depth[parameter_name] >= len(layers.blocks)
        assert parameter.requires_grad == is_trained, parameter_name
        assert is_trained or parameter.grad is None
    assert any(parameter.grad is not None for parameter in encoder.module.parameters())


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_untrained_parts_hold_every_weight_that_is_not_trained_outside_trained_blocks(folders, name, kind):
    module = load(folders, name)[kind].module
    layers = prepare_tower(module, name, FinetuneRecipe(last_blocks=1))
    untrained = layers.untrained(module)
    assert all(not p.requires_grad for part in untrained for p in part.parameters())
    inside = {id(m) for part in untrained for m in part.modules()}
    assert all(id(block) in inside for block in layers.blocks[:-1])
    assert id(layers.blocks[-1]) not in inside
    own = {id(p) for part in untrained for p in part.parameters()}
    around = [m for m in module.modules() if any(part is layers.blocks[-1] for part in m.modules())]
    direct = {id(p) for m in around for p in m.parameters(recurse=False)}  # nothing drops out around them
    frozen = {id(p) for p in module.parameters() if not p.requires_grad}
    assert own | direct >= frozen


def test_more_last_blocks_than_there_are_is_an_error(folders):
    with pytest.raises(EncoderError, match=r"tiny: the last 9 blocks can't be trained, it has 2"):
        prepare_tower(load(folders, "bert")["text"].module, "tiny", FinetuneRecipe(last_blocks=9))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_adapters_are_all_that_is_trained_and_merge_into_the_same_vectors(folders, name, kind):
    encoder = load(folders, name)[kind]
    encoder.module.eval()
    before = vectors(encoder).detach()
    names = set(encoder.module.state_dict())
    prepare_tower(encoder.module, "x", FinetuneRecipe(lora=2))
    trained = [p for p in encoder.module.parameters() if p.requires_grad]
    assert trained
    assert sum(p.numel() for p in trained) < 0.8 * sum(p.numel() for p in encoder.module.parameters())
    torch.testing.assert_close(vectors(encoder), before, rtol=1e-4, atol=1e-5)  # nothing learned yet
    optimizer = torch.optim.SGD(trained, 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        vectors(encoder).square().sum().backward()
        optimizer.step()
    learned = vectors(encoder).detach()
    assert not torch.allclose(learned, before, rtol=1e-3, atol=1e-4)
    merge_adapters(encoder.module)
    assert set(encoder.module.state_dict()) == names
    torch.testing.assert_close(vectors(encoder).detach(), learned, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_recomputed_activations_give_the_same_gradients(folders, name, kind):
    gradients = []
    for checkpointing in (False, True):
        encoder = load(folders, name)[kind]
        prepare_tower(encoder.module, "x", FinetuneRecipe(checkpointing=checkpointing))
        encoder.module.eval()
        vectors(encoder).square().sum().backward()
        gradients.append({n: p.grad for n, p in encoder.module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for parameter_name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][parameter_name], msg=parameter_name)


def test_the_winning_systems_have_their_own_rates_heads_and_frozen_epochs():
    both = recipe_for(["efficientnet-b4", "bert-base@structured"], {})
    assert (both.image_rate, both.text_rate, both.head_rate) == (1e-4, 2e-5, 1e-3)
    assert (both.head, both.warmup_epochs, both.augment, both.schedule) == ("fusion", 4, True, "plateau")
    large = recipe_for(["clip-vit-l14"], {})
    assert (large.image_rate, large.text_rate, large.head_rate) == (3e-6, 3e-6, 5e-4)
    assert (large.head, large.warmup_epochs) == ("mlp-layernorm", 3)
    huge = recipe_for(["clip-vit-h14.image", "clip-vit-h14.text"], {"epochs": 2})
    assert (huge.image_rate, huge.head_rate, huge.head) == (2e-6, 1.5e-4, "mlp-batchnorm")
    assert (huge.warmup_epochs, huge.epochs, huge.clip, huge.weight_decay) == (2, 2, 1.0, 1e-4)
    assert recipe_for(["minilm"], {}) == FinetuneRecipe()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "ridge"}, "head must be one of fusion"),
        ({"epochs": 0}, "epochs must be a whole number from 1 to 100,000, got 0"),
        ({"layer_decay": 1.5}, "layer_decay must be a number above 0, at most 1, got 1.5"),
        ({"average": 1.0}, "average must be a number of at least 0, below 1, got 1.0"),
        ({"text_rate": -1.0}, "text_rate must be a number from 0 to 10, got -1.0"),
        ({"head_rate": float("nan")}, "head_rate must be a number above 0, at most 10, got nan"),
        ({"image_rate": float("inf")}, "image_rate must be a number from 0 to 10, got inf"),
        ({"augmented_warmup": 2}, "an augmented warm-up needs augmentation"),
    ],
)
def test_a_value_that_can_not_be_is_named(given, message):
    with pytest.raises(ConfigError, match=message):
        recipe_for(["minilm"], given)


def test_the_cosine_rises_and_ends_low():
    schedule = RateSchedule("cosine", 100, 0.1)
    shares = [schedule.share(step) for step in range(100)]
    assert shares[:10] == sorted(shares[:10])
    assert max(shares) == 1.0
    assert shares[-1] == pytest.approx(LEAST_SHARE, abs=0.01)


def test_a_plateau_halves_the_rates_and_its_state_comes_back():
    schedule = RateSchedule("plateau", 100, 0.0, STALE_EPOCHS)
    for smape in (50.0, 51.0, 52.0):
        schedule.observe(smape)
    assert schedule.share(5) == 0.5
    again = RateSchedule("plateau", 100, 0.0, STALE_EPOCHS)
    again.load(schedule.state())
    assert vars(again) == vars(schedule)


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("n_rows", [2, 3, 16, 33])
@pytest.mark.parametrize("most", [1, 2, 5, 32])
def test_parts_of_a_batch_are_alike_in_size_and_none_too_small_for_batch_statistics(n_rows, most, least):
    ends = even_ends(n_rows, most, least)
    sizes = np.diff([0, *ends])
    assert ends[-1] == n_rows
    assert sizes.min() >= least
    assert sizes.max() - sizes.min() <= 1
    assert sizes.max() <= max(most, 2 * least - 1)


def test_a_running_mean_is_applied_and_taken_back():
    parameter = torch.nn.Parameter(torch.zeros(2))
    mean = RunningMean([parameter], 0.5)
    with torch.no_grad():
        parameter.add_(1.0)
    mean.update()
    with mean.applied():
        assert 0.0 < parameter[0].item() < 1.0
    assert parameter[0].item() == 1.0


def test_precision_is_chosen_by_device():
    assert training_precision("fp32", torch.device("cpu")) == "fp32"
    assert training_precision("auto", torch.device("mps")) == "fp32"
    assert training_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
