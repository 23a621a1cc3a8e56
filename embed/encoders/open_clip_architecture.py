"""Architecture, activation and preprocessing of an open_clip name; refused where its files do not state all of them."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embed.encoders.base import Address, image_preprocessing
from embed.encoders.hub import read_json
from store.errors import EncoderError

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Architecture:
    """Configuration of the network and of its preprocessing."""

    config: dict[str, Any]  # as open_clip's `model_cfg`
    preprocess: dict[str, Any]  # as open_clip's `preprocess_cfg`


def tag_architecture(address: Address) -> tuple[Architecture, str, tuple[str, ...]]:
    """From ARCH/TAG: the architecture, the hub repository of the weights, and the names they may have there.

    Raises:
        EncoderError: unknown architecture or tag; names the nearest.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    name, _, tag = address.model.partition("/")
    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.4)
        raise EncoderError(
            f"{address.name}: open_clip knows no architecture {name!r}, did you mean {', '.join(near)}?"
            if near
            else f"{address.name}: open_clip knows no architecture {name!r}: see open_clip.list_models()"
        )
    trained = get_pretrained_cfg(name, tag)
    if not trained:
        tags = list_pretrained_tags_by_model(name)
        raise EncoderError(
            f"{address.name}: {name} has no weights {tag!r}, one of {', '.join(tags) or 'none'}; for weights of your "
            f"own write open_clip:{name}/TAG?weights=FILE with the tag whose preprocessing they were trained with"
        )
    # The library builds what ARCH says and only warns where the weights were trained with the other activation.
    config["quick_gelu"] = bool(trained.get("quick_gelu") or config.get("quick_gelu"))
    repo, _, file = trained["hf_hub"].rpartition("/")
    names = (file.rpartition(".")[0] + ".safetensors", file) if file else WEIGHTS
    return Architecture(config, {key: trained[key] for key in PREPROCESS_KEYS}), repo, names


def folder_architecture(path: Path, address: Address) -> Architecture:
    """From an `open_clip_config.json`.

    Raises:
        EncoderError: it does not state the architecture, or not all of the preprocessing.
    """
    described = read_json(path)
    config, preprocess = described.get("model_cfg"), described.get("preprocess_cfg", {})
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise EncoderError(f"{address.name}: {path} has no model_cfg with embed_dim, vision_cfg and text_cfg")
    if lacking := [key for key in PREPROCESS_KEYS if key not in preprocess]:
        raise EncoderError(
            f"{address.name}: {path} does not state {', '.join(lacking)} in preprocess_cfg, and another model's "
            "preprocessing gives wrong vectors: complete the file"
        )
    return Architecture(config, preprocess)


def preprocessing_of(architecture: Architecture) -> dict[str, Any]:
    """`spec.preprocessing` of the image tower."""
    edge = architecture.config["vision_cfg"].get("image_size", 224)
    size = (edge, edge) if isinstance(edge, int) else tuple(edge)
    preprocess = architecture.preprocess
    interpolation = (
        "bilinear" if preprocess["interpolation"] == "bilinear" else "bicubic"
    )  # as the library does
    if preprocess["resize_mode"] == "shortest" and size[0] != size[1]:
        interpolation = "bicubic"  # there the library forgets to pass it on
    fill = preprocess.get("fill_color", 0)
    return image_preprocessing(
        size=size,
        resize=preprocess["resize_mode"],
        resize_to=size,
        interpolation=interpolation,
        mean=preprocess["mean"],
        std=preprocess["std"],
        fill=(fill, fill, fill),
    )
