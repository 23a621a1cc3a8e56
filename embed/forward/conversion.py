"""An encoder of torch -> a network of OpenVINO, traced on a small example; and to eight bits, where that was asked for."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from embed.encoders.base import Encoder, TextModel
from embed.encoders.hub import quiet_loading
from embed.forward.converted import ConvertedModel
from embed.forward.openvino import openvino, without_telemetry
from embed.forward.passes import scaled
from embed.inputs.batch import BatchLimit, RowWindow
from embed.inputs.texts import TextPreparer
from store.errors import EncoderError, ShelfpriceError

EXAMPLE_TEXTS = ["a", "a b c d e f"]  # of two lengths: nothing may depend on either
EXAMPLE_IMAGES = 2
PRECISE = "precise_0"  # the attribute by which OpenVINO's devices leave an operation in fp32; it has effect once saved
FINE = 0.5  # of the image's edge: operations on maps at least that large are left in fp32
CALIBRATION_ROWS = 128  # that show the range of activations


class _Forward(nn.Module):
    """All computations of an encoder from prepared inputs to vectors, as one module."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.module = encoder.module
        self._encoder: list[Any] = [encoder]  # in a list: not a submodule

    def forward(self, first: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        encoder = self._encoder[0]
        if mask is not None:
            return cast(torch.Tensor, encoder.forward(first, mask)).float()
        return cast(torch.Tensor, encoder.forward(scaled(first, encoder.spec.preprocessing))).float()


def convert(encoder: Encoder, folder: Path) -> ConvertedModel:
    """Convert a loaded encoder into a folder; the encoder stays as it was.

    Raises:
        EncoderError: it can't be converted.
        WorkspaceError: the folder can't be written.
    """
    with _as_encoder_error(f"{encoder.spec.name} can't be converted for OpenVINO"):
        tokenizer = _tokenizer_record(encoder)
        network = _traced(encoder)
        if encoder.spec.modality == "image":
            _keep_fine_maps_precise(network, encoder.spec.preprocessing["size"])
        return _published(encoder, folder, network, tokenizer)


def quantize(encoder: Encoder, folder: Path, batches: Sequence[tuple[np.ndarray, ...]]) -> ConvertedModel:
    """Convert a loaded encoder to eight bits: weights by channel, activations by their range on some rows.

    Args:
        batches: arrays as they enter the network, `CALIBRATION_ROWS` rows or fewer.

    Raises:
        EncoderError: NNCF is not installed, or can't do it.
        WorkspaceError: the folder can't be written.
    """
    try:
        with without_telemetry():
            import nncf
    except ImportError as error:
        raise EncoderError(
            f"{encoder.spec.name}: precision int8 needs NNCF: pip install 'shelfprice[int8]'"
        ) from error
    nncf.set_log_level(logging.ERROR)
    progress = redirect_stdout(io.StringIO())  # which NNCF would draw there
    with _as_encoder_error(f"{encoder.spec.name} can't be put into eight bits"), progress:
        tokenizer = _tokenizer_record(encoder)
        network = nncf.quantize(
            _traced(encoder),
            nncf.Dataset([list(arrays) for arrays in batches]),
            subset_size=max(1, len(batches)),
            model_type=nncf.ModelType.TRANSFORMER if encoder.spec.modality == "text" else None,
        )
        return _published(encoder, folder, network, tokenizer)


@contextmanager
def _as_encoder_error(what: str) -> Iterator[None]:
    try:
        yield
    except ShelfpriceError:
        raise
    except Exception as error:  # tracing runs any code, and stumbles over it in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(f"{what}: {reason}") from error


def _tokenizer_record(encoder: Encoder) -> Any:
    if encoder.spec.modality != "text":
        return None
    tokenize: Any = cast(TextModel, encoder).tokenize
    if not hasattr(tokenize, "record"):
        raise TypeError("its tokenizer can't be saved")
    return tokenize.record()


def _published(encoder: Encoder, folder: Path, network: Any, tokenizer: Any) -> ConvertedModel:
    pad_id = cast(TextModel, encoder).pad_id if encoder.spec.modality == "text" else 0
    save = openvino().save_model
    return ConvertedModel.publish(
        folder, encoder.spec, lambda path: save(network, path, compress_to_fp16=False), tokenizer, pad_id
    )


def _traced(encoder: Encoder) -> Any:
    example = _example(encoder)
    library = openvino()
    with _plain_torch(), warnings.catch_warnings(), quiet_loading():
        warnings.simplefilter("ignore")
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # Its own check runs the trace again and compares exactly; vectors are compared by whoever uses them.
        decoder = TorchScriptPythonDecoder(
            _Forward(encoder).eval(), example_input=example, trace_kwargs={"check_trace": False}
        )
        network = library.convert_model(decoder, example_input=example)
    free = [-1, -1] if encoder.spec.modality == "text" else [-1, *example[0].shape[1:]]
    network.reshape({one: library.PartialShape(free) for one in network.inputs})
    return network


def _keep_fine_maps_precise(network: Any, size: Sequence[int]) -> None:
    """Leave the first stages of a network of convolutions in fp32 wherever the rest runs in bf16.

    Rounding there reaches every later stage: EfficientNet-Lite0 strays to cosine 0.998 without, keeps to 0.9995 with
    this, and is 1.6 times as fast as all in fp32. A transformer's patches are coarser maps, which it leaves alone.
    """
    height, width = size
    for operation in network.get_ordered_ops():
        for output in operation.outputs():
            shape = output.get_partial_shape()
            if shape.rank.is_dynamic or len(shape) != 4 or shape[2].is_dynamic or shape[3].is_dynamic:
                continue
            if shape[2].get_length() >= FINE * height and shape[3].get_length() >= FINE * width:
                operation.get_rt_info()[PRECISE] = ""


def _example(encoder: Encoder) -> tuple[torch.Tensor, ...]:
    if encoder.spec.modality == "image":
        height, width = encoder.spec.preprocessing["size"]
        return (torch.zeros(EXAMPLE_IMAGES, height, width, 3, dtype=torch.uint8),)
    text = cast(TextModel, encoder)
    preparer = TextPreparer(text.tokenize, text.pad_id, BatchLimit(2**31))
    (batch,) = preparer.batches(iter([RowWindow("", [b""] * len(EXAMPLE_TEXTS), EXAMPLE_TEXTS)]))
    return tuple(torch.from_numpy(array) for array in batch.arrays)


@contextmanager
def _plain_torch() -> Iterator[None]:
    """No gradients, and attention by its parts: torch's own fused layers are no operators that can be converted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
