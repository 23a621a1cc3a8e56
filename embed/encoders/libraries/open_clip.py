"""open_clip models: two towers, two encoders, one load. Activation, preprocessing and weights stay together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embed.encoders.audit import audit_folder
from embed.encoders.base import (
    Address,
    Encoder,
    HashFile,
    Resolved,
    Sources,
    text_preprocessing,
)
from embed.encoders.dimensions import vector_shape
from embed.encoders.hub import is_local, local_path, model_folder
from embed.encoders.open_clip_architecture import (
    WEIGHTS,
    folder_architecture,
    preprocessing_of,
    tag_architecture,
)
from embed.encoders.options import check_options, long_texts
from embed.encoders.weights import stored_weights
from embed.inputs.tokenizer import TOKENIZER_FILES, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

PREFIX = "open_clip"
DISTRIBUTION = "open_clip_torch"
ALIASES = {"clip-vit-l14": "ViT-L-14/openai", "clip-vit-h14": "ViT-H-14/laion2b_s32b_b79k"}
TOWERS = ("image", "text")
FOLDER_FILE = CONFIG = "open_clip_config.json"
HUB = "hf-hub:"  # as open_clip itself writes a repository that brings its own configuration
OPTIONS = ("dim", "long", "normalize", "weights")
# What a repository may hold for other libraries, and why it changes no vector of open_clip's.
OF_OTHERS = {
    "preprocessor_config.json": "transformers' form of what open_clip_config.json says",
    "processor_config.json": "of transformers",
    "*.jinja": "no message enters",
}
CONTEXT_LENGTH = 77  # the library's, where a configuration says nothing


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """Find a model's weights, tokenizer and preprocessing together.

    Returns:
        The tower that the address names, or both.

    Raises:
        EncoderError: unknown architecture or tag (nearest names offered), files missing, preprocessing not stated.
    """
    check_options(address, OPTIONS)
    long_texts(address)
    folder: Path | None
    if is_local(address) or address.model.startswith(HUB):
        folder = _own_folder(address, sources)
        audit_folder(folder, (CONFIG, *TOKENIZER_FILES), address.name, OF_OTHERS)
        weights = _given_weights(address) or folder / (_weights_in(folder, WEIGHTS) or "")
        config = folder / CONFIG
        files = {"weights": str(weights), "config": str(config)}
        architecture = folder_architecture(config, address)
    else:
        folder = None
        architecture, repo, names = tag_architecture(address)
        files = {"weights": str(_tag_weights(address, sources, repo, names))}
    weights_sha256 = hash_file(Path(files["weights"]))
    n_parameters, _ = stored_weights([Path(files["weights"])])
    shape = vector_shape(address, folder, {}, own_dim=architecture.config["embed_dim"], normalizes=False)
    found = []
    for tower in (address.tower,) if address.tower else ("image", "text"):
        named = address.of_tower(tower)
        if tower == "image":
            preprocessing = preprocessing_of(architecture)
        else:
            own, preprocessing = _text_inputs(
                named, architecture.config["text_cfg"], folder, sources, hash_file
            )
            files = {**files, **own}
        spec = EncoderSpec(
            name=named.name,
            modality="image" if tower == "image" else "text",
            library="open_clip",
            model="" if is_local(address) else address.model,
            weights_sha256=weights_sha256,
            dim=shape.dim,
            preprocessing=preprocessing,
            pooling="projection",
            normalize=shape.normalize,
            extra={"architecture": digest(architecture.config), **shape.extra},
        )
        library_version = version("open_clip_torch")
        found.append(Resolved(named, spec, files, library_version, (), n_parameters))
    return found


def weights_on_hub(address: Address) -> tuple[str, tuple[str, ...]]:
    """See `Library`."""
    if address.model.startswith(HUB):
        return address.model.removeprefix(HUB), WEIGHTS
    _, repo, names = tag_architecture(address)
    return repo, names


def load(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load one model and give its towers.

    Raises:
        EncoderError: the weights are damaged or of another model, or the tokenizer can't be loaded.
    """
    from embed.encoders.open_clip_towers import load_towers

    first = resolved[0]
    if "config" in first.files:
        architecture = folder_architecture(Path(first.files["config"]), first.address)
    else:
        architecture, _, _ = tag_architecture(first.address)
    return load_towers(resolved, architecture.config)


def _own_folder(address: Address, sources: Sources) -> Path:
    """A local folder, or a hub repository that brings its own configuration."""

    def lacking(folder: Path) -> list[str]:
        config = [] if (folder / CONFIG).is_file() else [CONFIG]
        has_weights = "weights" in address.options or _weights_in(folder, WEIGHTS)
        return config if has_weights else [*config, WEIGHTS[0]]

    repo = address.model.removeprefix(HUB)
    return _folder_with(address, repo, sources, WEIGHTS, (CONFIG, *TOKENIZER_FILES), lacking)


def _given_weights(address: Address) -> Path | None:
    """The checkpoint that the option `weights` puts in place of a model's own."""
    if "weights" not in address.options:
        return None
    path = local_path(address.options["weights"])
    if not path.is_file():
        raise EncoderError(f"{address.name}: there is no file {path}: check weights=")
    return path.resolve()


def _tag_weights(address: Address, sources: Sources, repo: str, names: tuple[str, ...]) -> Path:
    if given := _given_weights(address):
        return given

    def lacking(folder: Path) -> list[str]:
        return [] if _weights_in(folder, names) else [names[0]]

    folder = _folder_with(address, repo, sources, names, (), lacking)
    return folder / (_weights_in(folder, names) or names[0])


def _folder_with(
    address: Address,
    repo: str,
    sources: Sources,
    names: Sequence[str],
    others: Sequence[str],
    lacking: Callable[[Path], list[str]],
) -> Path:
    """A folder with weights of one of `names`; the hub is asked for the first, then for the others."""
    there = replace(address, model=repo)
    try:
        return model_folder(there, sources, wanted=(names[0], *others), complete=lacking)
    except EncoderError:
        if sources.offline or is_local(there):
            raise
        return model_folder(there, sources, wanted=(*names[1:], *others), complete=lacking)


def _weights_in(folder: Path, names: Sequence[str]) -> str | None:
    return next((name for name in names if (folder / name).is_file()), None)


def _text_inputs(
    address: Address,
    config: dict[str, Any],
    folder: Path | None,
    sources: Sources,
    hash_file: HashFile,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Files of the text tower besides its weights, and its `spec.preprocessing`."""
    files, options = {}, config.get("tokenizer_kwargs") or {}
    identity: dict[str, Any] = {"options": options}
    if config.get("tokenizer_mode") or options.get("reduction_mask"):
        raise EncoderError(f"{address.name}: its tokenizer is not supported: use its .image tower alone")
    if name := config.get("hf_tokenizer_name"):
        where = folder if folder is not None and not _no_tokenizer(folder) else None
        where = where or model_folder(
            replace(address, model=name), sources, wanted=TOKENIZER_FILES, complete=_no_tokenizer
        )
        files["tokenizer"] = str(where)
        identity["files"] = tokenizer_sha256(where, hash_file)
    else:
        from open_clip.tokenizer import default_bpe

        identity["files"] = hash_file(Path(default_bpe()))
    if name := config.get("hf_model_name"):
        found = model_folder(
            replace(address, model=name), sources, wanted=("config.json",), complete=_no_config
        )
        files["text_config"] = str(found / "config.json")
        identity["model"] = hash_file(found / "config.json")  # heads and activation show in no tensor
    return files, text_preprocessing(
        tokenizer_sha256=digest(identity, characters=64),
        max_tokens=config.get("context_length", CONTEXT_LENGTH),
        long=address.options.get("long", "truncate"),
    )


def _no_tokenizer(folder: Path) -> list[str]:
    try:
        tokenizer_sha256(folder, lambda path: "")
    except EncoderError:
        return ["tokenizer.json"]
    return []


def _no_config(folder: Path) -> list[str]:
    return [] if (folder / "config.json").is_file() else ["config.json"]
