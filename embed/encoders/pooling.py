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


# What a sentence-transformers folder calls its pooling, in the forms of all versions.
OWN_MODES = {
    "mean": "mean",
    "pooling_mode_mean_tokens": "mean",
    "cls": "cls",
    "pooling_mode_cls_token": "cls",
    "lasttoken": "last",
    "pooling_mode_lasttoken": "last",
}
OF_PROMPTS = ("include_prompt",)


def pools_prompt(folder: Path) -> bool:
    """Whether the prompt's tokens are pooled, as the folder says."""
    return not (folder / OWN_POOLING).is_file() or read_json(folder / OWN_POOLING).get("include_prompt", True)


def text_pooling(address: Address, folder: Path, config: dict[str, Any]) -> tuple[str, str]:
    """How tokens are pooled, and where that comes from."""
    if "pooling" in address.options:
        return one_of(address, "pooling", TEXT_POOLING), "asked for"
    if (folder / OWN_POOLING).is_file():
        own = read_json(folder / OWN_POOLING)
        modes = [own["pooling_mode"]] if "pooling_mode" in own else [k for k, on in own.items() if on is True]
        modes = [one for mode in modes for one in (mode if isinstance(mode, list) else [mode])]
        modes = [mode for mode in modes if mode not in OF_PROMPTS]
        if len(modes) != 1 or modes[0] not in OWN_MODES:
            said = " and ".join(map(str, modes)) or "nothing"
            raise EncoderError(
                f"{address.name}: its {OWN_POOLING} says {said}, and hf: pools by {', '.join(TEXT_POOLING)}: write "
                f"st:{address.model} for its own pooling, or choose one with pooling="
            )
        return OWN_MODES[modes[0]], f"as its {OWN_POOLING} says"
    if is_decoder(config):
        return "last", "by the last token, as of every decoder"
    return "mean", "by default"
