"""Forward passes of one encoder on one device, in one mode; halves what does not fit into memory."""

import contextlib
from typing import Any, cast

import numpy as np
import torch

from embed.encoders.base import PREPARED_BY, Encoder
from embed.forward.convnet import is_convnet, keep_in_fp32
from embed.forward.fused_convolutions import fuse_convolutions
from embed.forward.fused_linear import fuse_linear_layers
from embed.forward.precision import Mode
from embed.forward.transfer import Inputs
from embed.inputs.batch import Batch, BatchLimit, units_of

EXAMPLE_TOKENS = 4  # of the text that shows how a network is wired
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Passes:
    """Batches -> vectors on the device.

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
        self._plain = encoder.module if is_placed(encoder.module) else encoder.module.to(device)
        self._plain.eval()
        self.is_convnet = (
            encoder.spec.modality == "image" and not self.is_prepared and is_convnet(encoder.module)
        )
        if device.type == "cpu" and not self.is_prepared and self.stored_as is None:
            self._fuse()

    def _fuse(self) -> None:
        forward: Any = cast(Any, self._encoder).forward
        if self._spec.modality == "image":
            size = tuple(self._spec.preprocessing.get("size", ()))
            if len(size) == 2:
                fuse_convolutions(self._plain, size)
                pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
                fuse_linear_layers(self._plain, lambda: forward(pixels))
        else:
            ids = torch.ones(1, EXAMPLE_TOKENS, dtype=torch.int64)
            fuse_linear_layers(self._plain, lambda: forward(ids, ids))

    def apply(self, mode: Mode) -> None:
        """Put the model into a mode; passes run between `running()`'s enter and exit."""
        if mode.channels_last != self.mode.channels_last:
            layout = torch.channels_last if mode.channels_last else torch.contiguous_format
            self._plain.to(memory_format=layout)
        if self.is_convnet:
            keep_in_fp32(self._plain, mode.fp32_stages, self._device.type)
        self._encoder.module = self._plain
        if mode.compiled:  # texts come in as many lengths as there are batches
            dynamic = True if self._spec.modality == "text" else None
            self._encoder.module = cast(torch.nn.Module, torch.compile(self._plain, dynamic=dynamic))
        self.mode = mode

    def running(self) -> contextlib.ExitStack:
        """No gradients, and autocast where the mode says so.

        Not inference mode: only outside of it does autocast keep its casts of the weights, for as long as this lasts.
        """
        stack = contextlib.ExitStack()
        stack.enter_context(torch.no_grad())
        if self.mode.dtype != "fp32":
            stack.enter_context(torch.autocast(self._device.type, dtype=DTYPES[self.mode.dtype]))
        return stack

    def vectors(self, batch: Batch, inputs: Inputs) -> torch.Tensor:
        """One vector per key, shape (n_keys, dim) float32, on the device.

        Args:
            inputs: the batch's arrays as tensors, wherever they are.
        """
        vectors = self.forward(inputs)
        if batch.owner is None or batch.weights is None:
            return vectors
        owner = torch.from_numpy(batch.owner).to(vectors.device)
        weights = torch.from_numpy(batch.weights.astype(np.float32)).to(vectors.device)
        pooled = torch.zeros(len(batch.keys), vectors.shape[1], device=vectors.device)
        pooled.index_add_(0, owner, vectors * weights[:, None])
        pooled /= torch.zeros(len(batch.keys), device=vectors.device).index_add_(0, owner, weights)[:, None]
        return torch.nn.functional.normalize(pooled, dim=-1) if self._spec.normalize else pooled

    def exact_vectors(self, batch: Batch, inputs: Inputs) -> torch.Tensor:
        """The same in fp32, for what overflows in fp16."""
        with torch.autocast(self._device.type, enabled=False):
            return self.vectors(batch, inputs)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Vectors of inputs, shape (n_inputs, dim) float32.

        Raises:
            OutOfMemoryError: one input alone does not fit.
        """
        n = len(inputs[0])
        if n > 1 and units_of(inputs) > self._limit.units:
            return self._halves(inputs)
        try:
            return self._encoder_forward(inputs).float()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or n == 1:
                raise
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()
        self._limit.units = max(1, units_of(inputs) // 2)
        return self._halves(inputs)

    def _halves(self, inputs: Inputs) -> torch.Tensor:
        middle = (len(inputs[0]) + 1) // 2
        parts = [tuple(a[:middle] for a in inputs), tuple(a[middle:] for a in inputs)]
        return torch.cat([self.forward(part) for part in parts])

    def _encoder_forward(self, inputs: Inputs) -> torch.Tensor:
        inputs = tuple(a.to(self._device) for a in inputs)
        if self._spec.modality == "image":
            inputs = inputs if self.is_prepared else (self._scaled(inputs[0]),)
        return cast(torch.Tensor, cast(Any, self._encoder).forward(*inputs))

    def _scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (n, height, width, 3) -> float (n, 3, height, width) with mean and std applied."""
        preprocessing = self._spec.preprocessing
        mean = torch.tensor(preprocessing["mean"], device=self._device).view(1, 3, 1, 1)
        std = torch.tensor(preprocessing["std"], device=self._device).view(1, 3, 1, 1)
        planes = pixels.permute(0, 3, 1, 2)  # strides of channels_last as they come
        if not self.mode.channels_last:
            planes = planes.contiguous()
        return planes.to(torch.float32).div_(255.0).sub_(mean).div_(std)


def half_type(module: torch.nn.Module) -> str | None:
    """The type of weights that were left as they are stored; None: fp32."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return next((names[p.dtype] for p in module.parameters() if p.dtype in names), None)


def is_placed(module: torch.nn.Module) -> bool:
    """Whether loading has put the weights on their device already, packed, where they must stay."""
    return any(p.dtype in (torch.int8, torch.uint8) for p in module.parameters())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has no memory left, in the words of torch or of what lies beneath it."""
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "alloc_failed" in text  # cuBLAS and cuDNN
        or "can't allocate memory" in text
    )
