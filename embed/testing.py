"""`check_encoder`, which every encoder must pass, those of this project and of other packages."""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embed.encoders.base import PREPARED_BY, Resolved, Sources, image_preprocessing, text_preprocessing
from embed.encoders.registry import library_of, parse_address
from embed.forward.devices import DeviceSettings
from embed.inputs.batch import RowWindow
from embed.job.items import ItemSource, image_items, text_items
from store.vectors.keys import key_array, key_bytes, sorting
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

LEAST_COSINE = 0.9999  # between an item's vectors alone and among others, in fp32
TEXTS = (
    "Olive Oil, 500 ml (Pack of 2)",
    "tea",
    "Crème brûlée – ½ kg, 100 % naïve 😀",
    "Wireless keyboard with a number pad. " * 40,
    "42",
    "  spaces\tand\nlines  ",
)
SIZES = ((64, 48), (31, 200), (224, 224), (500, 90))  # of images, width and height


def check_encoder(
    encoder: str,
    items: Sequence[Any] | None = None,
    *,
    models_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> None:
    """Raise AssertionError where an encoder breaks what the cache relies on; says what is wrong.

    Two resolutions declare the same and all of it can be written as JSON; a model loaded twice gives the same vectors;
    an item's vector is the same alone, among others and in any order, finite, and of the length declared.

        >>> from embed.testing import check_encoder
        >>> check_encoder("minilm")

    Args:
        encoder: a short name, an address or a folder, of a library that is installed or registered.
        items: texts or images to try it on; None: some that often cause errors.
        models_dir: folder of models carried over from a connected machine.
        offline: never ask the model hub.
    """
    sources = Sources(Path(models_dir) if models_dir is not None else None, offline)
    found = _resolved(encoder, sources)
    for one, again in zip(found, _resolved(encoder, sources), strict=True):
        _check_declaration(one.spec)
        _require(one.spec == again.spec, "resolved twice, it declares another thing each time")
        _check_vectors(one, items)


def _check_declaration(spec: EncoderSpec) -> None:
    written = json.loads(json.dumps(spec.to_json(), allow_nan=False))
    _require(EncoderSpec.from_json(written).fingerprint == spec.fingerprint, "its spec does not survive JSON")
    known = ("text", "image", "joint")
    _require(spec.modality in known, f"modality must be one of {', '.join(known)}, got {spec.modality!r}")
    _require(spec.dim > 0, f"dim must be above 0, got {spec.dim}")
    is_digest = len(spec.weights_sha256) == 64 and set(spec.weights_sha256) <= set("0123456789abcdef")
    _require(is_digest, f"weights_sha256 must be 64 hex characters, got {spec.weights_sha256!r}")
    text = text_preprocessing(tokenizer_sha256="", max_tokens=1)
    image = image_preprocessing(
        size=(1, 1), resize="squash", resize_to=(1, 1), interpolation="bicubic", mean=[0.0], std=[1.0]
    )
    wanted = set(image if spec.modality == "image" else text)
    if PREPARED_BY in spec.preprocessing:  # by code of its own, which is declared otherwise
        wanted = set()
    lacking = sorted(wanted - set(spec.preprocessing))
    _require(
        not lacking, f"preprocessing lacks {', '.join(lacking)}: make it by {spec.modality}_preprocessing"
    )


def _check_vectors(resolved: Resolved, items: Sequence[Any] | None) -> None:
    is_text = resolved.spec.modality != "image"
    source = text_items(items or TEXTS) if is_text else image_items(items or _images())
    together = _vectors(resolved, source, units=1 << 20)
    _require(np.isfinite(together).all(), "a vector is not finite")
    _require(np.any(together != together[0]), "different items have the same vector")
    for what, vectors in {
        "loaded twice, it gives other vectors": _vectors(resolved, source, units=1 << 20),
        "an item alone has another vector than among others": _vectors(resolved, source, units=1),
        "items in another order have other vectors": _vectors(
            resolved, source, units=1 << 20, backwards=True
        ),
    }.items():
        norms = np.linalg.norm(together, axis=1) * np.linalg.norm(vectors, axis=1)
        cosine = (together * vectors).sum(axis=1) / np.maximum(norms, 1e-30)
        close = (cosine >= LEAST_COSINE) | (norms == 0)
        _require(close.all(), f"{what}: cosine {cosine.min():.5f} at item {int(cosine.argmin())}")
    if resolved.spec.normalize:
        lengths = np.linalg.norm(together, axis=1)
        _require(
            np.allclose(lengths, 1.0, atol=1e-3),
            f"normalize is declared, a vector is {lengths.min():.3f} long",
        )


def _vectors(resolved: Resolved, source: ItemSource, units: int, *, backwards: bool = False) -> np.ndarray:
    """Vectors of distinct items by their key, shape (n_keys, dim), in fp32 on the CPU, as the job computes them."""
    from embed.forward.fleet import on_devices

    keys = key_array(source.keys)
    (window,) = source.windows(keys[sorting(keys)])
    if backwards:
        window = RowWindow(window.vector_set, window.keys[::-1], window.contents[::-1], window.images)
    settings = DeviceSettings(("cpu",), batch_tokens=units, batch_images=units, always_measured=False)
    encoders = library_of(resolved.address).load([resolved])
    _require(len(encoders) == 1, f"load gave {len(encoders)} encoders for 1")
    (runner,) = on_devices(Workspace("memory://shelfprice-check"), encoders, settings)
    runner.begin(window, len(window.keys))
    found: dict[bytes, np.ndarray] = {}
    for batch, vectors in runner.encode(runner.batches(iter([window]))):
        _require(not batch.failures, f"an item fails: {batch.failures[:1]}")
        found.update(zip(batch.keys, vectors, strict=True))
    return np.stack([found[key] for key in key_bytes(keys)])


def _resolved(encoder: str, sources: Sources) -> list[Resolved]:
    address = parse_address(encoder)
    return library_of(address).resolve(address, sources, _sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _images() -> list[bytes]:
    """Noise, as PNG files."""
    from PIL import Image

    files, rng = [], np.random.default_rng(0)
    for width, height in SIZES:
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(out, "PNG")
        files.append(out.getvalue())
    return files


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise AssertionError(message)
