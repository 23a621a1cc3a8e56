"""Any transformers text model by its hidden states, pooled by mean or by the first token."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embed.encoders.base import Address, Encoder, HashFile, Resolved, Sources, Tokens, text_preprocessing
from embed.encoders.hub import digest_files, model_folder, quiet_loading, read_json
from embed.encoders.lengths import max_tokens
from embed.inputs.tokenizer import TOKENIZER_FILES, FastTokenizer, load_tokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

PREFIX, DISTRIBUTION = "hf", "transformers"
ALIASES = {"bert-base": "google-bert/bert-base-uncased?pooling=cls&max_tokens=256"}
FOLDER_FILE = "config.json"
POOLING = ("mean", "cls", "last")
OPTIONS = ("long", "max_tokens", "pooling", "prompt")
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
OLD_WEIGHTS = "pytorch_model.bin"  # loaded with weights_only=True
WANTED = ("config.json", *TOKENIZER_FILES, WEIGHTS, SHARDS, "model-*-of-*.safetensors")
NOT_IN_VECTORS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
TWO_HALVES = ("t5", "mt5", "umt5", "t5gemma")  # of which the encoder alone is taken


def recognizes(folder: Path) -> int:
    """See `Library`."""
    return 0 if "architecture" in read_json(folder / FOLDER_FILE) else 1


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """Read a model's folder; imports neither torch nor the library.

    Raises:
        EncoderError: unknown options, files missing, or a model that takes no text.
    """
    if unknown := sorted(set(address.options) - set(OPTIONS)):
        raise EncoderError(f"{address.name}: unknown option {unknown[0]!r}, one of {', '.join(OPTIONS)}")
    pooling = _one_of(address, "pooling", POOLING)
    folder = _folder(address, sources)
    config = read_json(folder / "config.json")
    dim = config.get("hidden_size") or config.get("d_model") or config.get("dim")
    if not isinstance(dim, int):
        raise EncoderError(f"{folder / 'config.json'} states no hidden_size: it is not a text model")
    weights = _weight_files(folder)
    spec = EncoderSpec(
        name=address.name,
        modality="text",
        library="transformers",
        # a folder may be moved or renamed: its weights say what it is, not its name
        model="" if _is_folder(address) else address.model,
        weights_sha256=digest_files(folder, weights, hash_file),
        dim=dim,
        preprocessing=text_preprocessing(
            tokenizer_sha256=tokenizer_sha256(folder, hash_file),
            max_tokens=max_tokens(address, config, _tokenizers_limit(folder)),
            long=_one_of(address, "long", ("truncate", "chunks")),
            prompt=address.options.get("prompt", ""),
        ),
        pooling=pooling,
        normalize=False,
        extra={"config": digest({k: v for k, v in config.items() if k not in NOT_IN_VECTORS})},
    )
    return [Resolved(address, spec, {"folder": str(folder)}, version("transformers"))]


def load(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load the model of a folder.

    Raises:
        EncoderError: the weights are damaged or belong to another model, or the tokenizer can't be loaded.
    """
    return [cast(Encoder, HiddenStates(one)) for one in resolved]


class HiddenStates:
    """One transformers model behind the `TextEncoder` protocol."""

    def __init__(self, resolved: Resolved) -> None:
        self.spec = resolved.spec
        self.module = load_text_model(Path(resolved.files["folder"]), resolved.spec.name)
        preprocessing = resolved.spec.preprocessing
        tokenizer = load_tokenizer(resolved.files["folder"])
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self._tokenizer = FastTokenizer(
            tokenizer.backend_tokenizer,
            preprocessing["max_tokens"],
            preprocessing["long"],
            preprocessing["prompt"],
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        return self._tokenizer(texts)

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        hidden = self.module(input_ids=ids, attention_mask=mask).last_hidden_state
        return pool(hidden, mask, self.spec.pooling)


def pool(hidden: "torch.Tensor", mask: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """Hidden states of shape (n_rows, n_tokens, dim), padded on the right -> vectors of shape (n_rows, dim)."""
    import torch

    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
    weights = mask.unsqueeze(-1).to(torch.float32)
    return (hidden.to(torch.float32) * weights).sum(dim=1) / weights.sum(dim=1)


def load_text_model(folder: Path, name: str) -> "torch.nn.Module":
    """A text model in fp32; of one with encoder and decoder the encoder.

    Raises:
        EncoderError: the weights are damaged or belong to another model.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(folder, **options)
            two_halves = config.is_encoder_decoder or config.model_type in TWO_HALVES
            kind = AutoModelForTextEncoding if two_halves else AutoModel
            module, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                weights_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(
            f"{name}: {folder} can't be loaded, its weights are damaged or of another model: {reason}"
        ) from error
    lacking = sorted(key for key in report["missing_keys"] if "pooler" not in key)  # which is not used
    if lacking:
        raise EncoderError(
            f"{name}: the weights in {folder} are of another model, they lack {len(lacking)} tensors "
            f"(first: {lacking[0]}): replace the folder with the whole model"
        )
    return cast("torch.nn.Module", module.eval())


def _is_folder(address: Address) -> bool:
    return Path(address.model).expanduser().is_dir()


def _folder(address: Address, sources: Sources) -> Path:
    try:
        return model_folder(address, sources, wanted=WANTED, complete=_lacking)
    except EncoderError:
        if sources.offline or _is_folder(address):
            raise
        without_tensors = [name for name in WANTED if not name.endswith(".safetensors")]
        return model_folder(address, sources, wanted=(*without_tensors, OLD_WEIGHTS), complete=_lacking)


def _lacking(folder: Path) -> list[str]:
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    try:
        tokenizer_sha256(folder, lambda path: "")
    except EncoderError:
        lacking.append("tokenizer.json")
    weights = _weight_files(folder)
    missing = [name for name in weights if not (folder / name).is_file()]
    return lacking + (missing if weights else [WEIGHTS])


def _weight_files(folder: Path) -> list[str]:
    """Names of the files that hold, or should hold, the weights; none where there is no sign of any."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / SHARDS).is_file():
        index = read_json(folder / SHARDS)
        return sorted(set(index.get("weight_map", {}).values()))
    return [OLD_WEIGHTS] if (folder / OLD_WEIGHTS).is_file() else []


def _one_of(address: Address, option: str, known: tuple[str, ...]) -> str:
    value = address.options.get(option, known[0])
    if value not in known:
        raise EncoderError(f"{address.name}: {option} must be one of {', '.join(known)}, got {value!r}")
    return value


def _tokenizers_limit(folder: Path) -> Any:
    path = folder / "tokenizer_config.json"
    return read_json(path).get("model_max_length") if path.is_file() else None
