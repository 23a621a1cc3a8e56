"""Several devices at work on one encoder: each takes the next batch when it is free."""

import copy
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from embed.encoders.base import Encoder, Resolved
from embed.encoders.registry import library_of
from embed.forward.devices import DeviceSettings, is_cpu_alone, open_devices
from embed.forward.engine import Engine
from embed.forward.local import LocalRunner
from embed.inputs.batch import Batch, RowWindow
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

CPU = "cpu"
Encoded = tuple[Batch, np.ndarray]
DEPTH = 2  # encoded batches per device that may wait to be stored


def load_engines(
    workspace: Workspace, resolved: Sequence[Resolved], settings: DeviceSettings
) -> list[LocalRunner]:
    """Encoders of one model (two towers at most) on every device asked for; weights are loaded where one begins.

    Raises:
        ConfigError: there is no such device.
    """
    devices = [CPU] if is_cpu_alone(settings.devices) else open_devices(settings.devices)
    model = _Model(lambda: library_of(resolved[0].address).load(resolved), len(resolved), len(devices))
    loads = [partial(model.take, at) for at in range(len(resolved))]
    specs = [one.spec for one in resolved]
    return _runners(workspace, list(zip(specs, loads, strict=True)), devices, settings)


def on_devices(
    workspace: Workspace, encoders: Sequence[Encoder], settings: DeviceSettings
) -> list[LocalRunner]:
    """Put loaded encoders on every device asked for.

    Raises:
        ConfigError: there is no such device.
    """
    devices = open_devices(settings.devices)
    model = _Model(lambda: encoders, len(encoders), len(devices))
    loads = [(encoder.spec, partial(model.take, at)) for at, encoder in enumerate(encoders)]
    return _runners(workspace, loads, devices, settings)


def _runners(
    workspace: Workspace,
    loads: Sequence[tuple[EncoderSpec, Callable[[], Encoder]]],
    devices: Sequence[Any],
    settings: DeviceSettings,
) -> list[LocalRunner]:
    running: list[LocalRunner] = []
    for spec, load in loads:
        engines = [Engine(workspace, spec, load, device, settings) for device in devices]
        running.append(engines[0] if len(engines) == 1 else Fleet(engines))
    return running


class _Model:
    """One load of a model, when it is first asked for; each of its encoders is handed out once for each device.

    Args:
        n_copies: devices; the last of them gets the weights themselves, so that nothing else holds on to them.
    """

    def __init__(self, load: Callable[[], Sequence[Encoder]], n_encoders: int, n_copies: int) -> None:
        self._load = load
        self._loaded: list[Encoder | None] = [None] * n_encoders
        self._n_copies = n_copies
        self._left = [n_copies] * n_encoders

    def take(self, at: int) -> Encoder:
        """The encoder at a position, with weights of its own."""
        encoder = self._loaded[at]
        if encoder is None:
            self._loaded = list(self._load())
            self._left = [self._n_copies] * len(self._loaded)
            encoder = self._loaded[at]
            assert encoder is not None
        self._left[at] -= 1
        if self._left[at]:
            return _replica(encoder)
        self._loaded[at] = None
        return encoder


def _replica(encoder: Encoder) -> Encoder:
    """The same encoder with weights of its own, which can lie on another device."""
    other = copy.copy(encoder)
    other.module = copy.deepcopy(encoder.module)
    return other


class Fleet(LocalRunner):
    """Engines of one encoder on several devices; vectors come in any order.

    Args:
        engines: one per device, two at least.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        assert len(engines) > 1
        self._engines = list(engines)
        self.spec = engines[0].spec

    @property
    def memory(self) -> Workspace:  # type: ignore[override]
        return self._engines[0].memory

    @memory.setter
    def memory(self, workspace: Workspace) -> None:
        for engine in self._engines:
            engine.memory = workspace

    @property
    def units(self) -> int:
        """Most padded tokens, or images, of a forward pass."""
        return self._engines[0].units

    def begin(self, window: RowWindow, n_rows: int) -> str:
        """Each engine measures alone; devices of one kind measure once, as the choice is remembered by kind."""
        share = n_rows // len(self._engines)
        return "; ".join(engine.begin(window, share) for engine in self._engines)

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        """Prepared inputs, in the size for the device with most memory; other devices halve what is too large for them."""
        yield from max(self._engines, key=lambda engine: engine.units).batches(windows)

    def encode(self, batches: Iterator[Batch]) -> Iterator[Encoded]:
        """Each batch with its vectors, by whichever device was free."""
        shared = _Shared(batches)
        done: queue.Queue[Encoded | BaseException | None] = queue.Queue(DEPTH * len(self._engines))

        def work(engine: Engine) -> None:
            try:
                for encoded in engine.encode(iter(shared)):
                    if not shared.put(done, encoded):
                        return
                shared.put(done, None)
            except BaseException as error:  # noqa: BLE001 - raised again by whoever iterates
                shared.put(done, error)

        threads = [
            threading.Thread(target=work, args=(engine,), name="encode", daemon=True)
            for engine in self._engines
        ]
        for thread in threads:
            thread.start()
        try:
            n_running = len(threads)
            while n_running:
                item = done.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    n_running -= 1
                else:
                    yield item
        finally:
            shared.stop.set()
            for thread in threads:
                thread.join()

    def provenance(self) -> dict[str, Any]:
        """Of the first device, and what each is."""
        own = [engine.provenance() for engine in self._engines]
        return {**own[0], "devices": [f"{one['device']}: {one['precision']}" for one in own]}


class _Shared:
    """One iterator that several threads take from, until told to stop."""

    POLL_SECONDS = 0.2

    def __init__(self, source: Iterator[Batch]) -> None:
        self.stop = threading.Event()
        self._source = source
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Batch]:
        while not self.stop.is_set():
            with self._lock:
                batch = next(self._source, None)
            if batch is None:
                return
            yield batch

    def put(self, to: queue.Queue[Any], item: Any) -> bool:
        """Hand an item over unless nobody waits for it any more."""
        while not self.stop.is_set():
            try:
                to.put(item, timeout=self.POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
