"""transformers models: texts by their hidden states, images and both towers, chat models by their messages."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embed.encoders.audit import audit_folder, check_versions
from embed.encoders.base import Address, Encoder, HashFile, Resolved, Sources, text_preprocessing
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import (
    digest_files,
    is_local,
    may_be_partial,
    model_folder,
    quiet_loading,
    read_json,
)
from embed.encoders.lengths import max_tokens
from embed.encoders.messages import MESSAGES, PROCESSOR_FILES, load_messages, resolve_messages, template_of
from embed.encoders.options import check_options, long_texts, one_of
from embed.encoders.pooling import OWN_POOLING, TWO_HALVES, own_pooling, text_pooling
from embed.encoders.prompts import REGISTER, document_prompt
from embed.encoders.quantize import loading_options, quantized
from embed.encoders.remote_code import REMOTE_CODE, remote_code
from embed.encoders.transformers_images import (
    IMAGE_MODELS,
    TOWER_CONFIG,
    TWO_TOWERS,
    load_towers,
    resolve_towers,
)
from embed.encoders.weights import lacking_tensors, stored_weights
from embed.inputs.tokenizer import TOKENIZER_FILES, FastTokenizer, load_tokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

PREFIX, DISTRIBUTION = "hf", "transformers"
ALIASES = {"bert-base": "google-bert/bert-base-uncased?pooling=cls&max_tokens=256"}
TOWERS = ("image", "text")  # of a model with two
FOLDER_FILE = "config.json"
OPTIONS = (
    "chat",
    "dim",
    "long",
    "max_patches",
    "max_tokens",
    "normalize",
    "pooling",
    "prompt",
    "prompt_name",
    "quantize",
    "task",
)
TEXT_OPTIONS = tuple(option for option in OPTIONS if option != "max_patches")
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
OLD_WEIGHTS = "pytorch_model.bin"  # loaded with weights_only=True
WANTED = (
    "config.json",
    *TOKENIZER_FILES,
    *PROCESSOR_FILES,
    REGISTER,
    "modules.json",
    OWN_POOLING,
    "*.py",
    WEIGHTS,
    SHARDS,
    "model-*-of-*.safetensors",
)
NOT_IN_VECTORS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
ADAPTERS_PER_TASK = ("jina_embeddings_v3",)
# What is of no use to a model that takes plain text.
TEXT_HARMLESS = {
    "preprocessor_config.json": "no image enters",
    "processor_config.json": "no image enters",
    "*.jinja": "plain text was asked for",
    "chat_template.json": "plain text was asked for",
    "sentence_*_config.json": "the hidden states alone are asked for",
}


def recognizes(folder: Path) -> int:
    """See `Library`."""
    return 0 if "architecture" in read_json(folder / FOLDER_FILE) else 1


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """Read a model's folder; imports neither torch nor the library where the model is of text alone.

    Raises:
        EncoderError: unknown options, files missing, or a model that can't be embedded with rightly; says why.
    """
    check_options(address, OPTIONS)
    folder = _folder(address, sources)
    config = read_json(folder / "config.json")
    check_versions(config, address.name)
    code = remote_code(address, folder, config, sources, hash_file)
    kind = config.get("model_type")
    if kind in TWO_TOWERS or kind in IMAGE_MODELS:
        return resolve_towers(address, folder, config, hash_file)
    if address.tower:
        raise EncoderError(f"{address.name}: the model has no towers: leave out .{address.tower}")
    _check_text(address, folder, config)
    if _takes_messages(address, folder, config):
        return [resolve_messages(address, folder, config, weight_files(folder), code, hash_file)]
    return [_resolve_text(address, folder, config, code, sources, hash_file)]


def _resolve_text(
    address: Address,
    folder: Path,
    config: dict[str, Any],
    code: dict[str, str],
    sources: Sources,
    hash_file: HashFile,
) -> Resolved:
    check_options(address, TEXT_OPTIONS)
    dim = config.get("hidden_size") or config.get("d_model") or config.get("dim") or config.get("n_embd")
    if not isinstance(dim, int):
        raise EncoderError(f"{folder / 'config.json'} states no hidden_size: it is not a text model")
    audit_folder(folder, (*TOKENIZER_FILES, REGISTER), address.name, TEXT_HARMLESS)
    pooling, pooling_origin = text_pooling(address, folder, config)
    prompt = document_prompt(address, folder, config, own_pooling(folder).get("include_prompt", True))
    shape = vector_shape(address, folder, config, own_dim=dim, normalizes=False)
    weights = weight_files(folder)
    adapter, files = _adapter(address, folder, config, hash_file), {"folder": str(folder)}
    spec = EncoderSpec(
        name=address.name,
        modality="text",
        library="transformers",
        # a folder may be moved or renamed: its weights say what it is, not its name
        model="" if is_local(address) else address.model,
        weights_sha256=digest_files(folder, weights, hash_file),
        dim=shape.dim,
        preprocessing=text_preprocessing(
            tokenizer_sha256=tokenizer_sha256(folder, hash_file),
            max_tokens=max_tokens(address, config, _tokenizers_limit(folder)),
            long=long_texts(address),
            prompt=prompt.text,
            prompt_is_pooled=prompt.is_pooled,
        ),
        pooling=pooling,
        normalize=shape.normalize,
        extra={
            "config": digest({k: v for k, v in config.items() if k not in NOT_IN_VECTORS}),
            **shape.extra,
            **adapter,
            **code,
            **quantized(address),
        },
    )
    n_parameters, stored_as = stored_weights([folder / name for name in weights])
    notes: tuple[str, ...] = (f"prompt {prompt.origin}", f"pooling {pooling_origin}")
    if sources.offline and may_be_partial(folder) and not (folder / OWN_POOLING).is_file():
        notes += (
            f"{OWN_POOLING} is not in the hub's cache: if the model has one, run once without --offline",
        )
    return Resolved(address, spec, files, version(DISTRIBUTION), notes, n_parameters, stored_as)


def weights_on_hub(address: Address) -> tuple[str, tuple[str, ...]]:
    """See `Library`."""
    return address.model, (WEIGHTS, "model-*-of-*.safetensors", OLD_WEIGHTS)


def load(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load the model of a folder.

    Raises:
        EncoderError: the weights are damaged or belong to another model, or the tokenizer can't be loaded.
    """
    if TOWER_CONFIG in resolved[0].spec.extra:
        return load_towers(resolved)
    return [
        load_messages(one) if MESSAGES in one.spec.preprocessing else cast(Encoder, HiddenStates(one))
        for one in resolved
    ]


class HiddenStates:
    """One transformers model of texts behind the `TextModel` protocol."""

    def __init__(self, resolved: Resolved) -> None:
        self.spec = resolved.spec
        folder, trusts = resolved.files["folder"], REMOTE_CODE in resolved.spec.extra
        self.module = load_text_model(resolved)
        preprocessing = resolved.spec.preprocessing
        tokenizer = load_tokenizer(folder, trust_remote_code=trusts)
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self.tokenize = FastTokenizer(
            tokenizer.backend_tokenizer,
            preprocessing["max_tokens"],
            preprocessing["long"],
            preprocessing["prompt"],
        )
        self.tokenize.check_same_as(tokenizer, resolved.spec.name)
        self._unpooled = 0 if preprocessing.get("prompt_is_pooled", True) else self.tokenize.prompt_tokens

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        hidden = self.module(input_ids=ids, attention_mask=mask).last_hidden_state
        return shaped(pool(hidden, mask, self.spec.pooling, self._unpooled), self.spec)


def pool(hidden: "torch.Tensor", mask: "torch.Tensor", pooling: str, unpooled: int = 0) -> "torch.Tensor":
    """Hidden states -> vectors of shape (n_rows, dim).

    Args:
        hidden: shape (n_rows, n_tokens, dim), padded on the right.
        unpooled: first tokens that are left out of the mean.
    """
    import torch

    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.sum(dim=1) - 1]
    weights = mask.unsqueeze(-1).to(torch.float32)
    if unpooled:
        weights = weights * (torch.arange(mask.shape[1], device=mask.device) >= unpooled)[None, :, None]
    return (hidden.to(torch.float32) * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def load_text_model(resolved: Resolved) -> "torch.nn.Module":
    """A text model on the CPU; of one with encoder and decoder the encoder.

    Raises:
        EncoderError: the weights are damaged or belong to another model.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    folder, name = Path(resolved.files["folder"]), resolved.spec.name
    options: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": REMOTE_CODE in resolved.spec.extra,
    }
    loading = loading_options(resolved)
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(folder, **options)
            two_halves = config.is_encoder_decoder or config.model_type in TWO_HALVES
            kind = AutoModelForTextEncoding if two_halves else AutoModel
            module, report = kind.from_pretrained(
                folder, config=config, weights_only=True, output_loading_info=True, **loading, **options
            )
            if task := resolved.spec.extra.get("task"):
                module = _with_adapter(module, folder / task["name"])
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
    return cast("torch.nn.Module", module.eval())


# ---- what a model is, and how it is used ---------------------------------------------------------


def _takes_messages(address: Address, folder: Path, config: dict[str, Any]) -> bool:
    """Whether inputs are written by a chat template; refuses to guess where a template would be passed over."""
    if isinstance(config.get("vision_config"), dict):
        if address.options.get("chat") == "no":
            raise EncoderError(
                f"{address.name}: a model of images and texts takes both as messages: leave out chat=no"
            )
        return True
    if template_of(folder) is None:
        if address.options.get("chat") == "yes":
            raise EncoderError(f"{address.name}: {folder} holds no chat template")
        return False
    says_how = (folder / "modules.json").is_file()
    if not says_how and "chat" not in address.options:
        raise EncoderError(
            f"{address.name}: the model has a chat template, and none of its files says whether texts go through it: "
            "write chat=no for plain text, as most embedding models want it, or chat=yes"
        )
    return one_of(address, "chat", ("yes", "no"), default="no") == "yes"


def _check_text(address: Address, folder: Path, config: dict[str, Any]) -> None:
    """Raises EncoderError where the model is none of texts, or tokens are lacking."""
    if config.get("model_type") == "model2vec":
        raise EncoderError(f"{address.name}: a static model: write st:{address.model}")
    try:
        tokenizer_sha256(folder, lambda path: "")
    except EncoderError as error:
        if (folder / "preprocessor_config.json").is_file():
            raise EncoderError(
                f"{address.name}: models of kind {config.get('model_type')!r} are not supported as image encoders, only "
                f"{', '.join((*IMAGE_MODELS, *TWO_TOWERS))}; timm and open_clip know others"
            ) from error
        raise EncoderError(f"{address.name}: {folder} lacks tokenizer.json: complete the folder") from error


def _adapter(address: Address, folder: Path, config: dict[str, Any], hash_file: HashFile) -> dict[str, Any]:
    """What a spec's `extra` holds of the adapter for a task; empty where the model has none.

    Raises:
        EncoderError: the model has adapters and none is named, or not one that is there.
    """
    tasks = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    task = address.options.get("task")
    if task is None and (tasks or config.get("model_type") in ADAPTERS_PER_TASK):
        raise EncoderError(
            f"{address.name}: the model has an adapter for each task, and its vectors differ by task: write task="
            f"{'|'.join(tasks) or 'NAME, the folder of one'}, or task=none for the model without"
        )
    if task in (None, "none"):
        return {}
    if task not in tasks:
        raise EncoderError(
            f"{address.name}: no adapter for task {task!r}, one of {', '.join(tasks) or 'none'}"
        )
    names = [
        f"{task}/adapter_config.json",
        *(f"{task}/{p.name}" for p in (folder / str(task)).glob("adapter_model.*")),
    ]
    return {"task": {"name": task, "adapter": digest_files(folder, names, hash_file)}}


def _with_adapter(module: Any, folder: Path) -> Any:
    try:
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    except ImportError as error:
        raise EncoderError("task= needs peft: pip install 'shelfprice[finetune]'") from error
    adapted = PeftModel.from_pretrained(module, str(folder), local_files_only=True)
    # peft leaves out what does not fit, and says so in a warning alone.
    held, wanted = set(load_peft_weights(str(folder), device="cpu")), set(get_peft_model_state_dict(adapted))
    if other := sorted(held ^ wanted):
        raise EncoderError(
            f"the adapter in {folder} is of another model: {len(wanted - held)} of its {len(wanted)} tensors are missing, "
            f"{len(held - wanted)} are not the model's (first: {other[0]}): replace it with one that was trained on this model"
        )
    return adapted.merge_and_unload()


# ---- the folder ----------------------------------------------------------------------------------


def _folder(address: Address, sources: Sources) -> Path:
    task = address.options.get("task")
    wanted = (*WANTED, f"{task}/*") if task else WANTED
    try:
        return model_folder(address, sources, wanted=wanted, complete=_lacking)
    except EncoderError:
        if sources.offline or is_local(address):
            raise
        without_tensors = [name for name in wanted if not name.endswith(".safetensors")]
        return model_folder(address, sources, wanted=(*without_tensors, OLD_WEIGHTS), complete=_lacking)


def _lacking(folder: Path) -> list[str]:
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    if not (folder / "preprocessor_config.json").is_file():  # a model of images may have no tokenizer
        try:
            tokenizer_sha256(folder, lambda path: "")
        except EncoderError:
            lacking.append("tokenizer.json")
    weights = weight_files(folder)
    missing = [name for name in weights if not (folder / name).is_file()]
    return lacking + (missing if weights else [WEIGHTS])


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold, or should hold, the weights; none where there is no sign of any."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / SHARDS).is_file():
        index = read_json(folder / SHARDS)
        return sorted(set(index.get("weight_map", {}).values()))
    return [OLD_WEIGHTS] if (folder / OLD_WEIGHTS).is_file() else []


def _tokenizers_limit(folder: Path) -> Any:
    path = folder / "tokenizer_config.json"
    return read_json(path).get("model_max_length") if path.is_file() else None
