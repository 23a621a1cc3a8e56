"""How weights are loaded: in fp32, as they are stored, or packed into 8 or 4 bits by bitsandbytes."""

from importlib.util import find_spec
from typing import Any

from embed.encoders.base import Address, Resolved
from embed.encoders.options import one_of
from embed.encoders.weights import TORCH_TYPES
from store.errors import EncoderError

QUANTIZED = "quantized"  # in a spec's `extra`: "8bit" or "4bit"


def quantized(address: Address) -> dict[str, str]:
    """What a spec's `extra` holds of the option `quantize`; empty where it is not given.

    Raises:
        EncoderError: another value.
    """
    if "quantize" not in address.options:
        return {}
    return {QUANTIZED: one_of(address, "quantize", ("8bit", "4bit"))}


def loading_options(resolved: Resolved) -> dict[str, Any]:
    """What transformers' `from_pretrained` is told.

    Raises:
        EncoderError: packing needs what is not here.
    """
    import torch

    dtype = getattr(torch, TORCH_TYPES[resolved.loaded_as])
    bits = resolved.spec.extra.get(QUANTIZED)
    if bits is None:
        return {"dtype": dtype}
    lacking = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if lacking or not torch.cuda.is_available():
        missing = ", ".join(lacking) or "a CUDA device"
        raise EncoderError(
            f"{resolved.spec.name}: quantize={bits} needs {missing}: pip install 'shelfprice[quantize]' on a machine "
            "with an NVIDIA GPU, or leave quantize out"
        )
    from transformers import BitsAndBytesConfig

    half = torch.float16 if resolved.stored_as == "fp16" else torch.bfloat16
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if bits == "8bit"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=half)
    )
    return {"dtype": half, "quantization_config": config, "device_map": {"": torch.cuda.current_device()}}
