"""One loaded encoder at work on one device: chooses by measuring, prepares inputs, runs batches."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from embed.encoders.base import PREPARED_BY, Encoder, ItemEncoder, TextEncoder
from embed.forward.autotune import COMPILE_SECONDS, ModeTrial, units_counted
from embed.forward.devices import DeviceSettings, cores, device_name
from embed.forward.local import LocalRunner
from embed.forward.passes import Passes, is_out_of_memory
from embed.forward.precision import ModeChoice, recall, remember
from embed.forward.transfer import Inputs, Pending, pinned, transfer_to
from embed.inputs.batch import Batch, BatchLimit, Preparer, RowWindow
from embed.inputs.image_batches import ImagePreparer
from embed.inputs.items import ItemPreparer
from embed.inputs.texts import TextPreparer
from store.errors import EncoderError
from store.workspace import Workspace

START_UNITS = {("text", "cpu"): 4096, ("image", "cpu"): 8, ("text", "gpu"): 16384, ("image", "gpu"): 64}


class Engine(LocalRunner):
    """Vectors of batches. `begin` before the first batch; `batches` is for a background thread."""

    def __init__(
        self, workspace: Workspace, encoder: Encoder, device: torch.device, settings: DeviceSettings
    ) -> None:
        self.spec = encoder.spec
        self.memory = workspace
        self._encoder = encoder
        self._device = device
        self._kind = "cpu" if device.type == "cpu" else "gpu"
        counted = units_counted(self.spec)
        self._fixed_units = settings.batch_tokens if counted == "text" else settings.batch_images
        self._always_measured = settings.always_measured
        self._start_units = START_UNITS[counted, self._kind]
        self._limit = BatchLimit(self._fixed_units or self._start_units)
        with self._enough_memory():
            self._passes = Passes(encoder, device, self._limit)
        self._transfer = transfer_to(device)
        self._preparer = self._make_preparer()
        self._choice: ModeChoice | None = None

    @property
    def units(self) -> int:
        """Most padded tokens, or images, per forward pass."""
        return self._limit.units

    def begin(self, window: RowWindow, n_rows: int) -> str:
        """Choose precision, layout and batch size, by measuring on the first rows unless that was done before.

        Args:
            window: the first rows.
            n_rows: of the whole run; for a few, nothing is compiled.

        Returns:
            The choice in words.

        Raises:
            EncoderError: not even one input fits into the device's memory.
        """
        device = device_name(self._device)
        with self._transfer.here(), self._enough_memory():
            choice = known = recall(self.memory, self.spec, device, torch.__version__)
            trial = ModeTrial(self.spec, self._passes, self._preparer, self._limit, self._device.type)
            if choice is None:
                choice = trial.choose(window, None if self._always_measured else n_rows)
            measured = bool(choice.rows_per_second)
            if self._kind == "gpu" and self._fixed_units is None and choice.units is None and measured:
                choice = trial.grow(window, choice)
            self._limit.units = self._fixed_units or choice.units or self._start_units
            if self._deserves_compiling(choice, n_rows):
                choice = trial.compile(window, choice)
            if choice != known and measured:
                remember(self.memory, self.spec, device, torch.__version__, choice)
            self._choice = choice
            self._passes.apply(choice.mode_for(n_rows))
        return f"{device}: {replace(choice, mode=self._passes.mode)}"

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        """Prepared inputs of every row; see `Preparer`."""
        for batch in self._preparer.batches(windows):
            yield batch if self._device.type != "cuda" else replace(batch, arrays=pinned(batch))

    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Each batch with its vectors, shape (n_keys, dim) float32, in order.

        Raises:
            EncoderError: not even one input fits into the device's memory.
        """
        waiting: deque[tuple[Batch, Inputs, Pending]] = deque()
        with self._enough_memory(), self._transfer.here(), self._passes.running():
            for batch, inputs in self._transfer.uploaded(batches):
                if not batch.keys:
                    yield batch, np.empty((0, self.spec.dim), np.float32)
                    continue
                vectors = self._transfer.download(self._passes.vectors(batch, inputs))
                waiting.append((batch, inputs, vectors))
                if len(waiting) > self._transfer.most_waiting:
                    yield self._fetched(*waiting.popleft())
            while waiting:
                yield self._fetched(*waiting.popleft())

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

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            what = {"text": "text", "image": "image", "joint": "row"}[self.spec.modality]
            raise EncoderError(
                f"{self.spec.name}: the memory of {device_name(self._device)} is too small for one {what}: "
                f"{str(error).splitlines()[0]}: free some, or pass --devices cpu"
            ) from error

    def _deserves_compiling(self, choice: ModeChoice, n_rows: int) -> bool:
        rate = choice.rows_per_second.get(str(choice.mode))
        untried = self._device.type == "cuda" and choice.compiled is None and not self._passes.is_prepared
        return bool(untried and rate and n_rows / rate > COMPILE_SECONDS)

    def _fetched(self, batch: Batch, inputs: Inputs, pending: Pending) -> tuple[Batch, np.ndarray]:
        vectors = pending.numpy()
        if self._passes.mode.dtype == "fp16" and not np.isfinite(vectors).all():
            vectors = self._passes.exact_vectors(batch, inputs).cpu().numpy()
        if vectors.shape[1] != self.spec.dim:
            raise EncoderError(
                f"{self.spec.name}: its files declare vectors of {self.spec.dim} numbers, the model gives "
                f"{vectors.shape[1]}: use a folder whose configuration belongs to its weights"
            )
        return batch, vectors

    def _make_preparer(self) -> Preparer:
        if PREPARED_BY in self.spec.preprocessing:
            items = cast(ItemEncoder, self._encoder)
            return ItemPreparer(items.prepare, items.fills, self._limit, cores())
        if self.spec.modality == "text":
            encoder = cast(TextEncoder, self._encoder)
            return TextPreparer(encoder.tokenize, encoder.pad_id, self._limit)
        return ImagePreparer(self.spec.preprocessing, self._limit, cores())
