"""One loaded encoder at work on one device: chooses by measuring, prepares inputs, runs batches."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from embed.devices import Settings, cores, device_name, open_device
from embed.encoders.base import Encoder, Resolved, TextEncoder
from embed.encoders.registry import library_of
from embed.inputs.batch import Batch, BatchLimit, Preparer, Window, units_of
from embed.inputs.pictures import PicturePreparer
from embed.inputs.texts import TextPreparer
from embed.passes import Passes
from embed.precision import Choice, Mode, candidates, choose, recall, remember
from store.workspace import Workspace

START_UNITS = {("text", "cpu"): 4096, ("image", "cpu"): 8, ("text", "gpu"): 16384, ("image", "gpu"): 64}
MAX_UNITS = {"text": 262_144, "image": 1024}
MEASURED_ROWS = (4, 64)  # fewest and most
MEASURED_SECONDS = (
    0.5  # one fp32 pass over the measured rows takes about that long: a few passes of each mode
)
MOST_FP32_STAGES = 8
GROWTH_GAIN = 1.05  # a doubled batch must be that much faster


def load_engines(workspace: Workspace, resolved: Sequence[Resolved], settings: Settings) -> "list[Engine]":
    """Load one model and put its encoders (two towers at most) on a device.

    Raises:
        EncoderError: the weights can't be loaded.
        ConfigError: there is no such device.
    """
    device = open_device(settings.device)
    encoders = library_of(resolved[0].address).load(resolved)
    return [Engine(workspace, encoder, device, settings) for encoder in encoders]


class Engine:
    """Vectors of batches. `begin` before the first batch; `batches` is for a background thread."""

    def __init__(
        self, workspace: Workspace, encoder: Encoder, device: torch.device, settings: Settings
    ) -> None:
        self.spec = encoder.spec
        self._workspace = workspace
        self._encoder = encoder
        self._device = device
        self._kind = "cpu" if device.type == "cpu" else "gpu"
        is_text = self.spec.modality == "text"
        self._fixed_units = settings.batch_tokens if is_text else settings.batch_pictures
        self._limit = BatchLimit(self._fixed_units or START_UNITS[self.spec.modality, self._kind])
        self._passes = Passes(encoder, device, self._limit)
        self._preparer = self._make_preparer()
        self._choice: Choice | None = None

    def begin(self, window: Window) -> str:
        """Choose precision, layout and batch size, by measuring on the first rows unless that was done before.

        Returns:
            The choice in words.
        """
        device = device_name(self._device)
        choice = recall(self._workspace, self.spec, device, torch.__version__)
        if choice is None:
            choice = self._measure(window)
            if choice.rows_per_second:
                remember(self._workspace, self.spec, device, torch.__version__, choice)
        self._choice = choice
        self._limit.units = self._fixed_units or choice.units
        self._passes.apply(choice.mode)
        return f"{device}: {choice}"

    def batches(self, windows: Iterator[Window]) -> Iterator[Batch]:
        """Prepared inputs of every row; see `Preparer`."""
        for batch in self._preparer.batches(windows):
            yield batch if self._device.type != "cuda" else _pinned(batch)

    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Each batch with its vectors, shape (n_keys, dim) float32, in order."""
        most_waiting = 1 if self._device.type == "cuda" else 0  # the GPU works on while vectors are stored
        waiting: deque[tuple[Batch, torch.Tensor]] = deque()
        with self._passes.running():
            for batch in batches:
                if not batch.keys:
                    yield batch, np.empty((0, self.spec.dim), np.float32)
                    continue
                waiting.append((batch, self._passes.vectors(batch)))
                if len(waiting) > most_waiting:
                    yield _fetched(*waiting.popleft())
            while waiting:
                yield _fetched(*waiting.popleft())

    @property
    def units(self) -> int:
        """Most padded tokens, or pictures, of a forward pass."""
        return self._limit.units

    def provenance(self) -> dict[str, Any]:
        """What was chosen here and with what it ran."""
        return {
            "device": device_name(self._device),
            "precision": str(self._passes.mode),
            "cosine_to_fp32": self._choice.cosine if self._choice else None,
            "units": self._limit.units,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    # ---- measuring -------------------------------------------------------------------------------

    def _measure(self, window: Window) -> Choice:
        modes = candidates(self.spec.precision, self._device.type, self._passes.is_convnet)
        sample = self._sample(window)
        if not sample:  # every input failed: nothing to measure on
            return Choice(modes[0], self._limit.units)
        one = tuple(a[:1] for a in sample[0].arrays)
        with contextlib.ExitStack() as stack:

            def apply(mode: Mode) -> None:
                stack.close()
                self._passes.apply(mode)
                stack.enter_context(self._passes.running())
                self._passes.forward(one).cpu()  # weights are cast once per run, not once per batch

            most_fp32_stages = MOST_FP32_STAGES if self._passes.is_convnet else 0
            choice = choose(
                apply,
                lambda: self._run(sample),
                modes,
                self.spec.precision,
                self._limit.units,
                most_fp32_stages,
            )
        self._passes.apply(choice.mode)
        if self._kind == "gpu" and self._fixed_units is None:
            choice = replace(choice, units=self._grown(sample))
        return choice

    def _run(self, sample: Sequence[Batch]) -> np.ndarray:
        return np.concatenate([self._passes.vectors(batch).cpu().numpy() for batch in sample])

    def _sample(self, window: Window) -> list[Batch]:
        """As many of the window's rows as one fp32 pass takes about `MEASURED_SECONDS` over."""
        fewest, most = MEASURED_ROWS
        few = self._prepared(window, fewest)
        if not few:
            return []
        seconds = 0.0
        with self._passes.running():
            for _ in ("warm-up", "timed"):
                start = time.perf_counter()
                self._run(few)
                seconds = time.perf_counter() - start
        n_rows = int(min(most, fewest * MEASURED_SECONDS / max(seconds, 1e-6)))
        return few if n_rows <= fewest else self._prepared(window, n_rows)

    def _prepared(self, window: Window, n_rows: int) -> list[Batch]:
        """Batches of `n_rows` spread over the window, fewer where inputs fail."""
        step = max(1, len(window.keys) // n_rows)
        chosen = Window(window.vector_set, window.keys[::step][:n_rows], window.contents[::step][:n_rows])
        return [batch for batch in self._preparer.batches(iter([chosen])) if batch.keys]

    def _grown(self, sample: list[Batch]) -> int:
        """Batch size doubled for as long as that is faster and fits."""
        largest = max(sample, key=lambda batch: batch.units)
        units, best_units, best = self._limit.units, self._limit.units, 0.0
        while units <= MAX_UNITS[self.spec.modality]:
            repeats = max(1, units // max(1, largest.units))
            arrays = tuple(np.concatenate([a] * repeats) for a in largest.arrays)
            self._limit.units = units_of(arrays)
            with self._passes.running():
                self._passes.forward(arrays)  # warm-up
                start = time.perf_counter()
                self._passes.forward(arrays).cpu()
                rate = units_of(arrays) / (time.perf_counter() - start)
            if self._limit.units < units_of(arrays):  # it did not fit
                return self._limit.units
            if rate < GROWTH_GAIN * best:
                break
            best, best_units, units = rate, units, 2 * units
        return best_units

    def _make_preparer(self) -> Preparer:
        if self.spec.modality == "text":
            encoder = cast(TextEncoder, self._encoder)
            return TextPreparer(encoder.tokenize, encoder.pad_id, self._limit)
        threads = cores() if self._workspace.is_local else 4 * cores()
        return PicturePreparer(self._workspace, self.spec.preprocessing, self._limit, threads)


def _fetched(batch: Batch, vectors: torch.Tensor) -> tuple[Batch, np.ndarray]:
    return batch, vectors.cpu().numpy()


def _pinned(batch: Batch) -> Batch:
    """The same batch in page-locked memory, from which copies run beside the GPU's work."""
    return replace(batch, arrays=tuple(torch.from_numpy(a).pin_memory().numpy() for a in batch.arrays))
