"""Encoders of every kind converted for OpenVINO: the same vectors, kept with them, loaded without torch."""

import json
import shutil
import subprocess
import sys
import weakref
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embed.encoders import base
from embed.encoders.base import Sources
from embed.encoders.registry import library_of, parse_address
from embed.encoders.resolve import resolve
from embed.forward import converted, dynamic_int8, openvino, precision
from embed.forward import engine as engine_module
from embed.forward.autotune import ModeTrial
from embed.forward.converted import ConvertedModel, converted_folder
from embed.forward.devices import DeviceSettings
from embed.forward.engine import Engine
from embed.forward.fleet import load_engines
from embed.forward.memory import within_memory
from embed.forward.openvino import ConvertedPasses, best_type, embed_each, load_converted, native_types
from embed.forward.precision import Mode, ModeChoice, recall, remember, worst_cosine
from embed.inputs.batch import Batch, BatchLimit, ImageReader, RowWindow
from embed.inputs.texts import TextPreparer
from store.errors import ConfigError, CorruptFileError, EncoderError, WorkspaceError
from store.workspace import Workspace
from tests import family_models as of
from tests.fake_images import encoded, photo
from tests.fake_models import (
    WORDS,
    save_tiny_bert,
    save_tiny_clip,
    save_tiny_sentence_model,
    save_tiny_timm,
    save_tiny_tokenizer,
)

if find_spec("openvino") is None:  # importing it here would let its telemetry start a process at every event
    pytest.skip("needs shelfprice[starter]", allow_module_level=True)
from embed.forward.conversion import convert
from embed.forward.passes import TorchPasses

KEYS = [bytes([i]) * 16 for i in range(70)]
TEXTS = [" ".join(WORDS[: 1 + i % len(WORDS)]) + f" {i}" for i in range(70)]
WINDOW = RowWindow("tiny@name", KEYS, TEXTS)
FP32 = Mode("fp32", engine="openvino")


def save_tiny_t5(folder):
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    save_tiny_tokenizer(folder)
    sizes = {"vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes)).save_pretrained(folder)
    return folder


def save_clip_of_libraries(folder):
    """An image tower of timm's, and a text tower that attends to its padding."""
    save_tiny_tokenizer(folder)
    vision = {"timm_model_name": "test_efficientnet", "image_size": 64, "timm_pool": "avg"}
    text = {
        "context_length": 12,
        "vocab_size": 100,
        "hf_tokenizer_name": "nobody/tiny",
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "pool_type": "last",
        "proj_bias": True,
    }
    return save_tiny_clip(folder, vision_cfg=vision, text_cfg=text, custom_text=True)


LARGE = {"input_size": (3, 160, 160)}
KINDS = {
    "timm-resnet": lambda folder: save_tiny_timm(folder),
    "timm-efficientnet": lambda folder: save_tiny_timm(folder, architecture="test_efficientnet", **LARGE),
    "timm-vit": lambda folder: save_tiny_timm(folder, architecture="test_vit", **LARGE),
    "open_clip-image": lambda folder: f"{save_tiny_clip(folder)}.image",
    "open_clip-text": lambda folder: f"{save_tiny_clip(folder)}.text",
    "open_clip-timm": lambda folder: f"{save_clip_of_libraries(folder)}.image",
    "open_clip-padded": lambda folder: f"{save_clip_of_libraries(folder)}.text",
    "transformers-mean": lambda folder: save_tiny_bert(folder),
    "transformers-cls": lambda folder: f"{save_tiny_bert(folder)}?pooling=cls",
    "transformers-last": lambda folder: f"{save_tiny_bert(folder)}?pooling=last",
    "transformers-t5": lambda folder: save_tiny_t5(folder),
    "sentence-transformers": lambda folder: save_tiny_sentence_model(folder),
    "sentence-transformers-dense": lambda folder: save_tiny_sentence_model(folder, pooling="cls", dense=48),
}


def load(address):
    parsed = parse_address(str(address))
    library = library_of(parsed)
    (encoder,) = library.load(library.resolve(parsed, Sources(offline=True), lambda path: ""))
    return encoder


def inputs_of(encoder):
    """Batches unlike the example that is traced: other numbers of rows, lengths and padding; images of one colour."""
    if encoder.spec.modality == "text":
        preparer = TextPreparer(encoder.tokenize, encoder.pad_id, BatchLimit(10**6))
        groups = [["coffee"], ["red"] * 5, ["green", "cotton shirt pack of six large " * 2, "beans"]]
        return [
            batch
            for texts in groups
            for batch in preparer.batches(iter([RowWindow("tiny@name", KEYS[: len(texts)], texts)]))
        ]
    size = encoder.spec.preprocessing["size"]
    pixels = np.random.default_rng(0).integers(0, 256, (7, *size, 3), np.uint8)
    pixels[5:] = 0, 255, 40
    return [Batch("tiny", KEYS[: len(part)], (part,)) for part in (pixels[:1], pixels[:5], pixels[5:])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_encoder_of_every_kind_gives_the_vectors_of_torch(kind, tmp_path):
    encoder = load(KINDS[kind](tmp_path / "model"))
    batches = inputs_of(encoder)
    plain = TorchPasses(encoder, torch.device("cpu"), BatchLimit(10**6))
    passes = ConvertedPasses(convert(encoder, tmp_path / "converted"), 1, BatchLimit(10**6))
    passes.apply(FP32)
    with plain.running():
        for batch in batches:
            expected = plain.vectors(batch)
            np.testing.assert_allclose(
                passes.vectors(batch), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
            )
            assert expected.shape == (len(batch.keys), encoder.spec.dim)


@pytest.fixture
def passes(tmp_path, folder):
    """Of a text encoder, on two streams; and batches of one, five and two texts."""
    encoder = load(folder)
    passes = ConvertedPasses(convert(encoder, tmp_path / "converted"), 2, BatchLimit(10**6))
    passes.keep(FP32)
    texts = TextPreparer(encoder.tokenize, encoder.pad_id, BatchLimit(10**6))
    parts = [RowWindow("", KEYS[:n], TEXTS[:n]) for n in (1, 5, 2)]
    return passes, [batch for part in parts for batch in texts.batches(iter([part]))]


def test_batches_in_parts_side_by_side_have_the_vectors_of_each_alone(passes):
    passes, batches = passes
    with passes.running():
        started = [(batch, passes.start(batch, batch.arrays)) for batch in batches]
        assert [len(pending) for _, pending in started] == [1, 2, 2]
        for batch, pending in started:
            found = passes.finish(batch, batch.arrays, pending)
            np.testing.assert_allclose(found, passes.alone(batch), rtol=0, atol=1e-6)


def test_whoever_gives_up_half_way_leaves_passes_that_run(passes):
    passes, batches = passes
    with passes.running():
        for batch in batches:
            passes.start(batch, batch.arrays)
    assert not passes._busy
    np.testing.assert_allclose(
        passes.finish(batches[1], batches[1].arrays, passes.start(batches[1], batches[1].arrays)),
        passes.alone(batches[1]),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("said", "is_done"), [("std::bad_alloc", True), ("Exception from src/inference", False)]
)
def test_a_part_that_finds_no_memory_is_done_in_smaller_ones_and_any_other_error_is_raised(
    passes, said, is_done
):
    class Failing:
        def start_async(self, inputs, share_inputs):
            pass

        def wait(self):
            raise RuntimeError(said)

    passes, (_, batch, _) = passes
    expected = passes.finish(batch, batch.arrays, passes.start(batch, batch.arrays))
    passes._free["fp32"] = [Failing(), Failing()]
    pending = passes.start(batch, batch.arrays)
    if is_done:
        found = passes.finish(batch, batch.arrays, pending)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    else:
        with pytest.raises(RuntimeError, match=said):
            passes.finish(batch, batch.arrays, pending)


# ---- eight bits by dynamic quantization ----------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A tiny encoder of whole groups of inputs, converted, and what torch makes of some texts in fp32."""
    folder = tmp_path_factory.mktemp("wide")
    encoder = load(save_tiny_bert(folder / "bert", hidden_size=128, intermediate_size=256))
    model = convert(encoder, folder / "converted")
    preparer = TextPreparer(encoder.tokenize, encoder.pad_id, BatchLimit(10**6))
    (batch,) = preparer.batches(iter([RowWindow("", KEYS[:20], TEXTS[:20])]))
    plain = TorchPasses(encoder, torch.device("cpu"), BatchLimit(10**6))
    with plain.running():
        return SimpleNamespace(model=model, batch=batch, X=plain.vectors(batch))


def test_products_in_eight_bits_are_close_to_fp32_and_no_text_depends_on_others(wide):
    passes = ConvertedPasses(wide.model, 2, BatchLimit(10**6))
    assert passes.types()[-1] == dynamic_int8.DTYPE
    passes.apply(Mode(dynamic_int8.DTYPE, engine="openvino"))
    X = passes.alone(wide.batch)
    assert 0.999 < worst_cosine(X, wide.X) < 0.9999999  # close, and not the same
    passes.record_cosine(passes.mode, 0.9995)
    assert best_type(ConvertedModel.read(wide.model.folder)) == dynamic_int8.DTYPE
    alone = load_converted(wide.model.folder, n_threads=2)
    in_order = wide.X[np.argsort([key[0] for key in wide.batch.keys])]
    assert worst_cosine(alone.embed(TEXTS[:20]), in_order) > 0.999
    each = alone.embed_each(TEXTS[:20])
    for at in (0, 7, 19):
        np.testing.assert_array_equal(alone.embed_each([TEXTS[at]])[0], each[at])


def test_weights_in_eight_bits_are_as_near_as_eight_bits_are():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 3 * dynamic_int8.GROUP)).astype(np.float32)
    weights[1] = 0.0
    weights[2] = 3.0
    weights[3] = -np.abs(weights[3])
    weights[4, :64] *= 1e-30
    integers, zero, scale = dynamic_int8.quantized(weights)
    assert integers.dtype == zero.dtype == np.uint8
    assert integers.shape == (5, 3, 64)
    found = ((integers.astype(np.float32) - zero) * scale).reshape(weights.shape)
    np.testing.assert_allclose(found, weights, rtol=0, atol=float(scale.max()) / 2 + 1e-6)
    np.testing.assert_array_equal(found[1], 0.0)
    spread = np.ptp(np.c_[weights.reshape(15, 64), np.zeros(15)], axis=1)
    np.testing.assert_allclose(scale.ravel(), np.maximum(spread / 255, np.finfo(np.float32).tiny), rtol=1e-5)


def test_networks_without_such_products_are_not_tried_in_eight_bits(tmp_path):
    narrow = convert(load(save_tiny_bert(tmp_path / "bert", intermediate_size=48)), tmp_path / "narrow")
    convolutions = convert(load(save_tiny_timm(tmp_path / "timm")), tmp_path / "convolutions")
    for model in (narrow, convolutions):
        assert ConvertedPasses(model, 1, BatchLimit(10**6)).types() == native_types()


# ---- chosen by measuring -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sentence_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def take_turns(apply, forward, modes):
    """OpenVINO is the fastest of what is allowed, by whatever clock."""
    return {mode: 1.0 if mode.engine == "openvino" else 2.0 for mode in modes}


@pytest.fixture
def fastest(monkeypatch):
    monkeypatch.setattr(precision, "_take_turns", take_turns)


@pytest.fixture(scope="module")
def first(tmp_path_factory, folder):
    """A first start: its workspace, the engine that converted the model there, what it said, its vectors."""
    workspace = Workspace(tmp_path_factory.mktemp("first") / "workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_take_turns", take_turns)
        engine = engine_of(workspace, folder)
        said = engine.begin(WINDOW, len(KEYS))
    return SimpleNamespace(workspace=workspace, engine=engine, spec=engine.spec, said=said, X=encode(engine))


@pytest.fixture
def next_workspace(first, tmp_path):
    """A copy of it."""
    return Workspace(shutil.copytree(first.workspace.root, tmp_path / "next"))


def engine_of(workspace, folder, policy="auto", **settings):
    resolved = resolve(workspace, str(folder), Sources(offline=True), policy)
    return load_engines(workspace, resolved, DeviceSettings(("cpu",), **settings))[0]


def encode(engine, window=WINDOW):
    found = {}
    for batch, vectors in engine.encode(engine.batches(iter([window]))):
        found.update(zip(batch.keys, vectors, strict=True))
    return np.stack([found[key] for key in window.keys])


@pytest.mark.parametrize("policy", ["auto", "fp32"])
def test_where_it_is_fastest_it_runs_the_job_and_the_fingerprint_stays_what_it_was(
    workspace, folder, first, fastest, policy
):
    engine, said = first.engine, first.said
    if policy != "auto":
        engine = engine_of(workspace, folder, policy)
        said = engine.begin(WINDOW, len(KEYS))
    provenance = engine.provenance()
    assert provenance["precision"].startswith("openvino")
    assert provenance["cosine_to_fp32"] >= 0.999
    assert "torch" not in provenance
    assert provenance["openvino"] == converted.installed_version()
    assert "openvino" in said
    plain = engine_of(Workspace(workspace.path("plain")), folder, "fp32", openvino=False)
    plain.begin(WINDOW, len(KEYS))
    assert worst_cosine(encode(engine), encode(plain)) >= 0.999
    assert engine.spec.fingerprint == resolve(workspace, str(folder), Sources(), policy)[0].spec.fingerprint


def test_the_weights_of_torch_are_let_go_of_once_they_are_converted(workspace, folder, fastest):
    seen = []

    def loading():
        encoder = load(folder)
        seen.extend(weakref.ref(parameter) for parameter in encoder.module.parameters())
        return encoder

    (resolved,) = resolve(workspace, str(folder), Sources(offline=True))
    engine = Engine(workspace, resolved.spec, loading, "cpu", DeviceSettings(("cpu",)))
    engine.begin(WINDOW, len(KEYS))
    assert engine.provenance()["precision"].startswith("openvino")
    assert len(seen) > 10
    assert [one() for one in seen if one() is not None] == []
    assert encode(engine).shape == (len(KEYS), resolved.spec.dim)


def test_the_next_start_loads_no_weights_and_gives_the_same_vectors(first, next_workspace):
    def loading():
        raise AssertionError("the weights were loaded")

    again = Engine(next_workspace, first.spec, loading, "cpu", DeviceSettings(("cpu",)))
    assert again.begin(WINDOW, len(KEYS)) == first.said
    np.testing.assert_array_equal(encode(again), first.X)
    again.begin(WINDOW, len(KEYS))  # a model that is kept for the next call


PROGRAM = """
import sys
from embed.encoders.resolve import resolve
from embed.encoders.base import Sources
from embed.forward.converted import ConvertedModel, converted_folder
from embed.forward.devices import DeviceSettings
from embed.forward.fleet import load_engines
from embed.forward.openvino import load_converted
from embed.inputs.batch import RowWindow
from store.workspace import Workspace

root, address, folder = sys.argv[1:]
workspace = Workspace(root)
(engine,) = load_engines(workspace, resolve(workspace, address, Sources(offline=True)), DeviceSettings(("cpu",)))
window = RowWindow("tiny@name", [b"0" * 16], ["red cotton shirt"])
engine.begin(window, 1)
((_, vectors),) = engine.encode(engine.batches(iter([window])))
alone = load_converted(folder).embed(["red cotton shirt"])
print(*vectors[0].tolist(), *alone[0].tolist())
libraries = {"torch", "transformers", "sentence_transformers", "openvino_telemetry"} & set(sys.modules)
assert not libraries, libraries
"""


def test_the_next_start_imports_no_torch_and_sends_no_telemetry(first, next_workspace, folder):
    model = converted_folder(next_workspace, first.spec)
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM, next_workspace.root, str(folder), str(model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    vectors = np.array(printed.stdout.split(), np.float32).reshape(2, -1)
    expected = encode(first.engine, RowWindow("tiny@name", KEYS[:1], ["red cotton shirt"]))
    assert worst_cosine(vectors, np.repeat(expected, 2, axis=0)) > 0.9999


def test_a_folder_alone_embeds_texts_of_any_length_and_number(tmp_path):
    encoder = load(f"{save_tiny_clip(tmp_path / 'clip')}.text?long=chunks")
    convert(encoder, tmp_path / "converted")
    texts = ["Red &amp; Green", "", " ".join(TEXTS) * 3, "coffee"]
    alone = load_converted(tmp_path / "converted")
    preparer = TextPreparer(encoder.tokenize, encoder.pad_id, BatchLimit(10**6))
    (batch,) = preparer.batches(iter([RowWindow("", [bytes([i]) for i in range(4)], texts)]))
    plain = TorchPasses(encoder, torch.device("cpu"), BatchLimit(10**6))
    with plain.running():
        expected = plain.vectors(batch)[np.argsort([key[0] for key in batch.keys])]
    assert worst_cosine(alone.embed(texts), expected) > 0.99999
    assert alone.embed([]).shape == (0, 16)


def test_many_texts_one_by_one_have_to_the_bit_the_vectors_of_each_alone(tmp_path, folder):
    convert(load(folder), tmp_path / "openvino")
    alone = load_converted(tmp_path / "openvino", n_threads=2)
    each = alone.embed_each(TEXTS)
    assert each.shape == (len(TEXTS), alone.spec.dim)
    for at, text in enumerate(TEXTS):
        np.testing.assert_array_equal(alone.embed_each([text])[0], each[at])
    np.testing.assert_array_equal(alone.embed_each(TEXTS[::-1])[::-1], each)  # again, in another order
    assert alone.embed_each([]).shape == (0, alone.spec.dim)


def test_encoders_side_by_side_have_to_the_bit_the_vectors_of_each_alone(tmp_path, folder):
    convert(load(folder), tmp_path / "texts")
    convert(load(save_tiny_timm(tmp_path / "timm")), tmp_path / "images")
    texts, images = (load_converted(tmp_path / name, n_threads=2) for name in ("texts", "images"))
    files = [encoded(photo(40, 30, seed=i), "PNG") for i in range(5)]
    files.insert(2, b"no image")
    for some in (files, files[:2]):  # many and few
        of_texts, of_images = embed_each([(texts, TEXTS), (images, some)])
        np.testing.assert_array_equal(of_texts, texts.embed_each(TEXTS))
        np.testing.assert_array_equal(of_images, images.embed_each(some))
        assert [at for at, vector in enumerate(of_images) if np.isnan(vector).any()] == [
            at for at, file in enumerate(some) if file == b"no image"
        ]
    assert [vectors.shape[0] for vectors in embed_each([(images, []), (texts, TEXTS[:1])])] == [0, 1]


def test_a_pass_that_fails_leaves_no_other_running(tmp_path, folder, monkeypatch):
    convert(load(folder), tmp_path / "openvino")
    alone = load_converted(tmp_path / "openvino", n_threads=2)
    finish, n_finished = alone.passes.finish, []

    def failing(*arguments):
        n_finished.append(1)
        if len(n_finished) == 2:
            raise RuntimeError("out of luck")
        return finish(*arguments)

    monkeypatch.setattr(alone.passes, "finish", failing)
    with pytest.raises(RuntimeError, match="out of luck"):
        alone.embed_each(TEXTS * 4)
    assert not alone.passes._busy
    monkeypatch.undo()
    np.testing.assert_array_equal(alone.embed_each(TEXTS * 4)[: len(TEXTS)], alone.embed_each(TEXTS))


def test_a_folder_alone_embeds_images_by_their_bytes(tmp_path):
    encoder = load(save_tiny_timm(tmp_path / "timm"))
    convert(encoder, tmp_path / "converted")
    alone = load_converted(tmp_path / "converted")
    contents = [encoded(photo(40, 30, seed=i), "PNG") for i in range(11)]
    X = alone.embed([*contents, b"no image"])
    assert X.shape == (12, encoder.spec.dim)
    assert np.isnan(X[11]).all()
    assert worst_cosine(X[:11], np.concatenate([alone.embed([one]) for one in contents])) > 0.99999


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_compute_as_the_job_was_given(first, next_workspace, folder, threads):
    engine = engine_of(next_workspace, folder, threads=threads, always_measured=False)
    engine.begin(RowWindow("tiny@name", KEYS[:1], TEXTS[:1]), 1)
    encode(engine)
    (network,) = engine._passes._streams.values()
    assert network.get_property("INFERENCE_NUM_THREADS") == network.get_property("NUM_STREAMS") == threads


# ---- kept ----------------------------------------------------------------------------------------


def test_a_damaged_model_is_converted_again(first, next_workspace, folder, fastest):
    weights = converted_folder(next_workspace, first.spec) / converted.WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptFileError, match=r"model\.bin is damaged"):
        ConvertedModel.read(weights.parent)
    again = engine_of(next_workspace, folder)
    again.begin(WINDOW, len(KEYS))
    assert weights.read_bytes() == content
    np.testing.assert_array_equal(encode(again), first.X)


def test_a_conversion_that_is_cut_short_leaves_nothing_that_could_be_read(tmp_path, folder):
    encoder = load(folder)

    def killed(path):
        path.write_text("half")
        raise KeyboardInterrupt

    target = tmp_path / "converted"
    with pytest.raises(KeyboardInterrupt):
        ConvertedModel.publish(target, encoder.spec, killed, None, 0)
    assert list(target.iterdir()) == []
    with pytest.raises(CorruptFileError, match="holds no whole converted model"):
        load_converted(target)


def test_another_openvino_measures_and_converts_anew(first, next_workspace, folder, fastest, monkeypatch):
    record = converted_folder(next_workspace, first.spec) / converted.RECORD
    before = json.loads(record.read_text())
    for module in (converted, engine_module):
        monkeypatch.setattr(module, "installed_version", lambda: "2099.1")
    engine_of(next_workspace, folder).begin(WINDOW, len(KEYS))
    after = json.loads(record.read_text())
    assert (before["openvino"], after["openvino"]) != (after["openvino"], before["openvino"])
    assert after["openvino"] == "2099.1"


def test_what_was_measured_before_openvino_was_there_is_measured_again(workspace, folder, fastest):
    plain = engine_of(workspace, folder, openvino=False)
    plain.begin(WINDOW, len(KEYS))
    assert not plain.provenance()["precision"].startswith("openvino")
    engine = engine_of(workspace, folder)
    engine.begin(WINDOW, len(KEYS))
    assert engine.provenance()["precision"].startswith("openvino")


def test_a_remote_workspace_keeps_its_models_in_the_users_cache(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    remote = Workspace("memory://shelf")
    (resolved,) = resolve(remote, str(folder), Sources(offline=True))
    where = converted_folder(remote, resolved.spec)
    assert where == tmp_path / ".cache/shelfprice/openvino" / resolved.spec.fingerprint


def test_a_few_items_run_on_a_model_that_was_converted_before(first, next_workspace, folder):
    for record in next_workspace.names(first.spec.folder, "measured-"):
        next_workspace.remove(f"{first.spec.folder}/{record}")  # another machine's
    few = engine_of(next_workspace, folder, always_measured=False)
    few.begin(RowWindow("tiny@name", KEYS[:1], TEXTS[:1]), 1)
    assert few.provenance()["precision"].startswith("openvino")
    assert few.provenance()["cosine_to_fp32"] >= 0.999


def test_without_openvino_everything_runs_on_torch(workspace, folder, monkeypatch):
    monkeypatch.setattr(engine_module, "installed_version", lambda: None)
    engine = engine_of(workspace, folder)
    said = engine.begin(WINDOW, len(KEYS))
    assert "openvino" not in said.lower()
    assert not converted_folder(workspace, engine.spec).exists()
    with pytest.raises(ConfigError, match=r"int8 needs OpenVINO and NNCF: pip install 'shelfprice\[int8\]'"):
        engine_of(workspace, folder, "int8").begin(WINDOW, len(KEYS))


def test_a_folder_without_openvino_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "installed_version", lambda: None)
    with pytest.raises(WorkspaceError, match="needs OpenVINO: pip install"):
        load_converted(tmp_path)


# ---- what stays on torch -------------------------------------------------------------------------


def test_an_encoder_that_is_converted_wrongly_stays_on_torch_and_one_line_says_so(workspace, folder, fastest):
    encoder = load(folder)
    plain = encoder.forward
    encoder.forward = lambda ids, mask: torch.from_numpy(plain(ids, mask).numpy())  # a trace sees no NumPy
    engine = Engine(workspace, encoder.spec, lambda: encoder, "cpu", DeviceSettings(("cpu",)))
    said = engine.begin(WINDOW, len(KEYS))
    assert engine.provenance()["precision"] in ("fp32", "bf16")
    assert "; openvino fp32 strays from fp32, cosine " in said
    assert "\n" not in said
    assert recall(workspace, encoder.spec, engine._device_name, engine._versions).note


def test_an_encoder_that_strays_on_images_of_one_colour_alone_stays_on_torch(
    workspace, tmp_path, fastest, monkeypatch
):
    encoder = load(save_tiny_timm(tmp_path / "timm"))
    plain = encoder.forward

    def forward(pixels):  # what shows nothing is not seen to be special by a trace
        is_flat = not torch.jit.is_tracing() and float(pixels.std(dim=(2, 3)).max()) < 1e-4
        return -plain(pixels) if is_flat else plain(pixels)

    encoder.forward = forward
    photos = ImageReader(lambda key: encoded(photo(40, 30, seed=int(key)), "PNG"))
    window = RowWindow("tiny", KEYS[:6], [str(at) for at in range(6)], photos)
    said = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(ModeTrial, "_unlike", lambda self, window, sample: [])
        engine = Engine(
            Workspace(tmp_path / name), encoder.spec, lambda: encoder, "cpu", DeviceSettings(("cpu",))
        )
        said.append(engine.begin(window, len(KEYS)))
    assert "; openvino fp32 strays from fp32, cosine -1.0" in said[0]
    assert engine.provenance()["precision"].startswith("openvino")  # by the photos alone it would be chosen


@pytest.mark.skipif("bf16" not in native_types(), reason="this processor does not compute in bf16")
def test_the_first_stages_of_a_network_of_convolutions_stay_in_fp32_where_the_rest_is_bf16(tmp_path):
    encoder = load(save_tiny_timm(tmp_path / "timm"))
    passes = ConvertedPasses(convert(encoder, tmp_path / "openvino"), 1, BatchLimit(8))
    passes.apply(Mode("bf16", engine="openvino"))
    network = passes._side_by_side().get_runtime_model()
    edge = encoder.spec.preprocessing["size"][0]
    types = {True: set(), False: set()}  # on maps of at least half the image's edge, and on smaller ones
    for operation in network.get_ordered_ops():
        info = operation.get_rt_info()
        if str(info["layerType"].value).endswith("Convolution"):
            is_fine = operation.output(0).get_partial_shape()[2].get_length() >= edge / 2
            types[is_fine].add(info["runtimePrecision"].value)
    assert types == {True: {"f32"}, False: {"bf16"}}


def test_a_tokenizer_that_can_t_be_kept_is_named(workspace, folder, fastest):
    encoder = load(folder)
    tokenize = encoder.tokenize
    encoder.tokenize = lambda texts: tokenize(texts)
    engine = Engine(workspace, encoder.spec, lambda: encoder, "cpu", DeviceSettings(("cpu",)))
    said = engine.begin(WINDOW, len(KEYS))
    assert "can't be converted for OpenVINO: its tokenizer can't be saved" in said
    assert "\n" not in said


def test_models_that_are_never_converted_say_why(workspace, tmp_path, fastest, monkeypatch):
    from transformers import AutoModel

    bert = save_tiny_bert(tmp_path / "bert")
    AutoModel.from_pretrained(bert, dtype=torch.bfloat16).save_pretrained(bert)
    with monkeypatch.context() as patch:
        patch.setattr(base, "BIG_PARAMETERS", 1000)
        said = engine_of(workspace, bert).begin(WINDOW, len(KEYS))
    assert said.endswith("; not for OpenVINO: converted, weights in bf16 would be a second, larger copy")
    own = engine_of(workspace, of.convnext(tmp_path / "convnext"))
    photos = ImageReader(lambda key: encoded(photo(64, 64), "PNG"))
    said = own.begin(RowWindow("tiny", KEYS[:4], ["a", "b", "c", "d"], photos), len(KEYS))
    assert said.endswith("; not for OpenVINO: its own library prepares its inputs")


def test_memory_that_runs_out_halves_the_batch():
    limit, sizes = BatchLimit(10**6), []

    def run(arrays):
        sizes.append(len(arrays[0]))
        if len(arrays[0]) > 2:
            raise RuntimeError("std::bad_alloc")
        return arrays[0] * 2

    array = np.arange(14).reshape(7, 2)
    np.testing.assert_array_equal(within_memory(run, (array,), limit, np.concatenate), array * 2)
    assert limit.units <= 4
    sizes.clear()
    within_memory(run, (array,), limit, np.concatenate)
    assert max(sizes) <= 2


# ---- eight bits ----------------------------------------------------------------------------------


def test_eight_bits_are_another_encoder_measured_once_and_their_cosine_is_said(workspace, folder):
    engine = engine_of(workspace, folder, "int8")
    said = engine.begin(WINDOW, len(KEYS))
    assert engine.provenance()["precision"] == "openvino int8"
    assert f"openvino int8, cosine {engine.provenance()['cosine_to_fp32']:.5f}" in said
    assert engine.spec.fingerprint != engine_of(workspace, folder).spec.fingerprint
    plain = engine_of(Workspace(workspace.path("plain")), folder, "fp32", openvino=False)
    plain.begin(WINDOW, len(KEYS))
    X, exact = encode(engine), encode(plain)
    assert 0.9 < worst_cosine(X, exact) < 0.99999  # quantized, and still the same encoder
    weights = (converted_folder(workspace, engine.spec) / converted.WEIGHTS).read_bytes()
    remember(workspace, engine.spec, engine._device_name, "another torch", ModeChoice(Mode()))
    again = engine_of(workspace, folder, "int8")
    again.begin(RowWindow("tiny@name", KEYS, TEXTS[::-1]), len(KEYS))
    assert (converted_folder(workspace, engine.spec) / converted.WEIGHTS).read_bytes() == weights


def test_eight_bits_without_nncf_say_what_to_install(workspace, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EncoderError, match=r"int8 needs NNCF: pip install 'shelfprice\[int8\]'"):
        engine_of(workspace, folder, "int8").begin(WINDOW, len(KEYS))
