"""Image towers of transformers, and models with one for images and one for texts, prepared by their own processors' numbers."""

import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embed.encoders.audit import audit_folder
from embed.encoders.base import (
    PREPARED_BY,
    Address,
    Encoder,
    HashFile,
    Item,
    Resolved,
    RowContent,
    image_preprocessing,
    text_preprocessing,
)
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import digest_files, is_local, quiet_loading
from embed.encoders.lengths import max_tokens
from embed.encoders.options import check_options, long_texts, number, one_of
from embed.encoders.quantize import loading_options
from embed.encoders.weights import lacking_tensors, stored_weights
from embed.inputs import InputFailure
from embed.inputs.clip_tokenizer import CleaningTokenizer
from embed.inputs.tokenizer import TOKENIZER_FILES, FastTokenizer, load_tokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

# Kinds with a tower for images and one for texts -> whether the text tower was trained on texts padded to its full length.
TWO_TOWERS = {"clip": False, "metaclip_2": False, "siglip": True, "siglip2": True}
# Kinds of images alone -> how they may be pooled, as they were trained first.
IMAGE_MODELS = {
    "convnext": ("avg",),
    "convnextv2": ("avg",),
    "dinov2": ("cls", "avg"),
    "dinov2_with_registers": ("cls", "avg"),
    "dinov3_convnext": ("avg",),
    "dinov3_vit": ("cls", "avg"),
    "ijepa": ("avg",),
    "vit": ("cls", "avg"),
}
PREFIXED = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")  # with tokens before those of the patches
OPTIONS = ("dim", "long", "max_patches", "max_tokens", "normalize", "pooling")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
TOWER_CONFIG = "towers"  # in a spec's `extra`: digest of the configuration
PROCESSED = (
    "processor_sha256"  # in a spec's `preprocessing` where the library's own processor prepares images
)
CLOSE = 1.0  # of 255: mean difference of a pixel between a processor's result and ours
PIXELS_A_PATCH = 256  # what an image of fixed size costs, counted in patches
SIGNS = {"*.jinja": "no message enters", "chat_template.json": "no message enters"}


def resolve_towers(
    address: Address,
    folder: Path,
    config: dict[str, Any],
    hash_file: HashFile,
    *,
    normalizes: bool = False,
    cut_to: int | None = None,
    own_limit: Any = None,
) -> list[Resolved]:
    """The towers that an address names; imports the library, whose processor is asked for its numbers.

    Args:
        normalizes: whether the model's own files scale vectors to unit length.
        cut_to: what they say vectors are cut to.
        own_limit: how long they say texts may be.

    Raises:
        EncoderError: an option that makes no sense here, or a processor that can't be loaded.
    """
    check_options(address, OPTIONS)
    kind = str(config["model_type"])
    towers = ("image", "text") if kind in TWO_TOWERS else ("image",)
    if address.tower and address.tower not in towers:
        raise EncoderError(
            f"{address.name}: the model has no tower for {address.tower}s: leave out .{address.tower}"
        )
    audit_folder(folder, (*TOKENIZER_FILES, *PROCESSOR_FILES), address.name, SIGNS | BESIDE)
    weights = sorted(file.name for file in _weight_files(folder))
    n_parameters, stored_as = stored_weights([folder / name for name in weights])
    found = []
    for tower in (address.tower,) if address.tower else towers:
        named = address.of_tower(tower) if len(towers) > 1 else address
        shape = vector_shape(
            named, folder, config, own_dim=_dim(config, tower), normalizes=normalizes, cut_to=cut_to
        )
        pooling = "projection"
        if kind in IMAGE_MODELS:
            known = IMAGE_MODELS[kind]
            is_cls = named.options.get("pooling") == "token" and "cls" in known  # as timm names it
            pooling = "cls" if is_cls else one_of(named, "pooling", known)
        elif "pooling" in named.options:
            raise EncoderError(f"{named.name}: a tower is pooled as it was trained: leave out pooling")
        spec = EncoderSpec(
            name=named.name,
            modality="image" if tower == "image" else "text",
            library="transformers",
            model="" if is_local(address) else address.model,
            weights_sha256=digest_files(folder, weights, hash_file),
            dim=shape.dim,
            preprocessing=(
                _image_inputs(named, folder, hash_file)
                if tower == "image"
                else _text_inputs(named, folder, config, own_limit, hash_file)
            ),
            pooling=pooling,
            normalize=shape.normalize,
            extra={TOWER_CONFIG: digest(_in_vectors(config)), **shape.extra},
        )
        found.append(
            Resolved(
                named, spec, {"folder": str(folder)}, version("transformers"), (), n_parameters, stored_as
            )
        )
    return found


def load_towers(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load one model and give its towers.

    Raises:
        EncoderError: the weights are damaged or of another model.
    """
    first = resolved[0]
    folder, name = Path(first.files["folder"]), first.spec.name
    from transformers import AutoModel

    try:
        with quiet_loading():
            model, report = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
                **loading_options(first),
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(
            f"{name}: {folder} can't be loaded, its weights are damaged or of another model: {reason}"
        ) from error
    if lacking := lacking_tensors([report]):
        raise EncoderError(
            f"{name}: the weights in {folder} are of another model, they lack {len(lacking)} tensors "
            f"(first: {lacking[0]}): replace the folder with the whole model"
        )
    return [_tower(one, model.eval()) for one in resolved]


# ---- what enters ---------------------------------------------------------------------------------

# What such folders hold besides, and why it changes no vector.
BESIDE = {
    "sentence_*_config.json": "read by the file that asked for the towers",
    "config_sentence_transformers.json": "prompts are for texts that are searched",
}


def _image_inputs(address: Address, folder: Path, hash_file: HashFile) -> dict[str, Any]:
    processor = load_image_processor(folder)
    patches = getattr(processor, "max_num_patches", None)
    asked = number(address, "max_patches", 1)
    if asked and patches is None:
        raise EncoderError(f"{address.name}: max_patches is for models that take images of any size")
    own = _own_numbers(processor)
    if own is not None and _agrees(processor, own):
        return own
    names = [name for name in PROCESSOR_FILES if (folder / name).is_file()]
    digest_of = digest_files(folder, names, hash_file)
    described = {PREPARED_BY: "transformers", PROCESSED: digest_of, "processor": _plain_name(processor)}
    return described | ({"max_patches": asked or int(patches)} if patches else {})


def load_image_processor(folder: Path) -> Any:
    """A model's own image processor.

    Raises:
        EncoderError: there is none, or it can't be loaded.
    """
    from transformers import AutoImageProcessor

    try:
        with quiet_loading():
            return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(
            f"{folder} has no image processor that can be loaded (preprocessor_config.json): {reason}: complete the folder"
        ) from error


def _own_numbers(processor: Any) -> dict[str, Any] | None:
    """A processor's numbers as `spec.preprocessing`; None where it does something else than resize and crop."""
    size = _plain_size(getattr(processor, "size", None))
    crop = (
        _plain_size(getattr(processor, "crop_size", None))
        if getattr(processor, "do_center_crop", None)
        else None
    )
    steps = [getattr(processor, step, False) for step in ("do_resize", "do_rescale", "do_normalize")]
    resample = getattr(processor, "resample", None)
    if not all(steps) or size is None or resample is None or not 0 <= int(resample) < len(RESAMPLING):
        return None
    if set(size) == {"height", "width"}:
        to, mode = (size["height"], size["width"]), "squash"
    elif set(size) == {"shortest_edge"} and crop is not None:
        to, mode = (size["shortest_edge"],) * 2, "shortest"
    else:
        return None
    kept = to if crop is None else (crop.get("height"), crop.get("width"))
    if None in kept:
        return None
    numbers = image_preprocessing(
        size=cast(tuple[int, int], kept),
        resize=mode,
        resize_to=cast(tuple[int, int], to),
        interpolation=RESAMPLING[int(resample)],
        mean=processor.image_mean,
        std=processor.image_std,
    )
    return numbers | ({"corner": "floor"} if to != kept else {})


def _plain_size(size: Any) -> dict[str, int] | None:
    if size is None:
        return None
    return {key: int(value) for key, value in dict(size).items() if value is not None}


def _agrees(processor: Any, preprocessing: dict[str, Any]) -> bool:
    """Whether our own decoding gives what the processor gives, on a few images of several shapes."""
    from PIL import Image

    from embed.inputs.images import decode_image

    random = np.random.default_rng(0)
    size = max(preprocessing["resize_to"])
    # Some a pixel wider than high, so that a window falls between two pixels.
    for shape in ((size, size + 1), (size + 3, size), (2 * size, 3 * size), (3 * size + 1, size)):
        coarse = Image.fromarray(random.integers(0, 256, (-(-shape[0] // 4), -(-shape[1] // 4), 3), np.uint8))
        image = coarse.resize(shape[::-1], Image.Resampling.BICUBIC)
        content = io.BytesIO()
        image.save(content, "PNG")
        ours = decode_image(content.getvalue(), preprocessing)
        theirs = np.asarray(processor(images=image, return_tensors="np")["pixel_values"])[0]
        if isinstance(ours, InputFailure) or theirs.shape[1:] != ours.shape[:2]:
            return False
        mean, std = (np.array(preprocessing[key])[:, None, None] for key in ("mean", "std"))
        if np.abs(255 * (theirs * std + mean) - ours.transpose(2, 0, 1)).mean() > CLOSE:
            return False
    return True


def _plain_name(processor: Any) -> str:
    return type(processor).__name__.removesuffix("Fast").removesuffix("Pil")


def _text_inputs(
    address: Address, folder: Path, config: dict[str, Any], own_limit: Any, hash_file: HashFile
) -> dict[str, Any]:
    text = {"max_position_embeddings": 77, **(config.get("text_config") or {})}
    if TWO_TOWERS[config["model_type"]]:
        text["max_position_embeddings"] = (config.get("text_config") or {}).get("max_position_embeddings", 64)
    return text_preprocessing(
        tokenizer_sha256=tokenizer_sha256(folder, hash_file),
        max_tokens=max_tokens(address, text, own_limit),
        long=long_texts(address),
    )


def _dim(config: dict[str, Any], tower: str) -> int:
    kind = config["model_type"]
    if kind in ("clip", "metaclip_2"):
        return int(config.get("projection_dim", 512))
    if kind in TWO_TOWERS:
        own = config.get("vision_config" if tower == "image" else "text_config") or {}
        return int((own.get("projection_size") if tower == "text" else None) or own.get("hidden_size", 768))
    sizes = config.get("hidden_sizes")
    return int(sizes[-1] if sizes else config.get("hidden_size", 768))


def _weight_files(folder: Path) -> list[Path]:
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else shards or sorted(folder.glob("pytorch_model*.bin"))


def _in_vectors(config: dict[str, Any]) -> dict[str, Any]:
    beside = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
    return {key: value for key, value in config.items() if key not in beside}


# ---- encoders ------------------------------------------------------------------------------------


def _tower(resolved: Resolved, model: Any) -> Encoder:
    if resolved.spec.modality == "text":
        return cast(Encoder, TextTower(resolved, model))
    module = image_module(model, resolved.spec.pooling)
    if PROCESSED in resolved.spec.preprocessing:
        return cast(Encoder, ProcessedImages(resolved, module))
    return cast(Encoder, ImageTower(resolved.spec, module))


def image_module(model: Any, pooling: str) -> "torch.nn.Module":
    """The image half of a model, and how its tokens become a vector."""
    from torch import nn

    class ImageModule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = model.config.model_type
            self.vision = model.vision_model if kind in TWO_TOWERS else model
            self.projection = getattr(model, "visual_projection", None) if kind in TWO_TOWERS else None
            self._prefix = 1 + getattr(model.config, "num_register_tokens", 0) if kind in PREFIXED else 0
            self._is_map = kind not in TWO_TOWERS and len(IMAGE_MODELS[kind]) == 1 and kind != "ijepa"

        def forward(self, pixels: "torch.Tensor", **options: Any) -> "torch.Tensor":
            found = self.vision(pixel_values=pixels, **options)
            if pooling == "projection" or self._is_map:
                pooled = found.pooler_output
                pooled = pooled.flatten(1)
                return pooled if self.projection is None else cast("torch.Tensor", self.projection(pooled))
            hidden = cast("torch.Tensor", found.last_hidden_state)
            return hidden[:, 0] if pooling == "cls" else hidden[:, self._prefix :].mean(dim=1)

    return ImageModule()


class ImageTower:
    """The image half of a model behind the `ImageModel` protocol."""

    def __init__(self, spec: EncoderSpec, module: "torch.nn.Module") -> None:
        self.spec, self.module = spec, module

    def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":
        return shaped(self.module(pixels), self.spec)


class ProcessedImages:
    """The image half of a model whose own processor prepares images, behind the `ItemModel` protocol."""

    fills = (0, 0)

    def __init__(self, resolved: Resolved, module: "torch.nn.Module") -> None:
        self.spec, self.module = resolved.spec, module
        self._processor = load_image_processor(Path(resolved.files["folder"]))
        patches = resolved.spec.preprocessing.get("max_patches")
        self._options = {"max_num_patches": patches} if patches else {}

    def prepare(self, content: RowContent) -> Item | InputFailure:
        from PIL import Image

        found = self._processor(
            images=Image.fromarray(cast(np.ndarray, content.image)), return_tensors="np", **self._options
        )
        pixels = np.asarray(found["pixel_values"][0], np.float32)
        if "spatial_shapes" not in found:
            return Item((np.zeros(pixels[0].size // PIXELS_A_PATCH, np.uint8), pixels))
        shape = np.asarray(found["spatial_shapes"][0], np.int64)
        return Item((pixels[: int(shape.prod())], shape))

    def forward(self, *arrays: "torch.Tensor") -> "torch.Tensor":
        import torch

        first, second, lengths = arrays
        if not self._options:
            return shaped(self.module(second), self.spec)
        mask = torch.arange(first.shape[1], device=first.device)[None] < lengths[:, :1]
        options = {"pixel_attention_mask": mask.to(torch.int32), "spatial_shapes": second}
        return shaped(self.module(first, **options), self.spec)


class TextTower:
    """The text half of a model behind the `TextModel` protocol."""

    def __init__(self, resolved: Resolved, model: Any) -> None:
        self.spec = resolved.spec
        self.module = text_module(model)
        preprocessing = resolved.spec.preprocessing
        tokenizer = load_tokenizer(resolved.files["folder"])
        self.pad_id = int(tokenizer.pad_token_id or 0)
        fast = FastTokenizer(tokenizer.backend_tokenizer, preprocessing["max_tokens"], preprocessing["long"])
        fast.check_same_as(tokenizer, resolved.spec.name)
        self._pads = TWO_TOWERS[model.config.model_type]
        self._masks = "attention_mask" in tokenizer.model_input_names
        pad_to = preprocessing["max_tokens"] if self._pads else None
        self.tokenize = CleaningTokenizer(fast, "none", pad_to=pad_to, pad_id=self.pad_id)

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        if self._pads:
            mask = (ids != self.pad_id).long()
        return shaped(self.module(ids, mask if self._masks else None), self.spec)


def text_module(model: Any) -> "torch.nn.Module":
    """The text half of a model."""
    from torch import nn

    class TextModule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text = model.text_model
            self.projection = getattr(model, "text_projection", None)

        def forward(self, ids: "torch.Tensor", mask: "torch.Tensor | None") -> "torch.Tensor":
            pooled = self.text(input_ids=ids, attention_mask=mask).pooler_output
            return pooled if self.projection is None else cast("torch.Tensor", self.projection(pooled))

    return TextModule()
