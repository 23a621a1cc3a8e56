"""Forward passes of one encoder with torch on one device, in one mode."""

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import numpy as np
import torch

from embed.encoders.base import PREPARED_BY, Encoder
from embed.forward.attention import avoid_wrong_attention
from embed.forward.convnet import is_convnet
from embed.forward.memory import within_memory
from embed.forward.precision import Mode
from embed.forward.transfer import Inputs, Pending, transfer_to
from embed.forward.unpadded import Unpadded, text_model
from embed.inputs.batch import Batch, BatchLimit

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPasses:
    """Implements `embed.forward.base.Passes`.

    Args:
        encoder: moved to the device here.
        limit: most units per pass; lowered when memory runs out.
    """

    def __init__(self, encoder: Encoder, device: torch.device, limit: BatchLimit) -> None:
        self.mode = Mode()
        self._encoder = encoder
        self._spec = encoder.spec
        self._device = device
        self._limit = limit
        self.is_prepared = PREPARED_BY in encoder.spec.preprocessing
        self.stored_as = half_type(encoder.module)
        avoid_wrong_attention(encoder.spec.preprocessing)
        self.is_placed = is_placed(encoder.module)
        self._plain = encoder.module if self.is_placed else encoder.module.to(device)
        self._plain.eval()
        model = text_model(encoder)
        self._unpadded = None if model is None else Unpadded(model)
        self._transfer = transfer_to(device)
        self.most_waiting = self._transfer.most_waiting
        self.is_convnet = (
            encoder.spec.modality == "image" and not self.is_prepared and is_convnet(encoder.module)
        )

    @property
    def _is_of_one_shape(self) -> bool:
        """Images brought to one size here."""
        return self._spec.modality == "image" and not self.is_prepared

    @property
    def can_be_unpadded(self) -> bool:
        """Whether padding of texts may be left out: to be measured."""
        return self._unpadded is not None

    def apply(self, mode: Mode) -> None:
        """Put the model into a mode; passes run between `running()`'s enter and exit."""
        if mode.channels_last != self.mode.channels_last:
            layout = torch.channels_last if mode.channels_last else torch.contiguous_format
            self._plain.to(memory_format=layout)
        self._encoder.module = self._plain
        if self._unpadded is not None:
            self._unpadded.switch(mode.unpadded)
        if mode.compiled:
            self._encoder.module = cast(torch.nn.Module, torch.compile(self._plain, **self._how(mode)))
        self.mode = mode

    def _how(self, mode: Mode) -> dict[str, Any]:
        if self._is_of_one_shape:
            return {"dynamic": False, **({"mode": "reduce-overhead"} if mode.graphs else {})}
        return {"dynamic": True}  # as many lengths as batches

    def running(self) -> contextlib.ExitStack:
        """The device is this thread's; no gradients, and autocast where the mode says so.

        Not inference mode: only outside of it does autocast keep its casts of the weights, for as long as this lasts.
        """
        stack = contextlib.ExitStack()
        stack.enter_context(self._transfer.here())
        stack.enter_context(torch.no_grad())
        if self.mode.dtype != "fp32":
            stack.enter_context(torch.autocast(self._device.type, dtype=DTYPES[self.mode.dtype]))
        return stack

    def uploaded(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Inputs]]:
        """Each batch with its arrays as tensors on the device, or on their way to it."""
        return self._transfer.uploaded(batches)

    def start(self, batch: Batch, inputs: Inputs) -> Pending:
        """Compute, and start to bring the vectors back."""
        return self._transfer.download(self._pooled(batch, self.forward(inputs, n_tokens_of(batch))))

    def finish(self, batch: Batch, inputs: Inputs, pending: Pending) -> np.ndarray:
        """The vectors; in fp32 where fp16 has overflown."""
        vectors = pending.numpy()
        if self.mode.dtype == "fp16" and not np.isfinite(vectors).all():
            with torch.autocast(self._device.type, enabled=False):
                vectors = self._pooled(batch, self.forward(inputs)).cpu().numpy()
        return vectors

    def vectors(self, batch: Batch) -> np.ndarray:
        """One vector per key, shape (n_keys, dim) float32."""
        inputs = tuple(torch.from_numpy(a) for a in batch.arrays)
        return self._pooled(batch, self.forward(inputs, n_tokens_of(batch))).cpu().numpy()

    def forward(self, inputs: Inputs, n_tokens: int | None = None) -> torch.Tensor:
        """Vectors of inputs, wherever they are, shape (n_inputs, dim) float32, on the device.

        Args:
            n_tokens: of texts, padding apart, where that is known.

        Raises:
            OutOfMemoryError: one input alone does not fit.
        """
        n_rows = len(inputs[0])

        def run(part: Inputs) -> torch.Tensor:
            return self._encoder_forward(part, n_tokens if len(part[0]) == n_rows else None)

        return within_memory(run, inputs, self._limit, torch.cat, self._free)

    def compute(self, inputs: Inputs, n_tokens: int | None = None) -> torch.Tensor:
        """The network alone, on what is ready to enter it and fits; see `forward`."""
        if self._unpadded is not None and self.mode.unpadded:
            self._unpadded.find_tokens(inputs[1], n_tokens)
        return cast(torch.Tensor, cast(Any, self._encoder).forward(*inputs))

    def _pooled(self, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """One vector per key, where a key has several inputs."""
        if batch.owner is None or batch.weights is None:
            return vectors
        owner = torch.from_numpy(batch.owner).to(vectors.device)
        weights = torch.from_numpy(batch.weights.astype(np.float32)).to(vectors.device)
        pooled = torch.zeros(len(batch.keys), vectors.shape[1], device=vectors.device)
        pooled.index_add_(0, owner, vectors * weights[:, None])
        pooled /= torch.zeros(len(batch.keys), device=vectors.device).index_add_(0, owner, weights)[:, None]
        return torch.nn.functional.normalize(pooled, dim=-1) if self._spec.normalize else pooled

    def _free(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()

    def _encoder_forward(self, inputs: Inputs, n_tokens: int | None) -> torch.Tensor:
        inputs = tuple(a.to(self._device) for a in inputs)
        n = len(inputs[0])
        if self._is_of_one_shape:
            pixels = filled(inputs[0], self._limit.units) if self.mode.compiled else inputs[0]
            inputs = (scaled(pixels, self._spec.preprocessing, self.mode.channels_last),)
        vectors = self.compute(inputs, n_tokens).float()[:n]
        return vectors.clone() if self.mode.graphs else vectors  # the next replay writes where this one did


def filled(pixels: torch.Tensor, n: int) -> torch.Tensor:
    """Images repeated until there are `n`: what was compiled for one shape is compiled anew for each further one."""
    lacking = n - len(pixels)
    if lacking <= 0:
        return pixels
    return torch.cat([pixels, pixels[:1].expand(lacking, *pixels.shape[1:])])


def n_tokens_of(batch: Batch) -> int | None:
    """Tokens of a batch of texts, padding apart; None where it is no such batch."""
    if len(batch.arrays) != 2 or batch.arrays[1].ndim != 2:
        return None
    return int(batch.arrays[1].sum())


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Shape (1, 3, 1, 1), copied to a device once: it would finish what it has to do before every copy."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def scaled(pixels: torch.Tensor, preprocessing: dict[str, Any], channels_last: bool = False) -> torch.Tensor:
    """uint8 (n, height, width, 3) -> float (n, 3, height, width) with mean and std applied."""
    mean, std = (_per_channel(tuple(preprocessing[name]), pixels.device) for name in ("mean", "std"))
    planes = pixels.permute(0, 3, 1, 2)  # strides of channels_last as they come
    if not channels_last:
        planes = planes.contiguous()
    return planes.to(torch.float32).div_(255.0).sub_(mean).div_(std)


def half_type(module: torch.nn.Module) -> str | None:
    """The type of weights that were left as they are stored; None: fp32."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return next((names[p.dtype] for p in module.parameters() if p.dtype in names), None)


def is_placed(module: torch.nn.Module) -> bool:
    """Whether loading has put the weights on their device already, packed, where they must stay."""
    return any(p.dtype in (torch.int8, torch.uint8) for p in module.parameters())
