"""One encoder at work on one device: chooses by measuring, prepares inputs, runs batches.

Torch is imported where it runs the network, or where a choice is to be measured.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any, cast

import numpy as np

from embed.encoders.base import PREPARED_BY, Encoder, ItemModel, TextModel
from embed.forward.autotune import COMPILE_SECONDS, ModeTrial, plain_choice, units_counted
from embed.forward.base import Passes
from embed.forward.converted import ConvertedModel, converted_folder, find_converted, installed_version
from embed.forward.devices import DeviceSettings, cores, decodes_in_processes, default_threads, device_name
from embed.forward.local import LocalRunner
from embed.forward.memory import is_out_of_memory
from embed.forward.openvino import ConvertedPasses, best_type
from embed.forward.precision import Mode, ModeChoice, candidates, recall, remember
from embed.inputs.batch import Batch, BatchLimit, Preparer, RowWindow
from embed.inputs.image_batches import ImagePreparer
from embed.inputs.items import ItemPreparer
from embed.inputs.texts import TextPreparer
from store.errors import ConfigError, EncoderError, WorkspaceError
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

START_UNITS = {("text", "cpu"): 4096, ("image", "cpu"): 8, ("text", "gpu"): 16384, ("image", "gpu"): 64}


class Engine(LocalRunner):
    """Vectors of batches. `begin` before the first batch; `batches` is for a background thread.

    Args:
        workspace: where choices are remembered and converted models kept.
        load: gives the encoder with its weights; called only where torch is needed, and it is released
            where OpenVINO takes over.
        device: "cpu", "cuda:0", "mps".
    """

    def __init__(
        self,
        workspace: Workspace,
        spec: EncoderSpec,
        load: Callable[[], Encoder],
        device: Any,
        settings: DeviceSettings,
    ) -> None:
        self.spec = spec
        self.memory = workspace
        self._load = load
        self._device = str(device)
        self._type = self._device.partition(":")[0]
        self._kind = "cpu" if self._type == "cpu" else "gpu"
        self._settings = settings
        self._threads = settings.threads or default_threads()
        counted = units_counted(spec)
        self._fixed_units = settings.batch_tokens if counted == "text" else settings.batch_images
        self._start_units = START_UNITS[counted, self._kind]
        self._limit = BatchLimit(self._fixed_units or self._start_units)
        self._encoder: Encoder | None = None
        self._torch: Any = None  # `TorchPasses` of the encoder
        self._passes: Passes | None = None  # those that run the network
        self._preparer: Preparer | None = None
        self._choice: ModeChoice | None = None

    @property
    def units(self) -> int:
        """Most padded tokens, or images, per forward pass."""
        return self._limit.units

    def begin(self, window: RowWindow, n_rows: int) -> str:
        """Choose precision, layout, engine and batch size, by measuring on the first rows unless that was done before.

        Args:
            window: the first rows.
            n_rows: of the whole run; for a few, nothing is compiled.

        Returns:
            The choice in words.

        Raises:
            EncoderError: the weights can't be loaded, or not even one input fits into the device's memory.
        """
        with self._enough_memory():
            choice = recall(self.memory, self.spec, self._device_name, self._versions)
            if choice is None and not self._settings.always_measured:
                choice = self._measured_elsewhere()
            if choice is None or choice.mode.engine == "torch" or not self._start_converted(choice):
                choice = self._start_torch(window, n_rows, choice)
                if self._torch is None:  # OpenVINO took over: torch's weights go now
                    gc.collect()
            self._choice = choice
        return f"{self._device_name}: {replace(choice, mode=self._ready().mode)}"

    def batches(self, windows: Iterator[RowWindow]) -> Iterator[Batch]:
        """Prepared inputs of every row; see `Preparer`."""
        self._ready()
        assert self._preparer is not None
        for batch in self._preparer.batches(windows):
            yield batch if self._type != "cuda" else replace(batch, arrays=_pinned(batch.arrays))

    def encode(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Each batch with its vectors, shape (n_keys, dim) float32, in order.

        Raises:
            EncoderError: not even one input fits into the device's memory.
        """
        passes = self._ready()
        waiting: deque[tuple[Batch, Any, Any]] = deque()
        with self._enough_memory(), passes.running():
            for batch, inputs in passes.uploaded(batches):
                if not batch.keys:
                    yield batch, np.empty((0, self.spec.dim), np.float32)
                    continue
                waiting.append((batch, inputs, passes.start(batch, inputs)))
                if len(waiting) > passes.most_waiting:
                    yield self._finished(passes, *waiting.popleft())
            while waiting:
                yield self._finished(passes, *waiting.popleft())

    def provenance(self) -> dict[str, Any]:
        """What was chosen here and with what it ran."""
        mode = self._ready().mode
        return {
            "device": self._device_name,
            "precision": str(mode),
            "cosine_to_fp32": self._choice.cosine if self._choice else None,
            "units": self._limit.units,
            "threads": self._threads,
            mode.engine: version(mode.engine),
        }

    def _finished(self, passes: Passes, batch: Batch, inputs: Any, pending: Any) -> tuple[Batch, np.ndarray]:
        vectors = passes.finish(batch, inputs, pending)
        if vectors.shape[1] != self.spec.dim:
            raise EncoderError(
                f"{self.spec.name}: its files declare vectors of {self.spec.dim} numbers, the model gives "
                f"{vectors.shape[1]}: use a folder whose configuration belongs to its weights"
            )
        return batch, vectors

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            what = {"text": "text", "image": "image", "joint": "row"}[self.spec.modality]
            raise EncoderError(
                f"{self.spec.name}: the memory of {self._device_name} is too small for one {what}: "
                f"{str(error).splitlines()[0]}: free some, or pass --devices cpu"
            ) from error

    # ---- getting ready ---------------------------------------------------------------------------

    @property
    def _device_name(self) -> str:
        return device_name(self._device, self._threads)

    @property
    def _has_openvino(self) -> bool:
        return self._type == "cpu" and self._settings.openvino and installed_version() is not None

    @property
    def _tries_openvino(self) -> bool:
        """A model whose own library prepares its inputs runs by that library alone."""
        return self._has_openvino and PREPARED_BY not in self.spec.preprocessing

    @property
    def _versions(self) -> str:
        """Of what a choice was made among."""
        converted = f", openvino {installed_version()}" if self._tries_openvino else ""
        return f"torch {version('torch')}{converted}"

    def _ready(self) -> Passes:
        """What runs the network: torch in fp32 where nothing was chosen yet."""
        if self._passes is None:
            with self._enough_memory():
                self._use_torch()
        assert self._passes is not None
        return self._passes

    def _set_units(self, choice: ModeChoice) -> None:
        self._limit.units = self._fixed_units or choice.units or self._start_units

    # ---- on torch --------------------------------------------------------------------------------

    def _start_torch(self, window: RowWindow, n_rows: int, known: ModeChoice | None) -> ModeChoice:
        """Load the encoder, and measure where nothing is known; OpenVINO takes over where it is chosen."""
        self._use_torch()
        choice, converted = known, None
        if choice is None or choice.mode.engine != "torch":
            choice, converted = self._chosen(window, n_rows)
        trial = self._trial()
        measured = bool(choice.rows_per_second)
        if self._kind == "gpu" and self._fixed_units is None and choice.units is None and measured:
            choice = trial.grow(window, choice)
        self._set_units(choice)
        if self._deserves_compiling(choice, n_rows):
            choice = trial.compile(window, choice)
        if choice != known and measured:
            remember(self.memory, self.spec, self._device_name, self._versions, choice)
        if converted is not None and choice.mode.engine == "openvino":
            converted.record_cosine(choice.mode, choice.cosine)
            self._use_converted(converted, choice.mode)
        else:
            self._torch.apply(choice.mode_for(n_rows))
        return choice

    def _use_torch(self) -> None:
        if self._torch is None:
            import torch

            from embed.forward.passes import TorchPasses

            if self._type == "cpu":
                torch.set_num_threads(self._threads)
            self._encoder = self._load()
            self._torch = TorchPasses(self._encoder, torch.device(self._device), self._limit)
            self._preparer = self._make_preparer(self._encoder)
        self._passes = self._torch

    def _chosen(self, window: RowWindow, n_rows: int) -> tuple[ModeChoice, ConvertedPasses | None]:
        """By measuring, with OpenVINO's passes where it was among the engines; a few rows are not worth it."""
        few = not self._settings.always_measured and self.spec.precision != "int8"
        if few and not self._trial().is_worth_measuring(window, n_rows):
            return plain_choice(self._candidates(), self.spec.precision), None
        converted, note = self._converted(window)
        choice = self._trial(converted).choose(window)
        return (replace(choice, note=note) if note else choice), converted

    def _trial(self, converted: ConvertedPasses | None = None) -> ModeTrial:
        assert self._preparer is not None
        modes = self._candidates(converted)
        return ModeTrial(self.spec, self._torch, self._preparer, self._limit, modes, converted, self._kind)

    def _candidates(self, converted: ConvertedPasses | None = None) -> list[Mode]:
        types = converted.types() if converted is not None else []
        passes = self._torch
        return candidates(
            self.spec.precision,
            self._type,
            passes.is_convnet,
            passes.stored_as,
            types,
            passes.can_be_unpadded,
        )

    def _deserves_compiling(self, choice: ModeChoice, n_rows: int) -> bool:
        rate = choice.rows_per_second.get(str(choice.mode))
        untried = self._type == "cuda" and choice.compiled is None and not self._torch.is_prepared
        return bool(untried and rate and n_rows / rate > COMPILE_SECONDS)

    def _make_preparer(self, encoder: Encoder) -> Preparer:
        max_tokens = self.spec.preprocessing.get("max_tokens", 0)
        if PREPARED_BY in self.spec.preprocessing:
            items = cast(ItemModel, encoder)
            return ItemPreparer(items.prepare, items.fills, self._limit, cores(), max_tokens)
        if self.spec.modality == "text":
            text = cast(TextModel, encoder)
            return TextPreparer(text.tokenize, text.pad_id, self._limit, max_tokens)
        return ImagePreparer(self.spec.preprocessing, self._limit, cores(), decodes_in_processes(self._type))

    # ---- on OpenVINO -----------------------------------------------------------------------------

    def _measured_elsewhere(self) -> ModeChoice | None:
        """OpenVINO in what was measured when the model was converted; None where there is no such model."""
        model = self._find_converted()
        if model is None or not model.cosines:
            return None
        dtype = best_type(model)
        return ModeChoice(Mode(dtype, engine="openvino"), cosine=model.cosines.get(dtype))

    def _start_converted(self, choice: ModeChoice) -> bool:
        """Run the model that was converted before; False where it is gone."""
        if not isinstance(self._passes, ConvertedPasses):
            model = self._find_converted()
            if model is None:
                return False
            self._use_converted(ConvertedPasses(model, self._threads, self._limit), choice.mode)
        self._set_units(choice)
        return True

    def _use_converted(self, converted: ConvertedPasses, mode: Mode) -> None:
        """Run the converted model, and release torch's."""
        converted.keep(mode)
        self._passes = converted
        if self.spec.modality == "text":
            self._preparer = converted.model.preparer(self._limit)
        else:
            self._preparer = ImagePreparer(self.spec.preprocessing, self._limit, cores())
        self._torch = self._encoder = None

    def _find_converted(self) -> ConvertedModel | None:
        if not self._tries_openvino:
            return None
        return find_converted(converted_folder(self.memory, self.spec), self.spec)

    def _converted(self, window: RowWindow) -> tuple[ConvertedPasses | None, str]:
        """The encoder converted for OpenVINO, or nothing and why, in words.

        Raises:
            ConfigError, EncoderError: eight bits were asked for, and there is no other way to them.
        """
        is_int8 = self.spec.precision == "int8"
        if is_int8 and PREPARED_BY in self.spec.preprocessing:
            raise ConfigError(
                f"{self.spec.name}: precision int8 is not for models whose own library prepares their inputs: pass "
                "--precision auto"
            )
        if not self._tries_openvino:
            if is_int8 and self._type == "cpu":
                raise ConfigError("precision int8 needs OpenVINO and NNCF: pip install 'shelfprice[int8]'")
            return None, "not for OpenVINO: its own library prepares its inputs" if self._has_openvino else ""
        if (stored_as := self._torch.stored_as) is not None:
            return None, f"not for OpenVINO: converted, weights in {stored_as} would be a second, larger copy"
        try:
            model = self._find_converted() or self._convert(window)
        except (EncoderError, WorkspaceError) as error:
            if is_int8:
                raise
            return None, str(error)
        return ConvertedPasses(model, self._threads, self._limit), ""

    def _convert(self, window: RowWindow) -> ConvertedModel:
        from embed.forward.conversion import CALIBRATION_ROWS, convert, quantize

        assert self._encoder is not None
        assert self._preparer is not None
        folder = converted_folder(self.memory, self.spec)
        if self.spec.precision != "int8":
            return convert(self._encoder, folder)
        batches = self._preparer.batches(iter([window.sample(CALIBRATION_ROWS)]))
        return quantize(self._encoder, folder, [batch.arrays for batch in batches if batch.keys])


def _pinned(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    from embed.forward.transfer import pinned

    return pinned(arrays)
