"""One loaded encoder on one device: measures once, runs batches, halves them when memory runs out."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from embed.devices import cores, device_name, open_device
from embed.encoders.base import Encoder, Resolved, TextEncoder
from embed.encoders.registry import library_of
from embed.inputs.batch import Batch, BatchLimit, Preparer, Window, units_of
from embed.inputs.texts import TextPreparer
from embed.precision import Choice, Mode, candidates, choose, recall, remember
from store.workspace import Workspace

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
START_UNITS = {("text", "cpu"): 4096, ("image", "cpu"): 32, ("text", "gpu"): 16384, ("image", "gpu"): 64}
MAX_UNITS = {"text": 262_144, "image": 1024}
MEASURED_ROWS = (4, 64)  # fewest and most
MEASURED_SECONDS = (
    0.5  # one fp32 pass over the measured rows takes about that long: a few passes of each mode
)
GROWTH_GAIN = 1.05  # a doubled batch must be that much faster


@dataclass(frozen=True)
class Settings:
    """How a run wants its encoders run."""

    device: str = "auto"
    batch_tokens: int | None = None  # most padded tokens per forward pass; None: found by measuring
    batch_pictures: int | None = None  # most pictures


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
        self._fixed_units = settings.batch_tokens if self.spec.modality == "text" else settings.batch_pictures
        self._mode = Mode()
        self._choice: Choice | None = None
        self._limit = BatchLimit(self._fixed_units or START_UNITS[self.spec.modality, self._kind])
        self._preparer = self._make_preparer()
        encoder.module.to(device).eval()

    # ---- the job's side --------------------------------------------------------------------------

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
        self._apply(choice.mode)
        return f"{device}: {choice}"

    def batches(self, windows: Iterator[Window]) -> Iterator[Batch]:
        """Prepared inputs of every row; see `Preparer`."""
        for batch in self._preparer.batches(windows):
            yield batch if self._device.type != "cuda" else _pinned(batch)

    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Each batch with its vectors, shape (n_keys, dim) float32, in order."""
        waiting: deque[tuple[Batch, torch.Tensor]] = deque()
        with self._running():
            for batch in batches:
                if not batch.keys:
                    yield batch, np.empty((0, self.spec.dim), np.float32)
                    continue
                waiting.append((batch, self._vectors(batch)))
                if len(waiting) > (
                    1 if self._device.type == "cuda" else 0
                ):  # the GPU works on while we store
                    yield self._fetch(*waiting.popleft())
            while waiting:
                yield self._fetch(*waiting.popleft())

    def provenance(self) -> dict[str, Any]:
        """What was chosen here and with what it ran."""
        return {
            "device": device_name(self._device),
            "precision": str(self._mode),
            "cosine_to_fp32": self._choice.cosine if self._choice else None,
            "units": self._limit.units,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    # ---- forward passes --------------------------------------------------------------------------

    def _running(self) -> contextlib.ExitStack:
        """No gradients (but not inference mode: autocast caches its weight casts only outside), autocast."""
        stack = contextlib.ExitStack()
        stack.enter_context(torch.no_grad())
        if self._mode.dtype != "fp32":
            stack.enter_context(torch.autocast(self._device.type, dtype=DTYPES[self._mode.dtype]))
        return stack

    def _vectors(self, batch: Batch) -> torch.Tensor:
        vectors = self._forward(batch.arrays)
        if self._mode.dtype == "fp16" and not bool(torch.isfinite(vectors).all()):
            with torch.autocast(self._device.type, enabled=False):
                vectors = self._forward(batch.arrays)
        if batch.owner is None or batch.weights is None:
            return vectors
        owner = torch.from_numpy(batch.owner).to(vectors.device)
        weights = torch.from_numpy(batch.weights.astype(np.float32)).to(vectors.device)
        pooled = torch.zeros(len(batch.keys), vectors.shape[1], device=vectors.device)
        pooled.index_add_(0, owner, vectors * weights[:, None])
        pooled /= torch.zeros(len(batch.keys), device=vectors.device).index_add_(0, owner, weights)[:, None]
        return torch.nn.functional.normalize(pooled, dim=-1) if self.spec.normalize else pooled

    def _forward(self, arrays: tuple[np.ndarray, ...]) -> torch.Tensor:
        """Vectors of inputs, shape (n_inputs, dim) float32; halves what does not fit into memory."""
        n = len(arrays[0])
        if n > 1 and units_of(arrays) > self._limit.units:
            return self._halves(arrays)
        try:
            return self._encoder_forward(arrays).float()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or n == 1:
                raise
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._limit.units = max(1, units_of(arrays) // 2)
        return self._halves(arrays)

    def _halves(self, arrays: tuple[np.ndarray, ...]) -> torch.Tensor:
        middle = (len(arrays[0]) + 1) // 2
        parts = [tuple(a[:middle] for a in arrays), tuple(a[middle:] for a in arrays)]
        return torch.cat([self._forward(part) for part in parts])

    def _encoder_forward(self, arrays: tuple[np.ndarray, ...]) -> torch.Tensor:
        inputs = [torch.from_numpy(a).to(self._device, non_blocking=True) for a in arrays]
        if self.spec.modality == "image":
            inputs = [self._scaled(inputs[0])]
        return cast(torch.Tensor, cast(Any, self._encoder).forward(*inputs))

    def _scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (n, height, width, 3) -> float (n, 3, height, width) with mean and std applied."""
        preprocessing = self.spec.preprocessing
        mean = torch.tensor(preprocessing["mean"], device=self._device).view(1, 3, 1, 1)
        std = torch.tensor(preprocessing["std"], device=self._device).view(1, 3, 1, 1)
        planes = pixels.permute(0, 3, 1, 2)  # strides of channels_last as they come
        if not self._mode.channels_last:
            planes = planes.contiguous()
        return planes.to(torch.float32).div_(255.0).sub_(mean).div_(std)

    def _fetch(self, batch: Batch, vectors: torch.Tensor) -> tuple[Batch, np.ndarray]:
        return batch, vectors.cpu().numpy()

    # ---- measuring -------------------------------------------------------------------------------

    def _apply(self, mode: Mode) -> None:
        layout = torch.channels_last if mode.channels_last else torch.contiguous_format
        if mode.channels_last != self._mode.channels_last:
            self._encoder.module.to(memory_format=layout)
        self._mode = mode

    def _measure(self, window: Window) -> Choice:
        modes = candidates(self.spec.precision, self._device.type, self._is_convnet())
        sample = self._sample(window)
        if not sample:  # every input failed: nothing to measure on
            return Choice(modes[0], self._limit.units)

        one = tuple(a[:1] for a in sample[0].arrays)
        with contextlib.ExitStack() as stack:

            def apply(mode: Mode) -> None:
                stack.close()
                self._apply(mode)
                stack.enter_context(self._running())
                self._forward(one).cpu()  # weights are cast once per run, not once per batch

            def forward() -> np.ndarray:
                return np.concatenate([self._vectors(batch).cpu().numpy() for batch in sample])

            choice = choose(apply, forward, modes, self.spec.precision, self._limit.units)
        self._apply(choice.mode)
        if self._kind == "gpu" and self._fixed_units is None:
            choice = replace(choice, units=self._grown(sample))
        return choice

    def _sample(self, window: Window) -> list[Batch]:
        """As many of the window's rows as one fp32 pass takes about a second over."""
        fewest, most = MEASURED_ROWS
        few = self._prepared(window, fewest)
        with self._running():
            for _ in ("warm-up", "timed"):
                seconds = _seconds(lambda: [self._vectors(batch).cpu() for batch in few])
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
        unit = max(1, largest.units)
        units, best = self._limit.units, 0.0
        while units <= MAX_UNITS[self.spec.modality]:
            repeats = max(1, units // unit)
            arrays = tuple(np.concatenate([a] * repeats) for a in largest.arrays)
            before = self._limit.units = units_of(arrays)
            with self._running():
                self._forward(arrays)  # warm-up
                seconds = _seconds(partial(self._forward_and_wait, arrays))
            if self._limit.units < before:
                return self._limit.units
            rate = units_of(arrays) / seconds
            if rate < GROWTH_GAIN * best:
                break
            best, units = rate, 2 * units
        return units // 2 if best else units

    def _forward_and_wait(self, arrays: tuple[np.ndarray, ...]) -> torch.Tensor:
        return self._forward(arrays).cpu()

    def _is_convnet(self) -> bool:
        convolutions = [m for m in self._encoder.module.modules() if isinstance(m, torch.nn.Conv2d)]
        return self.spec.modality == "image" and len(convolutions) > 1

    def _make_preparer(self) -> Preparer:
        if self.spec.modality == "text":
            encoder = cast(TextEncoder, self._encoder)
            return TextPreparer(encoder.tokenize, encoder.pad_id, self._limit)
        from embed.inputs.pictures import PicturePreparer

        threads = cores() if self._workspace.is_local else 4 * cores()
        return PicturePreparer(self._workspace, self.spec.preprocessing, self._limit, threads)


def _pinned(batch: Batch) -> Batch:
    """The same batch in page-locked memory, from which copies run beside the GPU's work."""
    arrays = tuple(torch.from_numpy(a).pin_memory().numpy() for a in batch.arrays)
    return replace(batch, arrays=arrays)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
