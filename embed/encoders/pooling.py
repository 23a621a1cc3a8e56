"""How a text model's tokens become a vector: as its files say, else by what kind of model it is."""

from pathlib import Path
from typing import Any

from embed.encoders.base import Address
from embed.encoders.hub import read_json
from embed.encoders.options import one_of
from store.errors import EncoderError

TEXT_POOLING = ("mean", "cls", "last")
OWN_POOLING = "1_Pooling/config.json"  # how sentence-transformers pools the model
TWO_HALVES = ("t5", "mt5", "umt5", "t5gemma")  # of which the encoder alone is taken
# Kinds that go on with a text; their checkpoints may be saved without the head whose name ends in ForCausalLM.
DECODERS = (
    *(
        "bloom",
        "cohere",
        "cohere2",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
    ),
    *(
        "gptj",
        "granite",
        "internlm3",
        "llama",
        "ministral",
        "mistral",
        "mixtral",
        "olmo",
        "olmo2",
        "opt",
        "phi",
    ),
    *("phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
)


def is_decoder(config: dict[str, Any]) -> bool:
    """Whether a model was trained to go on with a text, so that only its last token has seen all of it."""
    if config.get("is_encoder_decoder") or config.get("model_type") in TWO_HALVES:
        return False
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else {}
    if any(
        part.get("is_causal") is False or part.get("use_bidirectional_attention") for part in (config, text)
    ):
        return False
    architecture = str((config.get("architectures") or [""])[0])
    heads = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
    return architecture.endswith(heads) or config.get("model_type") in DECODERS


# What older versions of sentence-transformers call a pooling, and what it is called now.
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
OF_HF = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # of these, what `hf:` has


def pooling_mode(pooling: dict[str, Any]) -> str:
    """How a pooling of sentence-transformers pools by its configuration; several ways are joined by "+"."""
    mode = pooling.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in LEGACY_POOLING.items() if pooling.get(key)] or "mean"
    return mode if isinstance(mode, str) else "+".join(mode)


def own_pooling(folder: Path) -> dict[str, Any]:
    """What a transformers folder says of its pooling; empty where it says nothing."""
    return dict(read_json(folder / OWN_POOLING)) if (folder / OWN_POOLING).is_file() else {}


def text_pooling(address: Address, folder: Path, config: dict[str, Any]) -> tuple[str, str]:
    """How tokens are pooled, and where that comes from."""
    if "pooling" in address.options:
        return one_of(address, "pooling", TEXT_POOLING), "asked for"
    if own := own_pooling(folder):
        mode = pooling_mode(own)
        if mode not in OF_HF:
            raise EncoderError(
                f"{address.name}: its {OWN_POOLING} says {mode}, and hf: pools by {', '.join(TEXT_POOLING)}: write "
                f"st:{address.model} for its own pooling, or choose one with pooling="
            )
        return OF_HF[mode], f"as its {OWN_POOLING} says"
    if is_decoder(config):
        return "last", "by the last token, as of every decoder"
    return "mean", "by default"
