import threading

import numpy as np
import pytest
import torch

from embed.encoders.base import Sources
from embed.encoders.resolve import resolve
from embed.forward.devices import DeviceSettings, open_devices
from embed.forward.fleet import Fleet, load_engines
from embed.inputs.batch import Batch, RowWindow
from store.errors import ConfigError
from store.workspace import Workspace
from tests.fake_models import WORDS, save_tiny_sentence_model

KEYS = [bytes([i]) * 16 for i in range(60)]
TEXTS = [" ".join(WORDS[: 1 + i % len(WORDS)]) * (1 + i // 20) for i in range(60)]
WINDOW = RowWindow("tiny@name", KEYS, TEXTS)


class FakeEngine:
    """Takes batches and says which device it was; `meet` is passed by all engines together."""

    def __init__(self, name, units=8, meet=None, fails_at=None):
        self.spec, self.units = None, units
        self._name, self._meet, self._fails_at = name, meet, fails_at
        self.n = 0

    def begin(self, window, n_rows):
        return f"{self._name} for {n_rows}"

    def batches(self, windows):
        return (Batch(self._name, [bytes([i])], ()) for i in range(20))

    def encode(self, batches):
        for batch in batches:
            if self._meet is not None and self.n == 0:
                self._meet.wait(timeout=30)  # nobody gets further before every device has a batch
            if self.n == self._fails_at:
                raise RuntimeError(f"{self._name} broke")
            self.n += 1
            yield batch, np.full((1, 2), self.n)

    def provenance(self):
        return {"device": self._name, "precision": "bf16"}


def test_every_device_works_and_each_batch_is_encoded_once():
    meet = threading.Barrier(2)
    engines = [FakeEngine("a", meet=meet), FakeEngine("b", meet=meet)]
    fleet = Fleet(engines)
    done = [batch.keys[0][0] for batch, _ in fleet.encode(fleet.batches(iter([])))]
    assert sorted(done) == list(range(20))
    assert engines[0].n + engines[1].n == 20
    assert min(engine.n for engine in engines) > 0
    assert fleet.provenance()["devices"] == ["a: bf16", "b: bf16"]
    assert fleet.begin(WINDOW, 60) == "a for 30; b for 30"


def test_batches_are_of_the_size_that_the_roomiest_device_takes():
    assert (
        next(Fleet([FakeEngine("small", 8), FakeEngine("large", 64)]).batches(iter([]))).vector_set == "large"
    )


def test_an_error_of_one_device_ends_the_run_and_every_thread():
    before = threading.active_count()
    fleet = Fleet([FakeEngine("a"), FakeEngine("b", fails_at=0, meet=threading.Barrier(1))])
    with pytest.raises(RuntimeError, match="b broke"):
        list(fleet.encode(iter(fleet.batches(iter([])))))
    assert threading.active_count() == before


def test_leaving_early_ends_every_thread():
    before = threading.active_count()
    fleet = Fleet([FakeEngine("a"), FakeEngine("b")])
    encoded = fleet.encode(fleet.batches(iter([])))
    next(encoded)
    encoded.close()
    assert threading.active_count() == before


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # each "device" here computes with all of them
    yield
    torch.set_num_threads(before)


def vectors_on(workspace, folder, *devices):
    resolved = resolve(workspace, str(folder), Sources(offline=True), "fp32")
    (running,) = load_engines(workspace, resolved, DeviceSettings(devices, batch_tokens=64))
    said = running.begin(WINDOW, len(KEYS))
    found = {}
    for batch, vectors in running.encode(running.batches(iter([WINDOW]))):
        found.update(zip(batch.keys, vectors, strict=True))
    return np.stack([found[key] for key in KEYS]), said


def test_a_model_on_two_devices_gives_the_vectors_of_one(tmp_path, one_thread):
    folder = save_tiny_sentence_model(tmp_path / "tiny")
    workspace = Workspace(tmp_path / "workspace")
    one, _ = vectors_on(workspace, folder, "cpu")
    two, said = vectors_on(workspace, folder, "cpu:0", "cpu:1")
    np.testing.assert_allclose(two, one, atol=1e-5)
    assert said.count("fp32") >= 2


def test_a_device_named_twice_is_an_error():
    with pytest.raises(ConfigError, match="cpu is named twice in --devices cpu,cpu"):
        open_devices(["cpu", "cpu"])


def test_all_means_every_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="needs a GPU and none was found"):
        open_devices(["all"])
    opened = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        "embed.forward.devices._open_device", lambda name: opened.append(name) or torch.device(name)
    )
    assert [str(device) for device in open_devices(["all"])] == opened == ["cuda:0", "cuda:1", "cuda:2"]
