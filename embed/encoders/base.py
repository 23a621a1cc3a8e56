"""The interface between the library files of encoders and the job. Imports no torch: types only."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from store.vectors.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

    from embed.inputs import InputFailure


PREPARED_BY = "prepared_by"  # in a spec's `preprocessing`: whose code prepares the inputs of an `ItemModel`
BIG_PARAMETERS = 1_000_000_000  # from here on weights are kept as stored


@dataclass(frozen=True)
class Address:
    """One encoder as a user names it, taken apart."""

    name: str  # the encoder's name in the cache: an alias, or the address as written
    library: str  # prefix of the library that knows it: "timm", "open_clip", "hf", "st", ...
    model: str  # architecture, hub name or local path, as the library takes it; "" where a folder says it
    tower: str | None = None  # "image" or "text" of a model with two
    options: dict[str, str] = field(default_factory=dict)  # pooling, max_tokens, weights, long, ...

    def of_tower(self, tower: str) -> "Address":
        """The same of one tower, named after it."""
        if self.tower:
            return self
        body, question, query = self.name.partition("?")
        return replace(self, name=f"{body}.{tower}{question}{query}", tower=tower)


@dataclass(frozen=True)
class Sources:
    """Where weights may come from, in this order: the address itself, `models_dir`, packages, hub."""

    models_dir: Path | None = None  # folder written by `shelfprice embed fetch`
    offline: bool = False  # never ask the hub; its local cache is still read
    copy_to: Path | None = (
        None  # folder that files found elsewhere are copied into, for a machine without network
    )
    weights: bool = True  # False: only what describes a model is looked for, not a byte of its weights
    trust_remote_code: bool = False  # run the code that a model brings along


class HashFile(Protocol):
    """SHA-256 of a file in hex, remembered by path, size and modification time."""

    def __call__(self, path: Path) -> str: ...


@dataclass(frozen=True)
class Resolved:
    """An encoder whose weights and preprocessing were found together. Plain data, kept as JSON."""

    address: Address
    spec: EncoderSpec
    files: dict[str, str]  # role ("weights", "folder", "config", "tokenizer") -> local path
    library_version: str  # of the library that was asked; provenance, and part of the memory's key
    notes: tuple[str, ...] = ()  # the source of each choice, in words: "prompt declared for E5"
    n_parameters: int = 0  # 0: not known
    stored_as: str = "fp32"  # type on disk of weights that may stay so in memory: "fp32", "bf16", "fp16"

    @property
    def model_key(self) -> tuple[str, str, str]:
        """Encoders with the same key come out of one load of the model (two towers)."""
        return (self.spec.library, self.spec.model, self.spec.weights_sha256)

    @property
    def loaded_as(self) -> str:
        """Type of the weights in memory.

        fp32, which autocast computes in bf16 or fp16 where that was measured to be close enough. The weights of a big
        model stay as they are stored instead, or become what the precision policy names, so that there is one copy.
        Eight bits are made of fp32.
        """
        if self.n_parameters < BIG_PARAMETERS or "fp32" in (self.stored_as, self.spec.precision):
            return "fp32"
        if self.spec.precision == "int8":
            return "fp32"
        return self.stored_as if self.spec.precision == "auto" else self.spec.precision

    @property
    def memory_bytes(self) -> int:
        """What the weights take in memory; 0 where it is not known."""
        bits = {"fp32": 32, "8bit": 8, "4bit": 4.5}.get(self.spec.extra.get("quantized", self.loaded_as), 16)
        return int(self.n_parameters * bits / 8)


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts. A text that was cut into chunks owns several sequences."""

    sequences: list[np.ndarray]  # (n_tokens,) int32 each, special tokens included, at most max_tokens
    owner: np.ndarray  # (n_sequences,) int32: which text each sequence belongs to, ascending
    n_truncated: int  # texts that lost tokens
    weights: np.ndarray | None = None  # (n_sequences,): tokens that are no padding; None: all of them

    def __post_init__(self) -> None:
        assert len(self.sequences) == len(self.owner)


class Encoder(Protocol):
    """A loaded model. The job moves `module` to its device and sets precision and layout around it."""

    spec: EncoderSpec
    # In eval mode, on the CPU when `load` returns it; fp32, or of a big model in the half type that it is stored in.
    module: "torch.nn.Module"


class TextModel(Encoder, Protocol):
    """An encoder of texts."""

    pad_id: int

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text; runs in a background thread, so it must release the GIL.

        A callable with `record()`, such as a `FastTokenizer`, can be kept with a converted model.
        """

    def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """Pooled vectors, as the spec's `pooling` and `normalize` say.

        Args:
            ids: token ids, shape (n_rows, longest) int64, padded with `pad_id`, on the module's device.
            mask: 1 where a token is, shape (n_rows, longest) int64.

        Returns:
            Shape (n_rows, dim), any float type.
        """


class ImageModel(Encoder, Protocol):
    """An encoder of images."""

    def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pooled vectors, as the spec's `pooling` and `normalize` say.

        Args:
            pixels: resized and cropped images in RGB with the spec's mean and std already applied,
                shape (n_rows, 3, height, width), float32, on the module's device, channels_last where that was
                chosen. (Workers hand over uint8; the job scales on the device.)

        Returns:
            Shape (n_rows, dim), any float type.
        """


@dataclass(frozen=True)
class Item:
    """One row as a model with inputs of its own kind takes it."""

    arrays: tuple[np.ndarray, ...]  # of one row; in a batch the first axis of each is padded to the longest
    is_truncated: bool = False


@dataclass(frozen=True)
class RowContent:
    """What a row gives to a model that takes images, texts, or both."""

    text: str | None = None
    image: np.ndarray | None = None  # (height, width, 3) uint8, RGB, upright, as large as it was stored


class ItemModel(Encoder, Protocol):
    """An encoder whose own library prepares its inputs: images of any size, an image and a text together."""

    fills: tuple[int, ...]  # of each array of an item: what it is padded with

    def prepare(self, content: RowContent) -> "Item | InputFailure":
        """One row's inputs; called by one thread. The first array is as long as the row is costly."""

    def forward(self, *arrays: "torch.Tensor") -> "torch.Tensor":
        """Pooled vectors of padded items.

        Args:
            arrays: as `prepare` gives them, stacked, and last (n_rows, n_arrays) int64: the length of each.

        Returns:
            Shape (n_rows, dim), any float type.
        """


class Library(Protocol):
    """One file of `embed.encoders.libraries`; or a registered module or object of another package.

    It may also have:
        DISTRIBUTION: the pip package whose version decides what `resolve` finds; the answer is then remembered for as
            long as that version and the files found stay as they are. Without, `resolve` is asked in every run.
        ALIASES: short name -> `MODEL?options`, as an address has it after the prefix.
        TOWERS: `("image", "text")` where a model may have both; an address then names one by `.image` or `.text`.
        FOLDER_FILE: the file by which a local folder shows that it holds a model of this library.
        recognizes: `(folder) -> int`, asked of folders with that file: 0 is no, and the highest number of all
            libraries wins. Without, the file alone is worth 2.
        weights_on_hub: `(address) -> (repository, patterns)`, where the hub has the weights: the first pattern that
            matches any file there names all of them. Without, their size is not told before they are fetched.
    """

    PREFIX: str  # of addresses, `PREFIX:MODEL`

    def resolve(self, address: Address, sources: Sources, hash_file: HashFile) -> list[Resolved]:
        """Find weights and preprocessing together; without importing torch where the library allows.

        Returns:
            One entry, or image and text tower where the address names neither.

        Raises:
            EncoderError: unknown model, or files missing: names the files, the folder looked in and the command
                that fetches them.
        """

    def load(self, resolved: Sequence[Resolved]) -> list[Encoder]:
        """Load one model (all of `resolved` share a `model_key`) and return its encoders in that order.

        Only safetensors, or `torch.load(weights_only=True)`.

        Raises:
            EncoderError: corrupt or truncated weights, weights of another model.
        """


def image_preprocessing(
    *,
    size: tuple[int, int],
    resize: str,
    resize_to: tuple[int, int],
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
    fill: Sequence[int] = (0, 0, 0),
) -> dict[str, Any]:
    """`spec.preprocessing` of an image encoder: one spelling for every library.

    An image is turned upright (EXIF), laid on `background` where transparent, made RGB, resized, then cropped
    about its centre (or padded with `fill`) to `size`, scaled to 0..1, and mean and std are applied.

    Args:
        size: height and width that enter the model.
        resize: "shortest" (shortest side to `resize_to`, ratio kept), "longest" (longest side, ratio kept) or
            "squash" (both sides, ratio not kept).
        resize_to: height and width before the crop.
        interpolation: "bicubic", "bilinear", "lanczos" or "nearest", Pillow's with antialiasing.
        mean: per channel, of pixels in 0..1.
        std: per channel, of pixels in 0..1.
        fill: RGB 0..255 of the padding where the resized image is smaller than `size`.
    """
    return {
        "size": list(size),
        "resize": resize,
        "resize_to": list(resize_to),
        "interpolation": interpolation,
        "mean": [float(m) for m in mean],
        "std": [float(s) for s in std],
        "background": [255, 255, 255],
        "fill": list(fill),
    }


def text_preprocessing(
    *,
    tokenizer_sha256: str,
    max_tokens: int,
    long: str = "truncate",
    prompt: str = "",
    prompt_is_pooled: bool = True,
) -> dict[str, Any]:
    """`spec.preprocessing` of a text encoder.

    Args:
        tokenizer_sha256: digest over everything that decides token ids.
        max_tokens: longest sequence that enters the model, special tokens included.
        long: what becomes of longer texts: "truncate", or "chunks" whose vectors are averaged by length.
        prompt: put before every text, and before every chunk.
        prompt_is_pooled: whether the prompt's own tokens take part in the pooling.
    """
    declared = {
        "tokenizer_sha256": tokenizer_sha256,
        "max_tokens": max_tokens,
        "long": long,
        "prompt": prompt,
    }
    if prompt and not prompt_is_pooled:
        declared["prompt_is_pooled"] = False
    if prompt and long == "chunks":
        declared["prompt_of_chunks"] = "each"
    return declared
