"""A sentence-transformers model's folder: its modules, what they take and give, and which of them can't be run here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

from embed.encoders.base import Address, HashFile, Sources
from embed.encoders.hub import read_json
from embed.encoders.pooling import pooling_mode
from embed.encoders.prompts import REGISTER, document_prompt
from embed.encoders.remote_code import needed_code, remote_code
from embed.encoders.static import KIND
from store.errors import EncoderError

OWN_MODULES = "sentence_transformers."
MODEL_TYPE = "SentenceTransformer"
AT_THE_END = (
    "Normalize",
    "Dropout",
)  # kinds that leave the direction of a vector as it is, where nothing follows
OTHER_MODULES = re.compile(
    r"sparse_encoder|cross_encoder|multi_vector"
)  # in names of modules of other kinds of models
CONFIGS = ("config.json", "sentence_bert_config.json")
# Other names of `sentence_bert_config.json`, as the library looks for them.
OLD_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class SentenceModel:
    """A model's folder, read."""

    folder: Path
    modules: tuple[tuple[str, Path], ...]  # kind and folder of each, in order
    settings: dict[str, Any]  # `config_sentence_transformers.json`

    @classmethod
    def read(cls, folder: Path) -> "SentenceModel":
        modules = tuple(
            (module["type"].rpartition(".")[2], folder / module["path"]) for module in read_modules(folder)
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
        return next(
            (module_config(path)["config.json"] for kind, path in self.modules if kind == "Pooling"), {}
        )

    @property
    def normalizes(self) -> bool:
        """Whether the last step brings vectors to unit length."""
        return "Normalize" in self._last_kinds

    @property
    def scales_inside(self) -> bool:
        """Whether vectors are brought to unit length before another step."""
        kinds = [kind for kind, _ in self.modules]
        return "Normalize" in kinds[: len(kinds) - len(self._last_kinds)]

    @property
    def _last_kinds(self) -> list[str]:
        kinds = [kind for kind, _ in reversed(self.modules)]
        return list(takewhile(lambda kind: kind in AT_THE_END, kinds))

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
        return [file for _, path in self.modules for file in weights_in(path)]


def read_modules(folder: Path) -> list[dict[str, Any]]:
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
    made_as = model.settings.get("model_type") or MODEL_TYPE
    other = next((kind for kind in kinds if OTHER_MODULES.search(kind)), None)
    if made_as != MODEL_TYPE or other is not None:
        raise EncoderError(
            f"{address.name}: the model is a {made_as if made_as != MODEL_TYPE else other}, which makes no dense vector of a "
            "text: use a SentenceTransformer model"
        )
    gives = model.inputs.get("module_output_name")
    are_own = all(kind.startswith(OWN_MODULES) for kind in kinds)
    pools = gives == "sentence_embedding" or any(kind.endswith(".Pooling") for kind in kinds)
    if are_own and kinds[0].endswith(".Transformer") and model.takes == "text" and not pools:
        raise EncoderError(
            f"{address.name}: modules.json lists no Pooling, so that nothing makes one vector of a text's tokens: write "
            f"hf:{address.model}, which pools them"
        )


def check_modules(
    address: Address, model: SentenceModel, sources: Sources, hash_file: HashFile
) -> dict[str, str]:
    """Refuse modules that can't be run as their authors do; what the spec holds of code that comes with the model."""
    kinds = [str(module["type"]) for module in read_modules(model.folder)]
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


def check_towers(address: Address, model: SentenceModel) -> None:
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


def weights_in(path: Path) -> list[Path]:
    return list(path.glob("*.safetensors")) or list(path.glob("pytorch_model*.bin"))


def module_config(path: Path) -> Any:
    return {name: read_json(path / name) for name in (*CONFIGS, *OLD_CONFIGS) if (path / name).is_file()}


def own_dim(model: SentenceModel) -> int:
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
    return int(hidden) * len(pooling_mode(model.pooling).split("+"))


def own_limit(model: SentenceModel) -> Any:
    own = model.inputs.get("max_seq_length") or model.inputs.get("document_length")
    if own is None and (model.first / "tokenizer_config.json").is_file():
        own = read_json(model.first / "tokenizer_config.json").get("model_max_length")
    return own
