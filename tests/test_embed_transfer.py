"""The way to a GPU and back, with a fake `torch.cuda` that records its calls."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from embed.forward.transfer import CudaTransfer
from embed.inputs.batch import Batch

CPU = torch.device("cpu")


class FakeCuda:
    """Streams and events in the order in which they are used."""

    def __init__(self):
        self.log = []
        self.main = self.Stream("main")

    def Stream(self, name):  # noqa: N802 - torch.cuda's name
        log = self.log
        name = name if isinstance(name, str) else "uploads"

        class Event:
            def __init__(self, at):
                self.at = at

            def synchronize(self):
                log.append(f"wait for {self.at}")

        class Stream:
            n = 0

            def record_event(self):
                self.n += 1
                log.append(f"{name} {self.n}")
                return Event(f"{name} {self.n}")

            def wait_event(self, event):
                log.append(f"{name} after {event.at}")

        return Stream()

    def current_stream(self, device):
        return self.main

    @contextmanager
    def stream(self, stream):
        self.log.append("on uploads")
        yield
        self.log.append("off")

    @contextmanager
    def device(self, device):
        yield


@pytest.fixture
def cuda():
    return FakeCuda()


def batch(i):
    return Batch("fake", [bytes([i]) * 16], (np.full((1, 3), i),))


def test_the_next_batch_is_on_its_way_before_the_computing_of_this_one_starts(cuda):
    seen = []
    for one, inputs in CudaTransfer(CPU, cuda).uploaded(iter([batch(0), batch(1), batch(2)])):
        seen.append(
            [one.keys[0][0], inputs[0].tolist(), sum(line.startswith("uploads") for line in cuda.log)]
        )
        cuda.log.append(f"compute {one.keys[0][0]}")
    assert seen == [[0, [[0] * 3], 2], [1, [[1] * 3], 3], [2, [[2] * 3], 3]]
    for i in range(3):  # no batch is computed before its own copy has arrived
        assert cuda.log.index(f"main after uploads {i + 1}") < cuda.log.index(f"compute {i}")


def test_vectors_are_waited_for_when_they_are_asked_for_and_not_before(cuda):
    pending = CudaTransfer(CPU, cuda).download(torch.ones(2, 3))
    assert cuda.log == ["main 1"]
    assert pending.numpy().tolist() == [[1.0] * 3] * 2
    assert cuda.log == ["main 1", "wait for main 1"]


def test_a_batch_of_failures_alone_passes_through(cuda):
    empty = Batch("fake", [], (), failures=[])
    assert next(CudaTransfer(CPU, cuda).uploaded(iter([empty, batch(1)])))[0] is empty


def test_a_copy_that_does_not_fit_stays_on_the_host_for_the_pass_to_halve(cuda, monkeypatch):
    def full(self, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    ((_, inputs),) = CudaTransfer(CPU, cuda).uploaded(iter([batch(5)]))
    assert inputs[0].tolist() == [[5] * 3]
