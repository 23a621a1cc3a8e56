"""Dynamic quantization: a network of OpenVINO whose products take weights and inputs in eight bits, made when it is loaded.

Weights have a scale and a zero point for each output and each `GROUP` of inputs. Activations get a scale for each token
and group as they come, by OpenVINO, so that nothing is calibrated and no token depends on another.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

DTYPE = "int8-dynamic"
GROUP = 64  # inputs that share a scale: MiniLM keeps to cosine 0.9993 with 64, and to 0.9977 with 384
LARGEST = 255  # of eight bits


def settings() -> dict[str, str]:
    """Of the device, beside the type of all other operations."""
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP)}


def has_products(network: Any) -> bool:
    """Whether a network has products with weights that can be put into eight bits: one of convolutions has none."""
    return next(_products(network), None) is not None


def quantize_products(network: Any) -> None:
    """Put the weights of all such products into eight bits, in place."""
    from openvino import opset13 as ops

    for product, weights in list(_products(network)):
        integers, zero, scale = quantized(weights)
        values = ops.convert(ops.constant(integers), np.float32)
        zeros = ops.convert(ops.constant(zero), np.float32)
        scaled = ops.multiply(ops.subtract(values, zeros), ops.constant(scale))
        shape = ops.constant(np.array(weights.shape, np.int64))
        product.input(1).replace_source_output(ops.reshape(scaled, shape, special_zero=False).output(0))
    network.validate_nodes_and_infer_types()


def quantized(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights in eight bits.

    Args:
        weights: shape (n_outputs, n_inputs), float32; n_inputs is a multiple of `GROUP`.

    Returns:
        Integers, shape (n_outputs, n_groups, GROUP), zero points and scales, shape (n_outputs, n_groups, 1):
        (integers - zero points) * scales is as near to the weights as eight bits are.
    """
    groups = weights.reshape(len(weights), -1, GROUP)
    low = np.minimum(groups.min(axis=2, keepdims=True), 0)
    high = np.maximum(groups.max(axis=2, keepdims=True), 0)
    scale = np.maximum((high - low) / LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    zero = np.clip(np.round(-low / scale), 0, LARGEST)
    integers = np.clip(np.round(groups / scale) + zero, 0, LARGEST)
    return integers.astype(np.uint8), zero.astype(np.uint8), scale


def _products(network: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """Products with constant weights of whole groups, and these, shape (n_outputs, n_inputs)."""
    for operation in network.get_ordered_ops():
        if operation.get_type_name() != "MatMul" or not operation.get_attributes()["transpose_b"]:
            continue
        source = operation.input(1).get_source_output().get_node()
        shape = operation.input(1).get_partial_shape()
        if source.get_type_name() != "Constant" or len(shape) != 2 or shape[1].get_length() % GROUP:
            continue
        yield operation, np.asarray(source.data, np.float32)
