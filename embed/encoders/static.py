"""Static models: a vector a token, averaged. No transformer runs, so that a CPU does thousands of texts a second."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embed.encoders.audit import audit_folder
from embed.encoders.base import Address, Encoder, HashFile, Resolved, Tokens, text_preprocessing
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import digest_files, is_local, read_json
from embed.encoders.options import check_options, number
from embed.encoders.prompts import REGISTER, document_prompt
from embed.encoders.weights import read_state, stored_weights
from embed.inputs.tokenizer import TOKENIZER_FILES, FastTokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

KIND = "StaticEmbedding"  # the module of sentence-transformers
STATIC = "static"  # in a spec's `extra`: whose way of averaging it is
OPTIONS = ("dim", "max_tokens", "normalize", "prompt", "prompt_name")
MOST_TOKENS = 65_536  # sentence-transformers knows no limit; this one no catalogue's text reaches
MODEL2VEC_TOKENS = 512
HARMLESS = {
    "config_sentence_transformers.json": "read for prompts",
    "special_tokens_map.json": "no special token enters",
    "vocab*": "tokenizer.json holds the vocabulary",
    "tokenizer_config.json": "tokenizer.json alone is read",
}


def is_model2vec(folder: Path) -> bool:
    """Whether a folder is one of model2vec alone."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") == "model2vec"


def resolve_static(
    address: Address,
    folder: Path,
    modules: Sequence[tuple[str, Path]],
    hash_file: HashFile,
    cut_to: int | None = None,
) -> list[Resolved]:
    """Read a model's folder.

    Args:
        modules: kind and folder of each where it is a sentence-transformers model; empty: one of model2vec.
        cut_to: what its own files say vectors are cut to.

    Raises:
        EncoderError: unknown options, files missing, or modules that static models do not have.
    """
    check_options(address, OPTIONS)
    if others := [kind for kind, _ in modules[1:] if kind != "Normalize"]:
        raise EncoderError(
            f"{address.name}: a static model followed by {', '.join(others)} is not known here"
        )
    first = modules[0][1] if modules else folder
    files = sorted(first.glob("*.safetensors")) or sorted(first.glob("pytorch_model.bin"))
    audit_folder(first, ("tokenizer.json", REGISTER), address.name, HARMLESS)
    config = _config(folder)
    normalizes = bool(modules[1:]) if modules else bool(config.get("normalize", False))
    own_limit = MOST_TOKENS if modules else config.get("max_length", MODEL2VEC_TOKENS) or MOST_TOKENS
    prompt = document_prompt(address, folder, config)
    own_dim = _dim(files, address)
    shape = vector_shape(address, folder, config, own_dim=own_dim, normalizes=normalizes, cut_to=cut_to)
    weights = [file.relative_to(folder).as_posix() for file in files]
    spec = EncoderSpec(
        name=address.name,
        modality="text",
        library="sentence-transformers",
        model="" if is_local(address) else address.model,
        weights_sha256=digest_files(folder, weights, hash_file),
        dim=shape.dim,
        preprocessing=text_preprocessing(
            tokenizer_sha256=tokenizer_sha256(first, hash_file),
            max_tokens=number(address, "max_tokens", 1) or own_limit,
            prompt=prompt.text,
        ),
        pooling="mean",
        normalize=shape.normalize,
        extra={
            STATIC: "sentence-transformers" if modules else "model2vec",
            "modules": digest([[kind, _config(path)] for kind, path in modules]),
            **shape.extra,
        },
    )
    n_parameters, _ = stored_weights(files)
    return [
        Resolved(
            address,
            spec,
            {"folder": str(folder), "weights": str(files[0]), "tokenizer": str(first / TOKENIZER_FILES[0])},
            version("sentence-transformers"),
            (f"prompt {prompt.origin}",),
            n_parameters,
        )
    ]


def load_static(resolved: Resolved) -> Encoder:
    """Load a static model.

    Raises:
        EncoderError: its files are damaged or of another model.
    """
    return cast(Encoder, StaticEncoder(resolved))


class StaticEncoder:
    """A static model behind the `TextModel` protocol."""

    def __init__(self, resolved: Resolved) -> None:
        from tokenizers import Tokenizer
        from torch import nn

        self.spec, self.pad_id = resolved.spec, 0
        try:
            backend = Tokenizer.from_file(resolved.files["tokenizer"])
            weights = _token_weights(Path(resolved.files["weights"]))
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise EncoderError(
                f"{resolved.spec.name}: {resolved.files['folder']} can't be loaded, its files are damaged or of another "
                f"model: {reason}"
            ) from error
        if len(weights) < backend.get_vocab_size():
            raise EncoderError(
                f"{resolved.spec.name}: {len(weights)} vectors for {backend.get_vocab_size()} tokens: the weights are of "
                "another model than the tokenizer"
            )
        self.module: torch.nn.Module = nn.EmbeddingBag.from_pretrained(weights, mode="sum", freeze=False)
        preprocessing = resolved.spec.preprocessing
        self._tokenizer = FastTokenizer(
            backend, preprocessing["max_tokens"], prompt=preprocessing["prompt"], special_tokens=False
        )
        self._unknown: int | None = None
        self._most_characters: int | None = None
        if resolved.spec.extra[STATIC] == "model2vec":  # as its `StaticModel.encode` does
            self._unknown = _unknown_token(backend)
            median = int(np.median([len(token) for token in backend.get_vocab()]))
            self._most_characters = preprocessing["max_tokens"] * median

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        tokens = self._tokenizer([text[: self._most_characters] for text in texts])
        if self._unknown is None:
            return tokens
        kept = [sequence[sequence != self._unknown] for sequence in tokens.sequences]
        return Tokens(kept, tokens.owner, tokens.n_truncated)

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        weights = mask.to(self.module.weight.dtype)  # type: ignore[arg-type]
        summed = self.module(ids, per_sample_weights=weights)
        return shaped(summed / weights.sum(dim=1, keepdim=True).clamp(min=1.0), self.spec)


def _token_weights(path: Path) -> "torch.Tensor":
    """One row a token id, float32."""
    tensors = read_state(path)
    if "embedding.weight" in tensors:
        return cast("torch.Tensor", tensors["embedding.weight"].float())
    rows = tensors["embeddings"].float()
    if "mapping" in tensors:
        rows = rows[tensors["mapping"].long()]
    if "weights" in tensors:
        rows = rows * tensors["weights"].float()[:, None]
    return cast("torch.Tensor", rows.contiguous())


def _config(path: Path) -> Any:
    return read_json(path / "config.json") if (path / "config.json").is_file() else {}


def _dim(files: Sequence[Path], address: Address) -> int:
    """Length of a token's vector, from the head of the file."""
    try:
        with files[0].open("rb") as opened:
            header: dict[str, Any] = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        table = header.get("embedding.weight") or header["embeddings"]
        return int(table["shape"][1])
    except (IndexError, KeyError, OSError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise EncoderError(
            f"{address.name}: {files[0] if files else 'model.safetensors'} is damaged or holds no table of token vectors: "
            "fetch it again"
        ) from error


def _unknown_token(backend: Any) -> int | None:
    described = json.loads(backend.to_str())["model"]
    if "unk_token" in described:
        return None if described["unk_token"] is None else backend.token_to_id(described["unk_token"])
    return cast("int | None", described.get("unk_id"))
