from dataclasses import replace

import numpy as np
import pytest

from embed.forward import precision
from embed.forward.precision import (
    Compiled,
    Mode,
    ModeChoice,
    candidates,
    choose,
    recall,
    remember,
    worst_cosine,
)
from store.errors import ConfigError
from store.workspace import Workspace
from tests.fakes import fake_spec

FP32, BF16 = Mode("fp32"), Mode("bf16")


@pytest.fixture
def model(monkeypatch):
    """A model whose passes take as long as `seconds` says, by a clock of its own, and err as `error` says."""

    class Model:
        def __init__(self):
            self.seconds = {"fp32": 1.0, "bf16": 0.5, "fp16": 0.25}
            self.error = {"fp32": 0.0, "bf16": 0.001, "fp16": 0.001}
            self.now = 0.0
            self.mode = FP32

        def apply(self, mode):
            self.mode = mode

        def forward(self):
            self.now += self.seconds[self.mode.dtype]
            exact = np.eye(4)
            return np.where(np.roll(exact, 1, axis=1) > 0, self.error[self.mode.dtype], exact)

        def choose(self, policy, device="cuda"):
            return choose(self.apply, self.forward, candidates(policy, device, False), policy)

    made = Model()
    monkeypatch.setattr(precision.time, "perf_counter", lambda: made.now)
    return made


def test_the_fastest_mode_is_chosen(model):
    choice = model.choose("auto")
    assert choice.mode == Mode("fp16")
    assert choice.rows_per_second == {"fp32": 4.0, "fp16": 16.0, "bf16": 8.0}


def test_a_mode_too_far_from_fp32_is_never_chosen_by_auto(model):
    model.error["fp16"] = 0.1
    assert model.choose("auto").mode == BF16


def test_fp32_stays_where_nothing_is_faster(model):
    model.seconds |= {"bf16": 1.0, "fp16": 2.0}
    assert model.choose("auto") == ModeChoice(FP32, None, None, {"fp32": 4.0, "fp16": 2.0, "bf16": 4.0})


def test_an_explicit_policy_is_followed_however_slow(model):
    model.seconds["bf16"] = 9.0
    assert model.choose("bf16").mode == BF16


def test_a_vector_that_overflows_counts_as_wrong(model):
    model.error["fp16"] = np.inf
    assert model.choose("auto").mode == BF16


def test_fp16_on_a_cpu_is_an_error_that_says_what_to_pass(model):
    with pytest.raises(ConfigError, match="pass --precision auto, fp32 or bf16"):
        model.choose("fp16", device="cpu")


def test_a_type_that_the_device_lacks_is_passed_over_by_auto_and_named_where_it_was_asked_for(
    model, monkeypatch
):
    forward = model.forward

    def without_fp16():
        if model.mode.dtype == "fp16":
            raise RuntimeError("no kernel for Half\non this device")
        return forward()

    monkeypatch.setattr(model, "forward", without_fp16)
    assert model.choose("auto").mode == BF16
    with pytest.raises(
        ConfigError, match=r"can't compute in fp16: no kernel for Half: pass --precision auto"
    ):
        model.choose("fp16")


def test_layouts_are_tried_for_convolutions_only():
    assert Mode("bf16", channels_last=True) in candidates("auto", "cpu", True)
    assert not any(mode.channels_last for mode in candidates("auto", "cpu", False))


def test_what_was_measured_is_remembered_for_that_device_and_torch_alone(tmp_path):
    workspace, spec = Workspace(tmp_path), fake_spec()
    choice = ModeChoice(Mode("bf16", True), 4096, 0.99995, {"fp32": 10.0, "bf16 channels_last": 30.0})
    remember(workspace, spec, "cpu A x2", "2.14", choice)
    assert recall(workspace, spec, "cpu A x2", "2.14") == choice
    compiled = replace(choice, compiled=Compiled(200.0, 60.0))
    remember(workspace, spec, "a GPU", "2.14", compiled)
    assert recall(workspace, spec, "a GPU", "2.14") == compiled
    assert recall(workspace, spec, "cpu B x2", "2.14") is None
    assert recall(workspace, spec, "cpu A x2", "2.15") is None
    assert recall(workspace, fake_spec(weights="1" * 64), "cpu A x2", "2.14") is None


def test_a_type_that_is_too_coarse_keeps_first_stages_in_fp32_until_it_is_close_enough():
    mode = [Mode()]
    reference = np.eye(4, dtype=np.float32)
    error = {0: 0.2, 1: 0.1, 2: 0.001, 3: 0.0}

    def forward():
        return reference + (error[mode[0].fp32_stages] if mode[0].dtype == "bf16" else 0.0)

    def apply(new):
        mode[0] = new

    choose(apply, forward, [Mode(), Mode("bf16")], "auto", most_fp32_stages=3)
    assert mode[0].fp32_stages <= 2
    tried = choose(apply, forward, [Mode(), Mode("bf16")], "auto", most_fp32_stages=3).rows_per_second
    assert list(tried) == ["fp32", "bf16 after 2 fp32 stages"]


def test_stages_in_fp32_see_no_autocast_and_later_ones_do():
    import torch

    from embed.forward.convnet import keep_in_fp32, stages

    seen = []

    class Part(torch.nn.Module):
        def forward(self, x):
            seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
            return x.to(torch.bfloat16)

    net = torch.nn.Sequential(Part(), torch.nn.Sequential(Part(), Part()))
    assert len(stages(net)) == 3
    for n_stages, expected in ((2, [False, False, True]), (0, [True, True, True])):
        seen.clear()
        keep_in_fp32(net, n_stages, "cpu")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            net(torch.zeros(1))
        assert [autocast for _, autocast in seen] == expected


def test_an_encoder_that_gives_a_text_no_vector_but_zeros_is_measured_all_the_same():
    vectors = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert worst_cosine(vectors, vectors) == 1.0
    assert worst_cosine(vectors, vectors[::-1]) == 0.0
    assert choose(lambda mode: None, lambda: vectors, [Mode()], "auto").mode == Mode()
