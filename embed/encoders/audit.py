"""Checks the files of a model's folder: one that its library reads must be read here, be harmless, or be refused."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

from store.errors import EncoderError

# Names that transformers, sentence-transformers, timm or open_clip look for, and what the file decides.
DECIDES = {
    "adapter_config.json": "which adapter is laid over the weights",
    "adapter_model.safetensors": "the weights of an adapter",
    "adapter_model.bin": "the weights of an adapter",
    "chat_template.json": "how messages are written for the model",
    "*.jinja": "how messages are written for the model",
    "preprocessor_config.json": "how images are prepared",
    "processor_config.json": "how images are prepared",
    "image_processor_config.json": "how images are prepared",
    "router_config.json": "which of several modules a text goes through",
    "sentence_*_config.json": "how long texts may be and which inputs the model takes",
    "config_sentence_transformers.json": "the prompt and the length of vectors",
    "quantize_config.json": "how weights were packed",
    "added_tokens.json": "token ids",
    "special_tokens_map.json": "token ids",
    "tokenizer*.json": "token ids",
    "vocab*": "token ids",
    "merges.txt": "token ids",
    "*.model": "token ids",
    "*.tiktoken": "token ids",
    "tekken.json": "token ids",
    "bpe.codes": "token ids",
}
TOKEN_FILES = tuple(pattern for pattern, what in DECIDES.items() if what == "token ids")
# What is read and changes no vector, and why.
HARMLESS = {
    "generation_config.json": "how a model writes text",
    "video_preprocessor_config.json": "no video enters",
}


def audit_folder(folder: Path, read: Iterable[str], name: str, harmless: Mapping[str, str] = {}) -> None:
    """Refuse a folder with a file that would change vectors and is not read.

    Args:
        read: names of the files that decide the encoder's spec.
        name: of the encoder.
        harmless: glob patterns that this library file declares harmless, and why.

    Raises:
        EncoderError: names the file and what it decides.
    """
    known = set(read)
    for file in sorted(path.name for path in folder.iterdir() if path.is_file()):
        if file in known or any(fnmatch(file, pattern) for pattern in (*HARMLESS, *harmless)):
            continue
        if decided := next((why for pattern, why in DECIDES.items() if fnmatch(file, pattern)), None):
            raise EncoderError(
                f"{name}: {file} in {folder} decides {decided}, and shelfprice does not read it for such a model: "
                "remove the file, or load the model by the library that it was made for (docs/encoders.md)"
            )


def check_versions(config: dict[str, Any], name: str) -> None:
    """Refuse a model whose attention the installed transformers would change without a warning.

    Raises:
        EncoderError: names the version that it needs.
    """
    from packaging.version import Version

    installed = Version(version("transformers"))
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for key, value, least in (("is_causal", False, "5.2.0"), ("use_bidirectional_attention", True, "4.56.2")):
        if installed < Version(least) and any(part.get(key) is value for part in parts):
            raise EncoderError(
                f"{name}: the model attends in both directions ({key}: {str(value).lower()}), which transformers "
                f"{installed} ignores: pip install 'transformers>={least}'"
            )
