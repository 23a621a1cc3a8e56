"""What an address and timm's own configuration say of a model: how it is pooled, and how images are prepared for it."""

import contextlib
import difflib
import math
import re
from typing import Any, cast

from embed.encoders.base import PREPARED_BY, Address, image_preprocessing
from embed.encoders.options import number, one_of
from store.errors import EncoderError

STAGES = "stages"  # what `embed.encoders.stages` reads, beside the features that are pooled as trained
POOLING = ("avg", "avgmax", "cls", "map", "max", STAGES, "token")  # "cls" is what timm calls "token"
CROP_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}
NAFLEX = "naflexvit"  # architectures that take images of any size
PATCHES = 576  # of an image, where a model's files do not say
# What timm's configurations leave out of how weights were trained: pattern of the architecture, of the weights' tag,
# settings, and how features were pooled. Source: the models' own repositories, as open_clip's configurations repeat it.
AS_TRAINED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (r"vit_.*siglip.*", r"(v2_)?webli|pali.*", {"crop_mode": "squash", "crop_pct": 1.0}),
    (r"vit_pe_.*", r"fb.*", {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"}),
    (r"vit_pe_core_.*", r"fb.*", {"head": "projection"}),
    (r"vit_.*_dinov3.*|sapiens2.*|vit_.*_sapiens2.*", r".*", {"pooling": "token"}),
)


def builtin_settings(address: Address) -> dict[str, Any]:
    """The configuration of a model that timm knows by name.

    Raises:
        EncoderError: it knows none; the nearest names are offered.
    """
    import timm

    settings = None
    if timm.is_model(address.model.partition(".")[0]):
        with contextlib.suppress(RuntimeError):  # an unknown tag
            settings = timm.get_pretrained_cfg(address.model)
    if settings is None:
        near = difflib.get_close_matches(address.model, [*timm.list_models(), *timm.list_pretrained()], n=3)
        hint = f", did you mean {', '.join(near)}?" if near else ""
        raise EncoderError(f"{address.name}: timm has no model {address.model!r}{hint}")
    return dict(settings.to_dict())


def as_trained(address: Address, architecture: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the weights were trained with, where timm's settings do not say."""
    tag = settings.get("tag") or address.model.partition(".")[2]
    found: dict[str, Any] = {}
    for pattern, tags, trained in AS_TRAINED:
        if re.fullmatch(pattern, architecture) and re.fullmatch(tags, tag or ""):
            found |= trained
    return found


def head_of(address: Address, settings: dict[str, Any]) -> str:
    """Whether the projection that weights end with is kept."""
    head = one_of(address, "head", ("none", "projection"), default=settings.get("head"))
    if head == "projection" and not settings.get("num_classes"):
        raise EncoderError(f"{address.name}: the weights have no projection: leave out head=projection")
    return head


def pooling_of(address: Address, settings: dict[str, Any]) -> str | None:
    """As timm names it; None: as the architecture has it."""
    if "pooling" not in address.options:
        return cast("str | None", settings.get("pooling"))
    asked = one_of(address, "pooling", POOLING)
    return "token" if asked == "cls" else asked


def pooling_origin(address: Address, settings: dict[str, Any]) -> str:
    """Who chose how features are pooled, in words."""
    if "pooling" in address.options:
        return "asked for"
    return "as the weights were trained" if settings.get("pooling") else "as the architecture has it"


def model_args(address: Address, settings: dict[str, Any]) -> dict[str, Any]:
    """What `timm.create_model` is told beside the name and the number of classes."""
    args = {k: v for k, v in settings.get("model_args", {}).items() if k not in ("num_classes", "in_chans")}
    size = size_of(address, settings)
    if settings.get("fixed_input_size") and list(size) != list(settings["input_size"][1:]):
        args["img_size"] = size
    pooling = pooling_of(address, settings)
    return {**args, "global_pool": pooling} if pooling and pooling != STAGES else args


def size_of(address: Address, settings: dict[str, Any]) -> tuple[int, int]:
    """Height and width of an image in pixels.

    Raises:
        EncoderError: the option `size` is no number.
    """
    asked = address.options.get("size")
    if asked is None:
        height, width = settings.get("input_size", (3, 224, 224))[1:]
        return int(height), int(width)
    if not asked.isdecimal() or int(asked) < 1:
        raise EncoderError(f"{address.name}: size must be a number of pixels, got {asked!r}")
    return int(asked), int(asked)


def preprocessing_of(address: Address, architecture: str, settings: dict[str, Any]) -> dict[str, Any]:
    """`spec.preprocessing`.

    Raises:
        EncoderError: an option is of other models, or no value of its kind.
    """
    height, width = size_of(address, settings)
    if architecture.startswith(NAFLEX):
        if address.options.get("pooling") == STAGES:
            raise EncoderError(f"{address.name}: pooling=stages is for models that take images of one size")
        return _patches(address, architecture, settings, height, width)
    if "max_patches" in address.options:
        raise EncoderError(f"{address.name}: max_patches is for models that take images of any size")
    try:
        crop_pct = float(address.options.get("crop_pct") or settings.get("crop_pct") or 0.875)
    except ValueError as error:
        raise EncoderError(
            f"{address.name}: crop_pct must be a number, got {address.options['crop_pct']!r}"
        ) from error
    if not 0.1 <= crop_pct <= 1.0:
        raise EncoderError(f"{address.name}: crop_pct must lie between 0.1 and 1, got {crop_pct}")
    mean = settings.get("mean") or (0.485, 0.456, 0.406)
    known = tuple(CROP_MODES)
    crop_mode = settings.get("crop_mode")
    crop_mode = one_of(address, "crop_mode", known, default=crop_mode if crop_mode in known else None)
    mode = CROP_MODES[crop_mode]
    return image_preprocessing(
        size=(height, width),
        resize=mode,
        resize_to=(math.floor(height / crop_pct), math.floor(width / crop_pct)),
        interpolation=settings.get("interpolation") or "bicubic",
        mean=mean,
        std=settings.get("std") or (0.229, 0.224, 0.225),
        fill=[round(255 * m) for m in mean] if mode == "longest" else (0, 0, 0),
    )


def _patches(
    address: Address, architecture: str, settings: dict[str, Any], height: int, width: int
) -> dict[str, Any]:
    """`spec.preprocessing` of a model that takes images of any size: as many patches as fit, the aspect kept."""
    import timm
    import torch

    with torch.device("meta"):
        model: Any = timm.create_model(architecture, num_classes=0, **model_args(address, settings))
    patch = [int(edge) for edge in model.embeds.patch_size]
    trained = (height // patch[0]) * (width // patch[1]) or PATCHES
    return {
        PREPARED_BY: "timm",
        "patch": patch,
        "max_patches": number(address, "max_patches", 1) or trained,
        "interpolation": settings.get("interpolation") or "bicubic",
        "mean": [float(m) for m in settings.get("mean") or (0.5, 0.5, 0.5)],
        "std": [float(s) for s in settings.get("std") or (0.5, 0.5, 0.5)],
    }
