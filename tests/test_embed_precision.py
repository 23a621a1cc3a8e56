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
    on_gpu = [str(mode) for mode in candidates("auto", "cuda", True)]
    assert on_gpu == ["fp32", "fp32 channels_last", "fp16 channels_last", "bf16 channels_last"]


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


def test_an_encoder_that_gives_a_text_no_vector_but_zeros_is_measured_all_the_same():
    vectors = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert worst_cosine(vectors, vectors) == 1.0
    assert worst_cosine(vectors, vectors[::-1]) == 0.0
    assert choose(lambda mode: None, lambda: vectors, [Mode()], "auto").mode == Mode()


def test_a_vector_of_next_to_no_length_has_no_direction_that_could_stray():
    vectors = np.array([[10.0, 0.0], [0.0, 10.0], [0.006, 0.0]])
    rounded = np.array([[10.0, 0.0], [0.0, 10.0], [0.0, 0.02]])
    assert worst_cosine(rounded, vectors) == 1.0
    assert worst_cosine(vectors * [[1], [1], [100]], vectors) == 1.0
    assert (
        worst_cosine(np.array([[10.0, 0.0], [0.0, 10.0], [0.0, 0.6]]), vectors) == 0.0
    )  # not short any more
    assert worst_cosine(rounded[:2][::-1], vectors[:2]) == 0.0


# ---- OpenVINO among the modes --------------------------------------------------------------------

OV_FP32, OV_BF16 = Mode("fp32", engine="openvino"), Mode("bf16", engine="openvino")
OV_INT8 = Mode("int8-dynamic", engine="openvino")


@pytest.fixture
def engines(monkeypatch):
    """Vectors and seconds of each mode as the test says; gives a function that chooses, and what was applied."""

    class Engines:
        def __init__(self):
            self.error = {}
            self.unlike_error = {}
            self.seconds = {FP32: 4.0, BF16: 3.0, OV_BF16: 1.0, OV_FP32: 2.0}
            self.applied = []
            self.now = 0.0

        def vectors(self, error):
            exact = np.eye(4)
            return np.where(np.roll(exact, 1, axis=1) > 0, error, exact)

        def choose(self, policy="auto", unlike=True, types=("bf16", "fp32")):
            return choose(
                self.applied.append,
                self.forward,
                candidates(policy, "cpu", False, openvino_types=types),
                policy,
                (lambda: self.vectors(self.unlike_error.get(self.applied[-1], 0.0))) if unlike else None,
            )

        def forward(self):
            self.now += self.seconds[self.applied[-1]]
            return self.vectors(self.error.get(self.applied[-1], 0.0))

    made = Engines()
    monkeypatch.setattr(precision.time, "perf_counter", lambda: made.now)
    return made


def test_openvino_is_chosen_where_it_is_fastest_and_its_slower_type_is_not_tried(engines):
    choice = engines.choose()
    assert choice.mode == OV_BF16
    assert choice.cosine == 1.0
    assert choice.rows_per_second == {"fp32": 1.0, "bf16": 1.3, "openvino bf16": 4.0}
    assert OV_FP32 not in engines.applied


def test_what_is_far_behind_openvino_in_its_first_pass_is_not_timed_again(engines):
    engines.seconds = {FP32: 4.0, BF16: 1.2, OV_BF16: 1.0}
    engines.choose()
    assert engines.applied.count(FP32) == 1
    assert engines.applied.count(BF16) == engines.applied.count(OV_BF16) == 1 + precision.ROUNDS


def test_a_slow_first_pass_of_torch_tells_nothing_of_torch(model):
    slow = {Mode("fp16"): 100.0}
    forward = model.forward
    model.forward = lambda: (setattr(model, "now", model.now + slow.pop(model.mode, 0.0)), forward())[1]
    assert model.choose("auto").mode == Mode("fp16")


def test_where_its_faster_type_strays_the_slower_one_is_tried(engines):
    engines.error[OV_BF16] = 0.1
    choice = engines.choose()
    assert choice.mode == OV_FP32
    assert "openvino bf16" not in choice.rows_per_second


@pytest.mark.parametrize(
    ("seconds", "error", "chosen"),
    [(0.5, 0.02, OV_INT8), (0.97, 0.0, OV_BF16), (0.5, 0.1, OV_BF16)],  # close; hardly faster; strays
)
def test_eight_bits_are_timed_beside_a_faster_float_and_taken_where_close_and_faster(
    engines, seconds, error, chosen
):
    engines.seconds[OV_INT8], engines.error[OV_INT8] = seconds, error
    choice = engines.choose(types=["bf16", "fp32", "int8-dynamic"])
    assert choice.mode == chosen
    assert OV_BF16 in engines.applied
    assert OV_FP32 not in engines.applied
    assert choice.note == ""
    for policy in ("fp32", "bf16"):
        assert engines.choose(policy, types=["bf16", "fp32", "int8-dynamic"]).mode.dtype == policy


def test_vectors_that_stray_on_inputs_unlike_the_rows_count_as_well(engines):
    engines.unlike_error[OV_BF16] = engines.unlike_error[OV_FP32] = 0.1
    choice = engines.choose()
    assert choice.mode == BF16
    assert str(choice).endswith("; openvino fp32 strays from fp32, cosine 0.99504")
    assert engines.choose(unlike=False).mode == OV_BF16


def test_an_explicit_type_is_taken_with_torch_where_openvino_strays(engines):
    engines.error[BF16] = engines.error[OV_BF16] = 0.1
    assert engines.choose("bf16").mode == BF16
    engines.error[OV_BF16] = 0.0
    assert engines.choose("bf16").mode == OV_BF16
    assert engines.choose("fp32").mode == OV_FP32


def test_an_openvino_that_fails_to_run_leaves_torch_and_says_why(engines, monkeypatch):
    forward = engines.forward

    def failing():
        if engines.applied[-1].engine == "openvino":
            raise RuntimeError("no such operator\nat node.cpp:7")
        return forward()

    monkeypatch.setattr(engines, "forward", failing)
    choice = engines.choose()
    assert choice.mode == BF16
    assert str(choice).endswith("; OpenVINO can't run it: no such operator")


def test_eight_bits_are_for_cpus_and_taken_however_far_off(engines):
    with pytest.raises(ConfigError, match="precision int8 is for CPUs"):
        candidates("int8", "cuda", False)
    int8 = Mode("int8", engine="openvino")
    engines.seconds[int8], engines.error[int8] = 9.0, 0.5
    choice = choose(
        engines.applied.append,
        engines.forward,
        candidates("int8", "cpu", True, openvino_types=["int8"]),
        "int8",
    )
    assert choice.mode == int8
    assert str(choice).startswith("openvino int8, cosine 0.8")
