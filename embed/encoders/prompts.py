"""The prompt before a document: what a model's own files register, else what is declared here of those that register none."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embed.encoders.base import Address
from embed.encoders.hub import model_names, read_json
from store.errors import EncoderError

REGISTER = "config_sentence_transformers.json"
DOCUMENT_NAMES = (
    "document",
    "passage",
    "corpus",
)  # as sentence-transformers' `encode_document` looks for them


@dataclass(frozen=True)
class Prompt:
    """What is put before every text."""

    text: str
    origin: str  # in words
    is_pooled: bool = True  # whether its tokens take part in the pooling


@dataclass(frozen=True)
class PromptedFamily:
    """Models that were trained with a prompt before documents and register none."""

    name: str
    pattern: str  # of the last part of a model's name, in lower case
    prompt: str
    is_pooled: bool = True


# Source: the model cards.
FAMILIES = (
    PromptedFamily("E5", r"(multilingual-)?e5-(small|base|large)(-v2)?(-unsupervised)?", "passage: "),
    PromptedFamily("nomic-embed-text", r"nomic-embed-text-v[\d.]+(-moe|-unsupervised)?", "search_document: "),
    PromptedFamily("modernbert-embed", r"modernbert-embed-(base|large)", "search_document: "),
    PromptedFamily("EmbeddingGemma", r"embeddinggemma-300m.*", "title: none | text: "),
    PromptedFamily(
        "INSTRUCTOR", r"instructor-(base|large|xl)", "Represent the document for retrieval: ", is_pooled=False
    ),
)


def document_prompt(address: Address, folder: Path, config: dict[str, Any], is_pooled: bool = True) -> Prompt:
    """The prompt that a model's documents get.

    Args:
        address: its options `prompt` and `prompt_name` override; an empty `prompt` switches prompts off.
        folder: of the model.
        config: the transformer's `config.json`.
        is_pooled: what the model's pooling says of prompts.

    Raises:
        EncoderError: both options, or a name that is not registered.
    """
    family = next(
        (
            f
            for name in model_names(address, config)
            for f in FAMILIES
            if re.fullmatch(f.pattern, name.lower())
        ),
        None,
    )
    is_pooled = is_pooled and (family is None or family.is_pooled)
    asked, asked_name = address.options.get("prompt"), address.options.get("prompt_name")
    if asked is not None and asked_name is not None:
        raise EncoderError(f"{address.name}: give prompt or prompt_name, not both")
    if asked is not None:
        return Prompt(asked, "asked for" if asked else "switched off", is_pooled)
    registered, default_name = _registered(folder)
    if asked_name is not None:
        if asked_name not in registered:
            known = ", ".join(sorted(registered)) or "none"
            raise EncoderError(f"{address.name}: no prompt {asked_name!r} is registered, one of {known}")
        return Prompt(registered[asked_name], f"registered as {asked_name!r}", is_pooled)
    named = [name for name in DOCUMENT_NAMES if name in registered]
    name = next((name for name in named if registered[name]), None if named else default_name)
    if registered.get(name or ""):
        return Prompt(registered[str(name)], f"registered as {name!r}", is_pooled)
    if family is not None:
        return Prompt(family.prompt, f"declared for {family.name}, which registers none", is_pooled)
    return Prompt("", f"registered as {named[0]!r}, empty" if named else "none registered", is_pooled)


def _registered(folder: Path) -> tuple[dict[str, str], str | None]:
    """Prompts by name, and the name of the default one."""
    path = folder / REGISTER
    config = read_json(path) if path.is_file() else {}
    prompts = {str(name): str(text or "") for name, text in (config.get("prompts") or {}).items()}
    return prompts, config.get("default_prompt_name")
