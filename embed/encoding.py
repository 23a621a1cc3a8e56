"""Texts or images -> vectors, without a catalogue: the job on a list of items."""

import logging
import os
import secrets
import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embed.encoders.base import Resolved, Sources
from embed.encoders.resolve import resolve
from embed.forward.devices import DeviceSettings
from embed.forward.local import LocalRunner
from embed.job.items import ItemSource, image_items, is_image, listed, text_items
from embed.job.limits import FailureLimits
from embed.job.run import EmbedOptions, EncodeRequest, run
from store.catalog.ingest.cells import is_none
from store.errors import ConfigError, CorruptFileError, FailureLimitError, MissingVectorsError
from store.vectors.matrix import gather
from store.vectors.shard import read_failures
from store.vectors.spec import EncoderSpec, Modality
from store.workspace import Workspace

Cache = Workspace | str | os.PathLike[str]
Missing = Literal["error", "nan", "zero"]
MISSING = ("error", "nan", "zero")
MODELS_KEPT = 2  # such as the text and the image encoder of one pipeline

logger = logging.getLogger(__name__)


def encode(
    items: Iterable[Any],
    encoder: str,
    cache: Cache | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    missing: Missing = "error",
    models_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Vectors of a list of texts or images, one row for each item, in its order.

    What is done is what `shelfprice embed run` does for a catalogue: each distinct content is encoded once, texts
    sorted by length, in the fastest precision that stays within cosine 0.999 of fp32 (a few items are not worth
    measuring and are encoded in fp32). Vectors are rounded to float16 on the way, with a cache and without. The model
    stays loaded for the next call, the last two that were used do.

        >>> from embed import encode
        >>> X = encode(["green tea, 20 bags", "olive oil 500 ml"], "minilm", cache="run")
        >>> X.shape
        (2, 384)

    Args:
        items: a list, a NumPy array, or a column of pandas, Polars or Arrow. For an encoder of texts: strings. For one
            of images: paths, bytes of image files, Pillow images (which count as the PNG file of their pixels).
        encoder: a short name, an address or a folder (docs/encoders.md); of a model with two towers the address of one
            of them, such as `clip-vit-l14.image`.
        cache: a workspace, or the folder or address of one. Vectors that are there are not computed again, others are
            added, for the next call and for `shelfprice embed run`, whose vectors are found here just so.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", "all"; several as "cuda:0,cuda:1".
        precision: "auto", "fp32", "bf16", "fp16" or "int8" (on a CPU, by OpenVINO); part of what the cache tells apart.
        missing: what becomes of an item without a vector: None, NaN, an empty text, an image that is not there or
            broken. "error": a MissingVectorsError that names its position. "nan" or "zero": its row holds that; a
            warning counts the images that are there and can't be read or decoded.
        models_dir: folder of models carried over from a connected machine.
        offline: never ask the model hub.
        batch_tokens: most padded tokens of a forward pass; None: found by measuring.
        batch_size: most images of a forward pass.
        progress: show a bar, where stderr is a terminal.

    Returns:
        Shape (n_items, dim), float32.

    Raises:
        TypeError: an item is neither text nor image, or not what the encoder takes.
        EncoderError: unknown encoder, or its files are missing or damaged.
        ConfigError: an option is not understood.
        MissingVectorsError: see `missing`.
    """
    check_missing(missing)
    values = listed(items)
    resolved = find_encoder(encoder, _modality(values), cache, precision, models_dir, offline)
    takes_images = resolved.spec.modality == "image" or (
        resolved.spec.modality == "joint" and _modality(values) == "image"
    )
    source = image_items(values) if takes_images else text_items(values)
    if missing == "error":
        _check_content(source, encoder)
    settings = DeviceSettings(tuple(device.split(",")), batch_tokens, batch_size, always_measured=False)
    if cache is not None:
        return _encoded(
            source, resolved, Workspace.of(cache), Workspace.of(cache), settings, missing, progress
        )
    workspace = Workspace(f"memory://shelfprice-{secrets.token_hex(8)}")
    try:
        return _encoded(source, resolved, workspace, process_memory(), settings, missing, progress)
    finally:
        workspace.remove("")


def find_encoder(
    encoder: str,
    modality: Modality | None,
    cache: Cache | None,
    precision: str,
    models_dir: str | os.PathLike[str] | None,
    offline: bool,
) -> Resolved:
    """An encoder's weights and preprocessing; nothing is loaded.

    Args:
        modality: of the items; None: strings, which an encoder of images takes for paths.

    Raises:
        ConfigError: the address names a composition, or a model with two towers and strings don't say which.
        TypeError: the encoder takes no such items.
        EncoderError: see `resolve`.
    """
    if "@" in encoder:
        raise ConfigError(
            f"{encoder}: items are encoded as they are, a composition is for rows of a catalogue: write "
            f"{encoder.partition('@')[0]!r}"
        )
    sources = Sources(Path(models_dir) if models_dir is not None else None, offline)
    memory = process_memory() if cache is None else Workspace.of(cache)
    found = resolve(memory, encoder, sources, precision)
    fitting = [one for one in found if modality is None or one.spec.modality in (modality, "joint")]
    if not fitting:
        raise TypeError(f"{encoder} takes {found[0].spec.modality}s, the items are {modality}s")
    if len(fitting) > 1:
        raise ConfigError(
            f"{encoder} takes texts and images, and strings may be either: write "
            f"{' or '.join(repr(one.spec.name) for one in fitting)}"
        )
    return fitting[0]


def check_missing(missing: str) -> None:
    """Raises ConfigError where an option `missing` is none."""
    if missing not in MISSING:
        raise ConfigError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}")


@cache
def process_memory() -> Workspace:
    """Where this process remembers what it found and measured, for calls without a cache."""
    return Workspace(f"memory://shelfprice-{secrets.token_hex(8)}")


def _encoded(
    source: ItemSource,
    resolved: Resolved,
    workspace: Workspace,
    memory: Workspace,
    settings: DeviceSettings,
    missing: Missing,
    progress: bool,
) -> np.ndarray:
    """Run the job on the items and gather their vectors."""
    most = 0.0 if missing == "error" else 1.0
    options = EmbedOptions(FailureLimits(most, 1.0), is_current=False, progress=progress, keys_only=True)
    request = EncodeRequest(resolved, source)
    stopped: FailureLimitError | None = None

    def embed_and_gather(options: EmbedOptions) -> tuple[Any, np.ndarray]:
        nonlocal stopped
        stopped = None
        try:
            run(
                workspace,
                [request],
                options,
                lambda found: _models.loaded(memory, found, settings),
                logger.info,
            )
        except FailureLimitError as error:
            stopped = error
        return gather(workspace, resolved.spec, source.keys)

    with _models.lock:
        try:
            gathered, found = embed_and_gather(options)
        except CorruptFileError:  # which a plan by keys does not see: put aside, embedded again
            gathered, found = embed_and_gather(replace(options, keys_only=False))
    X = np.asarray(gathered)
    if stopped is not None or not found.all():
        failed = _failures(workspace, resolved.spec, source, found)
        if stopped is not None:
            at, reason = failed[0]
            raise MissingVectorsError(
                f"item {at} of {len(found)} has no vector of {resolved.spec.name}: {reason}: leave it out, or pass "
                "missing='nan' or missing='zero'"
            ) from stopped
        if failed:
            at, reason = failed[0]
            warnings.warn(
                f"{len(failed)} of {len(found)} items have no vector of {resolved.spec.name} (first: item {at}: {reason})",
                stacklevel=3,
            )
        X[~found] = np.nan if missing == "nan" else 0.0
    return X


def _check_content(source: ItemSource, encoder: str) -> None:
    """Raises MissingVectorsError where an item has no content; before any work."""
    empty = np.flatnonzero(~source.keys.is_valid().to_numpy(zero_copy_only=False))
    if len(empty):
        at = int(empty[0])
        reason = source.unread.get(at, "it is empty")
        more = f", and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise MissingVectorsError(
            f"item {at} of {len(source.keys)} gives {encoder} nothing to encode: {reason}{more}: leave it out, or pass "
            "missing='nan' or missing='zero'"
        )


def _failures(
    workspace: Workspace, spec: EncoderSpec, source: ItemSource, found: np.ndarray
) -> list[tuple[int, str]]:
    """Items that are there and have no vector, by their position, with the reason."""
    records = read_failures(workspace, spec.folder)
    reasons = dict(zip(records["key"].to_pylist(), records["reason"].to_pylist(), strict=True))
    without = np.flatnonzero(~found)
    keys = source.keys.take(without).to_pylist()
    failed = {int(at): reasons[key] for at, key in zip(without, keys, strict=True) if key in reasons}
    return sorted((failed | source.unread).items())


def _modality(items: Sequence[Any]) -> Modality | None:
    """Of the first item that is there; None for a string, which may be a path, and for what is neither."""
    first = next((item for item in items if not is_none(item)), None)
    return "image" if is_image(first) and not isinstance(first, str) else None


class _Models:
    """Models that were loaded last, ready for the next call; one call computes at a time."""

    def __init__(self, most: int) -> None:
        self.lock = threading.RLock()
        self._most = most
        self._kept: OrderedDict[Hashable, Sequence[LocalRunner]] = OrderedDict()

    def loaded(
        self, memory: Workspace, resolved: Sequence[Resolved], settings: DeviceSettings
    ) -> Sequence[LocalRunner]:
        """Encoders of one model on its devices.

        Args:
            memory: where the choice of precision is remembered.
        """
        from embed.forward.fleet import load_engines

        which = tuple((one.spec.folder, tuple(sorted(one.files.items()))) for one in resolved)
        key = (which, settings)
        if key not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            self._kept[key] = load_engines(memory, resolved, settings)
        self._kept.move_to_end(key)
        for runner in self._kept[key]:
            runner.memory = memory
        return self._kept[key]


_models = _Models(MODELS_KEPT)
