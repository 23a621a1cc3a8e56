"""Modes of a GPU, on the CPU: texts without padding give the vectors of padded batches, graphs are replayed safely."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from embed.encoders.base import Sources
from embed.encoders.registry import library_of
from embed.encoders.resolve import resolve
from embed.forward import autotune, precision, unpadded
from embed.forward import passes as passes_module
from embed.forward.attention import avoid_wrong_attention
from embed.forward.passes import TorchPasses
from embed.forward.precision import Compiled, Mode, ModeChoice, candidates, choose, worst_cosine
from embed.inputs.batch import Batch, BatchLimit, RowWindow
from embed.inputs.texts import TextPreparer
from store.errors import ConfigError
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace
from tests import family_models as of
from tests.family_models import TEXTS
from tests.test_embed_encoders_families import st

PLAIN, UNPADDED = Mode(), Mode(unpadded=True)


def passes_of(tmp_path, address):
    (one,) = resolve(Workspace(tmp_path / "workspace"), address, Sources(offline=True), "fp32")
    (encoder,) = library_of(one.address).load([one])
    limit = BatchLimit(64)
    windows = iter([RowWindow("tested", [bytes([at]) * 16 for at in range(len(TEXTS))], TEXTS)])
    batches = list(TextPreparer(encoder.tokenize, encoder.pad_id, limit).batches(windows))
    return TorchPasses(encoder, torch.device("cpu"), limit), batches


def vectors_of(passes, batches, mode):
    passes.apply(mode)
    with passes.running():
        return np.concatenate([passes.vectors(batch) for batch in batches])


@pytest.fixture
def kernel(monkeypatch):
    """Torch's kernel as its documentation describes it, on the CPU; gives what it was asked for."""
    from torch.nn.attention import varlen

    asked = []

    def varlen_attn(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa=False
    ):
        assert enable_gqa or query.shape == key.shape
        assert cu_seq_q.dtype == torch.int32
        assert (cu_seq_q.diff() <= max_q).all()
        asked.append(window_size)
        found = torch.empty_like(query)
        for start, stop in zip(cu_seq_q.tolist(), cu_seq_q.tolist()[1:], strict=False):
            one = (tokens[start:stop].transpose(0, 1)[None] for tokens in (query, key, value))
            found[start:stop] = torch.nn.functional.scaled_dot_product_attention(
                *one, is_causal=window_size == (-1, 0), scale=scale, enable_gqa=enable_gqa
            )[0].transpose(0, 1)
        return found

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    monkeypatch.setattr(unpadded, "has_kernel", lambda query: True)
    return asked


FAMILIES = {
    "bert": (of.bert, "hf:{}?pooling=cls&max_tokens=24", (-1, -1)),
    "minilm": (st(of.bert), "st:{}", (-1, -1)),
    "bge-m3": (st(of.xlm_roberta, "cls"), "st:{}", (-1, -1)),
    "nomic-embed-text-v1.5": (st(of.nomic), "st:{}", (-1, -1)),
    "qwen3-embedding": (of.decoder, "hf:{}?max_tokens=24", (-1, 0)),
    "e5-mistral": (lambda folder: of.decoder(folder, "Mistral"), "hf:{}?max_tokens=24", (-1, 0)),
    "modernbert-embed-base": (st(of.modernbert), "st:{}", (-1, -1)),
    "gte-qwen2": (
        st(lambda folder: of.decoder(folder, "Qwen2", is_causal=False), "lasttoken"),
        "st:{}",
        (-1, -1),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_without_padding_get_the_vectors_of_padded_batches(family, kernel, monkeypatch, tmp_path):
    save, address, window = FAMILIES[family]
    passes, batches = passes_of(tmp_path, address.format(save(tmp_path / family)))
    assert passes.can_be_unpadded
    assert any((batch.arrays[1] == 0).any() for batch in batches)  # there is padding to leave out
    padded = vectors_of(passes, batches, PLAIN)
    assert worst_cosine(vectors_of(passes, batches, UNPADDED), padded) >= 0.99999
    assert set(kernel) == {window}
    with monkeypatch.context() as without:
        without.setattr(unpadded, "has_kernel", lambda query: False)
        assert worst_cosine(vectors_of(passes, batches, UNPADDED), padded) >= 0.99999
    np.testing.assert_array_equal(vectors_of(passes, batches, PLAIN), padded)  # and back


def test_a_kernel_that_wants_as_many_keys_as_queries_gets_them(kernel, monkeypatch, tmp_path):
    from torch.nn.attention import varlen

    newer = varlen.varlen_attn

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
        return newer(
            query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size
        )

    monkeypatch.setattr(varlen, "varlen_attn", older)
    save, address, _ = FAMILIES["qwen3-embedding"]
    passes, batches = passes_of(tmp_path, address.format(save(tmp_path / "decoder")))
    padded = vectors_of(passes, batches, PLAIN)
    assert worst_cosine(vectors_of(passes, batches, UNPADDED), padded) >= 0.99999


@pytest.mark.parametrize(
    "save, address",
    [
        (st(of.t5), "st:{}"),
        (st(of.gemma_encoder), "st:{}"),  # windows of 8 tokens
        (of.static, "st:{}"),
    ],
    ids=["t5", "embeddinggemma", "static"],
)
def test_a_model_with_attention_of_another_kind_keeps_its_padding(save, address, tmp_path):
    passes, batches = passes_of(tmp_path, address.format(save(tmp_path / "model")))
    if passes.can_be_unpadded:
        with pytest.raises(NotImplementedError, match="attention without padding is not for"):
            vectors_of(passes, batches, UNPADDED)
    assert np.isfinite(vectors_of(passes, batches, PLAIN)).all()


# ---- chosen by measuring, as other modes are -----------------------------------------------------

BF16, BF16_UNPADDED = Mode("bf16"), Mode("bf16", unpadded=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when a test says so."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(precision.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_padding_is_left_out_on_a_gpu_alone_and_in_half_types():
    found = candidates("auto", "cuda", False, unpadded=True)
    assert [str(mode) for mode in found] == ["fp32", "fp16", "bf16", "fp16 unpadded", "bf16 unpadded"]
    assert candidates("bf16", "cuda", False, unpadded=True) == [Mode(), BF16, BF16_UNPADDED]
    assert candidates("auto", "cuda", False, "bf16", unpadded=True) == [BF16, BF16_UNPADDED]
    for policy, device in (("fp32", "cuda"), ("auto", "cpu"), ("auto", "mps")):
        assert not any(mode.unpadded for mode in candidates(policy, device, False, unpadded=True))


@pytest.mark.parametrize("policy", ["auto", "bf16"])
def test_unpadded_attention_is_chosen_where_it_is_faster_and_close_and_never_where_it_strays(policy, clock):
    error, applied = {}, []

    def forward():
        clock.now += {Mode(): 3.0, BF16: 2.0}.get(applied[-1], 1.0)
        found = error.get(applied[-1], 0.0)
        if isinstance(found, Exception):
            raise found
        return np.where(np.roll(np.eye(4), 1, axis=1) > 0, found, np.eye(4))

    def chosen():
        modes = candidates("bf16", "cuda", False, unpadded=True)
        return choose(applied.append, forward, modes, policy).mode

    assert chosen() == BF16_UNPADDED
    error[BF16_UNPADDED] = 0.1
    assert chosen() == BF16
    error[BF16_UNPADDED] = NotImplementedError("attention without padding is not for this")
    assert chosen() == BF16
    error[BF16] = RuntimeError("no such type")
    if policy == "bf16":
        with pytest.raises(ConfigError, match="can't compute in bf16: no such type"):
            chosen()


def test_a_big_models_own_type_is_what_its_unpadded_pass_is_held_against(clock):
    def forward():
        clock.now += 1.0
        return np.eye(4)

    choice = choose(
        lambda mode: None, forward, candidates("auto", "cuda", False, "bf16", unpadded=True), "auto"
    )
    assert choice.mode == BF16
    assert choice.cosine is None  # nothing was compared with fp32


# ---- CUDA graphs ---------------------------------------------------------------------------------


class Replayed(torch.nn.Module):
    """What a module compiled with CUDA graphs does: each shape of inputs has one place for its vectors."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.places = {}

    def forward(self, pixels):
        found = self.module(pixels)
        return self.places.setdefault(pixels.shape, torch.empty_like(found)).copy_(found)


class MeanColour:
    """A vector is an image's mean colour."""

    def __init__(self):
        preprocessing = {"mean": [0.0] * 3, "std": [1.0] * 3}
        self.spec = EncoderSpec("mean", "image", "fake", "mean", "0" * 64, 3, preprocessing, "mean", False)
        self.module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    def forward(self, pixels):
        return self.module(pixels)


def test_vectors_of_a_replayed_graph_outlive_the_next_replay(monkeypatch):
    how = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: how.append(options) or Replayed(module))
    passes = TorchPasses(MeanColour(), torch.device("cpu"), BatchLimit(2))
    passes.apply(Mode(compiled=True, graphs=True))
    assert how == [{"dynamic": False, "mode": "reduce-overhead"}]
    levels = torch.arange(4, dtype=torch.uint8)[:, None, None, None] * 51
    found = passes.forward((levels.expand(4, 8, 8, 3).contiguous(),))  # in two halves of one shape
    np.testing.assert_allclose(found[:, 0], [0.0, 0.2, 0.4, 0.6], atol=1e-6)
    passes.apply(Mode(compiled=True))
    assert how[-1] == {"dynamic": False}
    passes._limit.units = 4
    few = passes.forward((levels[:3].expand(3, 8, 8, 3).contiguous(),))  # of another shape: filled, and cut
    np.testing.assert_allclose(few[:, 0], [0.0, 0.2, 0.4], atol=1e-6)
    assert passes._encoder.module.places.keys() == {(4, 3, 8, 8)}


class TimedPasses:
    """Passes that take as long as a test says by its clock, and give what it says."""

    most_waiting = 0

    def __init__(self, clock, seconds, wrong=()):
        self.clock, self.seconds, self.wrong = clock, seconds, wrong
        self.mode = Mode()

    def apply(self, mode):
        self.mode = mode

    def running(self):
        return nullcontext()

    def vectors(self, batch):
        self.clock.now += self.seconds[self.mode.compiled, self.mode.graphs]
        found = np.eye(8)[: len(batch.keys)]
        return found[:, ::-1] if self.mode in self.wrong else found


class OneBatch:
    def batches(self, windows):
        for window in windows:
            yield Batch("fake", window.keys, (np.zeros((len(window.keys), 4, 4, 3), np.uint8),))


def compiled_by(clock, seconds, wrong=(), modality="image"):
    spec = EncoderSpec("fake", modality, "fake", "fake", "0" * 64, 8, {}, "mean", False)
    trial = autotune.ModeTrial(spec, TimedPasses(clock, seconds, wrong), OneBatch(), BatchLimit(8), [Mode()])
    window = RowWindow("fake", [bytes([at]) * 16 for at in range(8)], ["x"] * 8)
    return trial.compile(window, ModeChoice(Mode("bf16"), 8, 1.0, {"fp32": 1.0, "bf16": 1.0}))


GRAPHS = Mode("bf16", compiled=True, graphs=True)
FASTER_WITH_GRAPHS = {(False, False): 4.0, (True, False): 2.0, (True, True): 1.0}


def test_graphs_are_chosen_for_images_where_they_are_faster_and_right(clock):
    choice = compiled_by(clock, FASTER_WITH_GRAPHS)
    assert choice.compiled == Compiled(8.0, choice.compiled.seconds, graphs=True)  # a whole batch a second
    assert choice.mode_for(10**9) == GRAPHS
    assert "bf16 compiled graphs 8.0 rows/s" in str(choice)
    plain = {**FASTER_WITH_GRAPHS, (True, True): 2.0}
    assert compiled_by(clock, plain).mode_for(10**9) == Mode("bf16", compiled=True)
    assert compiled_by(clock, FASTER_WITH_GRAPHS, wrong=[GRAPHS]).compiled.graphs is False


def test_texts_and_versions_of_torch_that_record_in_one_thread_alone_get_no_graphs(clock, monkeypatch):
    assert compiled_by(clock, FASTER_WITH_GRAPHS, modality="text").compiled.graphs is False
    monkeypatch.setattr(autotune, "version", lambda name: "2.13.1+cu130")
    assert compiled_by(clock, FASTER_WITH_GRAPHS).compiled.graphs is False


# ---- batch sizes ---------------------------------------------------------------------------------


class SizedPasses(TimedPasses):
    """A pass takes as long as a test says for so many images."""

    def vectors(self, batch):
        n = len(batch.keys)
        self.clock.now += self.seconds(n)
        return np.zeros((n, 8))


@pytest.mark.parametrize(
    "seconds, images",
    [
        (lambda n: n / 640, 64),  # busy at once, and no faster with more
        (lambda n: n / 2000, 256),  # as fast with 64, but their passes are short
        (lambda n: 0.5 + n / 10_000, 1024),  # faster with every doubling
        (lambda n: n / 2000 if n < 128 else n / 1500, 64),  # short, but slower with more
    ],
)
def test_a_batch_grows_while_that_gains_or_its_pass_is_short_and_nothing_is_lost(clock, seconds, images):
    spec = EncoderSpec("fake", "image", "fake", "fake", "0" * 64, 8, {}, "mean", False)
    trial = autotune.ModeTrial(
        spec, SizedPasses(clock, seconds), OneBatch(), BatchLimit(64), [Mode()], kind="gpu"
    )
    window = RowWindow("fake", [bytes([at]) * 16 for at in range(64)], ["x"] * 64)
    choice = trial.grow(window, ModeChoice(Mode("bf16"), None, 1.0, {"bf16": 1.0}))
    assert choice.units == images


# ---- nothing that a GPU computes is waited for ---------------------------------------------------


def test_tokens_are_counted_before_a_batch_is_on_the_device_and_anew_for_its_halves(tmp_path, monkeypatch):
    save, address, _ = FAMILIES["bert"]
    passes, batches = passes_of(tmp_path, address.format(save(tmp_path / "bert")))
    passes.apply(UNPADDED)
    counted = []
    find = passes._unpadded.find_tokens
    monkeypatch.setattr(
        passes._unpadded, "find_tokens", lambda mask, n: counted.append((len(mask), n)) or find(mask, n)
    )
    batch = batches[0]
    n_rows, n_tokens = len(batch.keys), int(batch.arrays[1].sum())
    assert n_rows > 1
    inputs = tuple(map(torch.from_numpy, batch.arrays))
    with passes.running():
        whole = passes.start(batch, inputs).numpy()
        passes._limit.units = batch.units - 1
        halves = passes.start(batch, inputs).numpy()
    assert counted[0] == (n_rows, n_tokens)
    assert [n for _, n in counted[1:]] == [None, None]
    assert sum(rows for rows, _ in counted[1:]) == n_rows
    np.testing.assert_allclose(halves, whole, atol=1e-5)


def test_mean_and_deviation_of_images_are_copied_to_a_device_once(monkeypatch):
    passes = TorchPasses(MeanColour(), torch.device("cpu"), BatchLimit(2))
    pixels = torch.full((2, 8, 8, 3), 51, dtype=torch.uint8)
    before = passes.forward((pixels,))
    monkeypatch.setattr(torch, "tensor", None)  # would be called
    np.testing.assert_array_equal(passes.forward((pixels,)), before)


@pytest.mark.parametrize("max_tokens, is_off", [(65, True), (257, True), (64, False), (0, False)])
def test_attention_that_is_wrong_at_the_longest_text_is_turned_off(monkeypatch, max_tokens, is_off):
    turned: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_mem_efficient_sdp", turned.append)
    avoid_wrong_attention({"max_tokens": max_tokens})
    assert turned == ([False] if is_off else [])


def test_passes_ask_for_attention_that_is_right(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(passes_module, "avoid_wrong_attention", asked.append)
    passes, _ = passes_of(tmp_path, f"st:{st(of.bert)(tmp_path / 'model')}")
    assert asked == [passes._spec.preprocessing]
    assert asked[0]["max_tokens"] > 0
