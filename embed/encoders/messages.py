"""Models that take chat messages: a text, an image, or both in one vector, written by the model's own template."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    text_preprocessing,
)
from embed.encoders.dimensions import shaped, vector_shape
from embed.encoders.hub import digest_files, is_local, quiet_loading, read_json
from embed.encoders.lengths import max_tokens
from embed.encoders.options import check_options, one_of
from embed.encoders.pooling import text_pooling
from embed.encoders.prompts import REGISTER, document_prompt
from embed.encoders.quantize import loading_options, quantized
from embed.encoders.remote_code import REMOTE_CODE
from embed.encoders.weights import lacking_tensors, loading_reports, stored_weights
from embed.inputs import InputFailure
from embed.inputs.tokenizer import TOKENIZER_FILES, FastTokenizer, tokenizer_sha256
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec, digest

if TYPE_CHECKING:
    import torch

MESSAGES = "messages_sha256"  # in a spec's `preprocessing`: digest over template and processors
TEMPLATES = ("chat_template.jinja", "chat_template.json")
PROCESSOR_FILES = (*TEMPLATES, "preprocessor_config.json", "processor_config.json")
POOLING = {"last": "lasttoken", "mean": "mean"}
OPTIONS = ("chat", "dim", "max_tokens", "normalize", "pooling", "prompt", "prompt_name", "quantize")
SEQUENCES = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")  # an entry a token
NOT_INPUTS = ("modality", "prompt_length", "num_images_per_sample", "num_videos_per_sample")
MARKERS = ("image_token", "video_token", "audio_token")  # a processor's own marks, which no text may hold
PROBE_PIXELS = 64


def processor_files(folder: Path) -> list[str]:
    """Names of the files that decide how messages are written and images prepared."""
    return [name for name in PROCESSOR_FILES if (folder / name).is_file()]


def template_of(folder: Path) -> str | None:
    """Name of the file that holds a chat template; None where there is none."""
    for name in TEMPLATES:
        if (folder / name).is_file():
            return name
    for name in ("processor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and read_json(folder / name).get("chat_template"):
            return name
    return None


def message_preprocessing(
    address: Address, folder: Path, processors: Sequence[str], hash_file: HashFile
) -> dict[str, Any]:
    """What `spec.preprocessing` holds besides tokens.

    Raises:
        EncoderError: there is no template, or an option that makes no sense for messages.
    """
    if template_of(folder) is None:
        raise EncoderError(
            f"{address.name}: {folder} lacks {TEMPLATES[0]}, by which messages are written: complete it"
        )
    if address.options.get("long", "truncate") != "truncate":
        raise EncoderError(f"{address.name}: a message can't be cut into chunks: leave out long")
    return {
        PREPARED_BY: "sentence-transformers",
        MESSAGES: digest_files(folder, list(processors), hash_file) if processors else "",
    }


def resolve_messages(
    address: Address,
    folder: Path,
    config: dict[str, Any],
    weights: Sequence[str],
    code: dict[str, str],
    hash_file: HashFile,
) -> Resolved:
    """A transformers model whose files say nothing of embedding: messages, pooled by the last token of a decoder.

    Raises:
        EncoderError: no template, no processor, or an option that makes no sense here.
    """
    check_options(address, OPTIONS)
    processors = processor_files(folder)
    audit_folder(folder, (*TOKENIZER_FILES, *PROCESSOR_FILES, REGISTER, "modules.json"), address.name, BESIDE)
    text = config.get("text_config") or config
    pooling, pooling_origin = text_pooling(address, folder, config)
    if pooling not in POOLING:
        one_of(address, "pooling", tuple(POOLING))
    prompt = document_prompt(address, folder, config)
    dim = text.get("hidden_size")
    if not isinstance(dim, int):
        raise EncoderError(
            f"{folder / 'config.json'} has no text_config.hidden_size: models of this kind are not supported"
        )
    shape = vector_shape(address, folder, config, own_dim=dim, normalizes=False)
    limits = folder / "tokenizer_config.json"
    own_limit = read_json(limits).get("model_max_length") if limits.is_file() else None
    spec = EncoderSpec(
        name=address.name,
        modality="joint" if isinstance(config.get("vision_config"), dict) else "text",
        library="transformers",
        model="" if is_local(address) else address.model,
        weights_sha256=digest_files(folder, weights, hash_file),
        dim=shape.dim,
        preprocessing={
            **text_preprocessing(
                tokenizer_sha256=tokenizer_sha256(folder, hash_file),
                max_tokens=max_tokens(address, text, own_limit),
                prompt=prompt.text,
            ),
            **message_preprocessing(address, folder, processors, hash_file),
        },
        pooling=pooling,
        normalize=shape.normalize,
        extra={"config": digest(config), **shape.extra, **code, **quantized(address)},
    )
    n_parameters, stored_as = stored_weights([folder / name for name in weights])
    notes = (f"prompt {prompt.origin}", f"pooling {pooling_origin}")
    files = {"folder": str(folder)}
    return Resolved(address, spec, files, version("transformers"), notes, n_parameters, stored_as)


BESIDE = {"sentence_*_config.json": "the hidden states alone are asked for"}


def load_plain(resolved: Resolved) -> Any:
    """A transformers model with its processor and our pooling, as sentence-transformers runs it.

    Raises:
        EncoderError: the weights are damaged or belong to another model, or the processor can't be loaded.
    """
    folder, name = resolved.files["folder"], resolved.spec.name
    options = {"local_files_only": True, "trust_remote_code": REMOTE_CODE in resolved.spec.extra}
    try:
        with quiet_loading(), loading_reports() as reports:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

            transformer = Transformer(
                folder,
                model_kwargs={**options, "weights_only": True, **loading_options(resolved)},
                processor_kwargs=dict(options),
                config_kwargs=dict(options),
            )
            width = transformer.get_embedding_dimension()
            pooling = Pooling(width, POOLING[resolved.spec.pooling])
            model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise EncoderError(f"{name}: {folder} can't be loaded: {reason}") from error
    if lacking := lacking_tensors(reports):
        raise EncoderError(
            f"{name}: the weights in {folder} are of another model, they lack {len(lacking)} tensors "
            f"(first: {lacking[0]}): replace the folder with the whole model"
        )
    return model.eval()


def load_messages(resolved: Resolved, model: Any = None) -> Encoder:
    """An encoder of messages.

    Args:
        model: of sentence-transformers, loaded; None: the folder is a transformers model.

    Raises:
        EncoderError: it can't be loaded.
    """
    encoder: Any = MessageEncoder(resolved, load_plain(resolved) if model is None else model)
    return encoder


class MessageEncoder:
    """A model of messages behind the `ItemModel` protocol.

    The library prepares each row alone. What it gives per token is padded at the end; what it gives per image or
    patch is kept apart by row, so that a batch can be halved, and put together again for the forward pass.
    """

    def __init__(self, resolved: Resolved, model: Any) -> None:
        self.spec = resolved.spec
        self.module: torch.nn.Module = model
        preprocessing = resolved.spec.preprocessing
        self._max_tokens = preprocessing["max_tokens"]
        self._prompt = preprocessing["prompt"] or None
        model.max_seq_length = self._max_tokens
        if "message" not in model.modalities:
            raise EncoderError(
                f"{self.spec.name}: the installed sentence-transformers {version('sentence-transformers')} would not apply "
                f"the model's chat template (it takes {', '.join(map(str, model.modalities))}): run "
                "'pip install -U sentence-transformers'"
            )
        tokenizer = model.tokenizer
        self._bound = FastTokenizer(tokenizer.backend_tokenizer, self._max_tokens)
        self._markers = [
            m for key in MARKERS if isinstance(m := getattr(model.processor, key, None), str) and m
        ]
        probe: dict[str, Any] = {"text": "x"}
        if self.spec.modality == "joint":
            probe = {"image": _as_pillow(np.full((PROBE_PIXELS, PROBE_PIXELS, 3), 127, np.uint8)), **probe}
        try:
            found = self._features(probe)
        except ValueError as error:
            raise EncoderError(
                f"{self.spec.name}: {self._max_tokens} tokens can't hold a message with one small image "
                f"({error}): give a larger max_tokens, or leave it out"
            ) from error
        self._names = [name for name in SEQUENCES if name in found]
        self._names += sorted(found.keys() - set(self._names))
        self._empty = {name: found[name][:0] for name in self._names}
        self.fills = tuple(
            int(tokenizer.pad_token_id or 0) if name == "input_ids" else 0 for name in self._names
        )

    def prepare(self, content: RowContent) -> Item | InputFailure:
        row: dict[str, Any] = {}
        if content.image is not None:
            row["image"] = _as_pillow(content.image)
        if content.text is not None:
            text = self._bound.shortened(content.text)
            if marker := next((marker for marker in self._markers if marker in text), None):
                return InputFailure(
                    "encode", f"the text holds {marker!r}, which stands for an image or video here"
                )
            row["text"] = text
        try:
            found = self._features(row)
        except Exception as error:  # noqa: BLE001 - processors raise many kinds over odd images
            return InputFailure("encode", " ".join(str(error).split())[:200] or type(error).__name__)
        arrays = tuple(found.get(name, self._empty[name]) for name in self._names)
        return Item(arrays, len(arrays[0]) >= self._max_tokens)

    def forward(self, *arrays: "torch.Tensor") -> "torch.Tensor":
        import torch

        features: dict[str, Any] = {"modality": "message"}
        lengths = arrays[-1]
        for at, (name, array) in enumerate(zip(self._names, arrays[:-1], strict=True)):
            if name in SEQUENCES:
                features[name] = array
            elif int(lengths[:, at].max()):
                kept = torch.arange(array.shape[1], device=array.device)[None] < lengths[:, at, None]
                features[name] = array[kept]
        return shaped(self.module(features)["sentence_embedding"], self.spec)

    def _features(self, row: dict[str, Any]) -> dict[str, np.ndarray]:
        """What the library makes of one row: per token (n_tokens,), else (n_images or n_patches, ...)."""
        model: Any = self.module
        found = model.preprocess([row], prompt=self._prompt, task="document")
        arrays = {name: np.asarray(value) for name, value in found.items() if name not in NOT_INPUTS}
        return {name: array[0] if name in SEQUENCES else array for name, array in arrays.items()}


def _as_pillow(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)
