from dataclasses import replace

import numpy as np
import pytest
import torch

from embed.encoders.base import Sources, Tokens
from embed.encoders.resolve import resolve
from embed.forward.devices import DeviceSettings
from embed.forward.engine import Engine
from embed.forward.fleet import load_engines
from embed.forward.precision import Compiled, Mode, ModeChoice
from embed.inputs.batch import Batch, RowWindow
from store.errors import ConfigError, EncoderError
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace
from tests.fake_models import WORDS, save_tiny_sentence_model

KEYS = [bytes([i]) * 16 for i in range(40)]
TEXTS = [" ".join(WORDS[: 1 + i % len(WORDS)]) * (1 + i // 20) for i in range(40)]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sentence_model(tmp_path_factory.mktemp("models") / "tiny")


class SummingEncoder:
    """A vector is the sum of the token ids and their number; forgets how to do more than `fits` tokens at once."""

    def __init__(self, fits=10**9, modality="text", error=None):
        preprocessing = {"mean": [0.5, 0.25, 0.0], "std": [1.0, 0.5, 0.25]} if modality == "image" else {}
        self.spec = EncoderSpec("sum", modality, "fake", "sum", "0" * 64, 2, preprocessing, "sum", False)
        self.module = torch.nn.Linear(1, 1)
        self.pad_id = 0
        self.fits = fits
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.passes: list[int] = []

    def tokenize(self, texts):
        sequences = [np.array([len(word) for word in text.split()], np.int32) for text in texts]
        return Tokens(sequences, np.arange(len(texts)), 0)

    def forward(self, first, mask=None):
        if first.numel() > self.fits:
            raise self.error
        self.passes.append(first.numel())
        if mask is None:
            return first.mean(dim=(2, 3))[:, :2]
        return torch.stack([first.sum(1), mask.sum(1)], dim=1)


def engine_of(workspace, encoder, **settings):
    return Engine(workspace, encoder.spec, lambda: encoder, "cpu", DeviceSettings(("cpu",), **settings))


def encode(engine, texts=TEXTS):
    window = RowWindow("sum@name", KEYS[: len(texts)], texts)
    engine.begin(window, len(KEYS))
    found = {}
    for batch, vectors in engine.encode(engine.batches(iter([window]))):
        found.update(zip(batch.keys, vectors, strict=True))
    return np.stack([found[key] for key in KEYS[: len(texts)]])


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    ],
)
def test_memory_that_runs_out_halves_the_batch_and_the_vectors_are_the_same(workspace, message):
    roomy, tight = SummingEncoder(), SummingEncoder(fits=30, error=RuntimeError(message))
    expected = encode(engine_of(workspace, roomy, batch_tokens=1000))
    engine = engine_of(workspace, tight, batch_tokens=1000)
    np.testing.assert_array_equal(encode(engine), expected)
    assert engine.provenance()["units"] <= 30


def test_after_memory_ran_out_once_later_batches_are_made_smaller_from_the_start(workspace):
    encoder = SummingEncoder(fits=30)
    engine = engine_of(workspace, encoder, batch_tokens=1000)
    encode(engine)
    encoder.passes.clear()
    batches = list(engine.batches(iter([RowWindow("sum@name", KEYS, TEXTS)])))
    assert max(batch.units for batch in batches) <= 30


def test_one_text_that_does_not_fit_alone_is_an_error_not_a_loop(workspace):
    with pytest.raises(
        EncoderError, match=r"sum: the memory of cpu .* is too small for one text: CUDA out of"
    ):
        encode(engine_of(workspace, SummingEncoder(fits=3)))


def test_vectors_of_another_length_than_declared_are_refused(workspace):
    encoder = SummingEncoder()
    encoder.spec = replace(encoder.spec, dim=3)
    with pytest.raises(EncoderError, match="declare vectors of 3 numbers, the model gives 2"):
        encode(engine_of(workspace, encoder))


def test_vectors_of_chunks_are_averaged_by_their_length(workspace):
    engine = engine_of(workspace, SummingEncoder())
    ids = np.array([[4, 4], [1, 0], [7, 0]])
    batch = Batch(
        "sum@name",
        KEYS[:2],
        (ids, (ids > 0).astype(int)),
        owner=np.array([0, 0, 1]),
        weights=np.array([2, 1, 1]),
    )
    ((_, vectors),) = engine.encode(iter([batch]))
    np.testing.assert_allclose(vectors, [[(2 * 8 + 1 * 1) / 3, (2 * 2 + 1 * 1) / 3], [7, 1]])


def test_images_are_scaled_by_mean_and_deviation_on_the_device(workspace):
    engine = engine_of(workspace, SummingEncoder(modality="image"))
    pixels = np.full((1, 4, 4, 3), 255, np.uint8)
    ((_, vectors),) = engine.encode(iter([Batch("sum", KEYS[:1], (pixels,))]))
    np.testing.assert_allclose(vectors, [[(1 - 0.5) / 1.0, (1 - 0.25) / 0.5]])


def test_batch_size_does_not_change_vectors_by_more_than_a_thousandth(workspace, folder):
    resolved = resolve(workspace, str(folder), Sources(offline=True), "fp32")
    runs = []
    for tokens in (16, 4096):
        (engine,) = load_engines(workspace, resolved, DeviceSettings(("cpu",), batch_tokens=tokens))
        runs.append(encode(engine))
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-3)


def test_precision_is_measured_once_and_remembered(workspace, folder, monkeypatch):
    resolved = resolve(workspace, str(folder), Sources(offline=True))
    window = RowWindow("tiny@name", KEYS, TEXTS)
    (engine,) = load_engines(workspace, resolved, DeviceSettings(("cpu",)))
    said = engine.begin(window, len(KEYS))
    assert "measured: fp32" in said
    (again,) = load_engines(workspace, resolved, DeviceSettings(("cpu",)))
    monkeypatch.setattr("embed.forward.engine.ModeTrial.choose", None)  # would be called
    assert again.begin(window, len(KEYS)) == said
    assert again.provenance()["precision"] == engine.provenance()["precision"]


def test_a_device_that_is_not_there_is_an_error_that_says_what_to_pass(workspace, folder):
    resolved = resolve(workspace, str(folder), Sources(offline=True))
    with pytest.raises(
        ConfigError, match=r"device 'cuda:63' can't be used here.*: name auto, cpu, cuda or mps"
    ):
        load_engines(workspace, resolved, DeviceSettings(("cuda:63",)))


def test_on_a_gpu_the_batch_grows_until_memory_runs_out(workspace):
    encoder = SummingEncoder(fits=40_000)
    engine = engine_of(workspace, encoder)
    engine._kind = "gpu"  # grows by measuring, which on a CPU is not worth its time
    engine.begin(RowWindow("sum@name", KEYS, TEXTS), len(KEYS))
    assert engine.provenance()["units"] <= 40_000


def test_a_batch_size_that_was_given_once_is_not_taken_for_the_one_that_was_measured(workspace):
    window = RowWindow("sum@name", KEYS, TEXTS)
    for settings, at_least in (({"batch_tokens": 8}, 8), ({}, 16384)):
        engine = engine_of(workspace, SummingEncoder(), **settings)
        engine._kind, engine._start_units = "gpu", 16384
        if not settings:
            engine._limit.units = engine._start_units  # from which it grows
        engine.begin(window, len(KEYS))
        assert engine.units >= at_least
    again = engine_of(workspace, SummingEncoder())
    again.begin(window, len(KEYS))
    assert again.units == engine.units


class Overflowing(SummingEncoder):
    """Gives infinity under autocast, as fp16 does where activations are large."""

    def forward(self, first, mask=None):
        vectors = super().forward(first, mask).float()
        return vectors / 0.0 if torch.is_autocast_enabled("cpu") else vectors


def test_what_overflows_in_fp16_is_computed_again_in_fp32(workspace):
    engine = engine_of(workspace, Overflowing())
    engine._ready().apply(Mode("fp16"))
    window = RowWindow("sum@name", KEYS[:3], TEXTS[:3])
    ((_, vectors),) = engine.encode(engine.batches(iter([window])))
    assert np.isfinite(vectors).all()
    assert sorted(vectors[:, 1]) == sorted(len(text.split()) for text in TEXTS[:3])


# ---- torch.compile, which on a CPU is never tried: here as if it were a GPU --------------------------


@pytest.fixture
def compiling(workspace, monkeypatch):
    """`begin` for so many rows, with a `torch.compile` of one's own; gives the precision chosen."""

    def begin(compiled, n_rows=10**9):
        engine = engine_of(workspace, SummingEncoder())
        engine._type = "cuda"
        monkeypatch.setattr(torch, "compile", compiled)
        monkeypatch.setattr("embed.forward.engine.device_name", lambda device, threads: "a GPU")
        known = ModeChoice(Mode(), 4096, None, {"fp32": 1000.0})
        monkeypatch.setattr("embed.forward.engine.recall", lambda *arguments: known)
        rates = iter((1000.0, 2000.0))  # as it was, and compiled
        monkeypatch.setattr("embed.forward.autotune.ModeTrial._rate", lambda trial, timed: next(rates))
        return engine, engine.begin(RowWindow("sum@name", KEYS, TEXTS), n_rows)

    return begin


def test_a_compiled_model_is_used_where_it_measures_faster_and_repays_itself(compiling):
    def compiled(module, **options):
        return module

    engine, said = compiling(compiled)
    assert engine.provenance()["precision"] == "fp32 compiled"
    assert "fp32 compiled" in said
    engine, said = compiling(compiled, n_rows=5000)
    assert engine.provenance()["precision"] == "fp32"
    assert "compiled" not in said


def test_a_machine_without_a_compiler_goes_on_without(compiling):
    def broken(module, **options):
        raise RuntimeError("Cannot find a working triton installation")

    engine, said = compiling(broken)
    assert engine.provenance()["precision"] == "fp32"
    assert "fp32 compiled 0.0 rows/s" in said
    assert isinstance(engine._encoder.module, torch.nn.Linear)


def test_compiling_is_repaid_only_by_enough_rows():
    choice = ModeChoice(Mode("bf16"), 64, 1.0, {"fp32": 50.0, "bf16": 100.0}, Compiled(200.0, 60.0))
    assert choice.mode_for(12_001) == Mode("bf16", compiled=True)
    assert choice.mode_for(11_999) == Mode("bf16")
    assert ModeChoice(Mode("bf16"), 64, 1.0, {"bf16": 100.0}, Compiled(104.0, 0.0)).mode_for(10**9) == Mode(
        "bf16"
    )
