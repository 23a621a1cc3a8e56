"""The encoders of a model: converted ones from its folder, without torch; others by a reference, through torch."""

import hashlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.model.contents import read_test_vectors
from ensemble.model.folder import TEST_VECTORS, place_in
from store.errors import CorruptFileError, EncoderError
from store.vectors.content import image_keys, text_keys
from store.vectors.matrix import Matrix, gather
from store.vectors.sets import VectorSet, current_spec
from store.vectors.spec import EncoderSpec, slug
from store.workspace import Workspace

ENCODERS = "encoders"
CONVERTED, REFERENCE = "converted", "reference"
MOST_RECENT = 4096  # vectors kept for each encoder: 10 MB of 1,280 numbers


def pack_encoder(workspace: Workspace, vector_set: VectorSet, work: Path) -> dict[str, Any]:
    """Put an encoder into a model's folder, converted where that can be; returns its entry in the manifest."""
    from embed.encoders.base import PREPARED_BY
    from embed.forward.converted import converted_folder, find_converted, installed_version

    spec = current_spec(workspace, vector_set.encoder)
    entry = {"kind": REFERENCE, "encoder": spec.name, "spec": spec.to_json(), "fingerprint": spec.fingerprint}
    if installed_version() is None or PREPARED_BY in spec.preprocessing:
        return entry
    target = work / ENCODERS / slug(spec.name)
    if target.exists():
        return entry | {"kind": CONVERTED, "folder": f"{ENCODERS}/{target.name}"}
    found = find_converted(converted_folder(workspace, spec), spec)
    if found is not None:
        target.mkdir(parents=True)
        for name in sorted(file.name for file in found.folder.iterdir() if file.is_file()):
            shutil.copyfile(found.folder / name, target / name)
    elif not _convert(workspace, spec, target):
        return entry
    return entry | {"kind": CONVERTED, "folder": f"{ENCODERS}/{target.name}"}


def _convert(workspace: Workspace, spec: EncoderSpec, target: Path) -> bool:
    """Convert an encoder that was too little used for that; False where it can't be."""
    from embed.encoders.base import Sources
    from embed.encoders.registry import library_of
    from embed.encoders.resolve import resolve

    try:
        found = resolve(workspace, spec.name, Sources(), spec.precision)
        at = next(i for i, one in enumerate(found) if one.spec.fingerprint == spec.fingerprint)
        from embed.forward.conversion import convert  # and torch with it

        convert(library_of(found[0].address).load(found)[at], target)
    except (EncoderError, StopIteration):
        shutil.rmtree(target, ignore_errors=True)
        return False
    return True


def averaged(columns: Sequence[Matrix], normalize: bool) -> Matrix:
    """The mean over each row's images, rounded as the vectors of a catalogue are (`store.vectors.matrix`)."""
    first, *others = columns
    X, n_images = first.X.copy(), first.valid.astype(np.int64)
    for other in others:
        at = np.flatnonzero(other.valid)
        total = X[at].astype(np.float32) * n_images[at, None] + other.X[at]
        n_images[at] += 1
        X[at] = total / n_images[at, None]
    several = np.flatnonzero(n_images > 1) if normalize else np.empty(0, np.int64)
    mean = X[several].astype(np.float32)
    X[several] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return Matrix(first.name, X, n_images > 0)


class RecentVectors:
    """The vectors of the last `MOST_RECENT` contents of one encoder: a product asked for again is not embedded again."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: bytes) -> np.ndarray | None:
        """The vector of a content key, shape (dim,), or None."""
        with self._lock:
            if key not in self._vectors:
                return None
            self._vectors.move_to_end(key)
            return self._vectors[key]

    def keep(self, key: bytes, vector: np.ndarray) -> None:
        """Keep a vector, and drop the one that was not asked for longest where there are too many."""
        with self._lock:
            self._vectors[key] = vector
            if len(self._vectors) > MOST_RECENT:
                self._vectors.popitem(last=False)


class ModelEncoders:
    """Vectors of texts and images. Every item is a pass of its own, so that no row's vector depends on other rows."""

    def __init__(
        self, folder: Path, entries: Sequence[dict[str, Any]], cache: Workspace | None = None
    ) -> None:
        """Args:
        entries: of the manifest, one for each encoder.
        cache: workspace whose vectors are taken where it has them.
        """
        self._folder = folder
        self._entries = {entry["encoder"]: entry for entry in entries}
        self._cache = cache
        self._lock = threading.Lock()
        self._loaded: dict[str, Any] = {}
        self._recent = {name: RecentVectors() for name in self._entries}

    @property
    def dims(self) -> dict[str, int]:
        """Numbers in a vector, by encoder."""
        return {name: entry["spec"]["dim"] for name, entry in self._entries.items()}

    def load(self) -> None:
        """Load every converted encoder, side by side."""
        names = [name for name, entry in self._entries.items() if entry["kind"] == CONVERTED]
        with ThreadPoolExecutor(max(1, len(names))) as pool:
            list(pool.map(self._encoder, names))

    def texts(self, vector_set: VectorSet, texts: Sequence[str | None]) -> Matrix:
        """Vectors of composed texts; a row without text is not valid."""
        keys = text_keys(pa.array(texts, pa.string()))
        return self._matrix(vector_set, texts, keys)

    def images(self, vector_set: VectorSet, contents: Sequence[Sequence[bytes]]) -> Matrix:
        """Vectors of image files' bytes, of several the mean; a row without one that can be decoded is not valid."""
        most = max([1, *(len(row) for row in contents)])
        columns = []
        for at in range(most):
            of_row = [row[at] if at < len(row) else None for row in contents]
            digests = [None if content is None else hashlib.sha256(content).hexdigest() for content in of_row]
            columns.append(self._matrix(vector_set, of_row, image_keys(pa.array(digests, pa.string()))))
        spec = EncoderSpec.from_json(self._entries[vector_set.encoder]["spec"])
        return averaged(columns, spec.normalize) if most > 1 else columns[0]

    def _matrix(self, vector_set: VectorSet, contents: Sequence[Any], keys: pa.Array) -> Matrix:
        spec = EncoderSpec.from_json(self._entries[vector_set.encoder]["spec"])
        X, valid = np.zeros((len(contents), spec.dim), np.float16), np.zeros(len(contents), bool)
        if self._cache is not None:
            cached, valid = gather(self._cache, spec, keys, np.float16)
            X = np.asarray(cached)
        self._take_known(vector_set.encoder, keys, X, valid)
        first: dict[bytes, int] = {}  # the same content is embedded once
        for at, key in enumerate(keys.to_pylist()):
            if key is not None and not valid[at]:
                first.setdefault(key, at)
        if first:
            made = self._embed(vector_set.encoder, [contents[at] for at in first.values()])
            can_be_used = np.isfinite(made).all(axis=1)  # not of an image that can't be decoded
            vectors = {key: made[i] for i, key in enumerate(first) if can_be_used[i]}
            for at, key in enumerate(keys.to_pylist()):
                if key in vectors and not valid[at]:
                    X[at], valid[at] = vectors[key], True
            for key, vector in vectors.items():
                self._recent[vector_set.encoder].keep(key, vector.copy())
        return Matrix(str(vector_set), X, valid)

    def _take_known(self, encoder: str, keys: pa.Array, X: np.ndarray, valid: np.ndarray) -> None:
        """Fill in vectors that are at hand by content key: those of the test rows, and of what was embedded last."""
        place, known = self._held.get(encoder, ({}, X[:0]))
        for at, key in enumerate(keys.to_pylist()):
            if key is None or valid[at]:
                continue
            found = known[place[key]] if key in place else self._recent[encoder].find(key)
            if found is not None:
                X[at], valid[at] = found, True

    @cached_property
    def _held(self) -> dict[str, tuple[dict[bytes, int], np.ndarray]]:
        """Encoder -> the place of each content key, and the vectors."""
        path = self._folder / TEST_VECTORS
        if not path.is_file():
            return {}
        return {
            name: ({key.tobytes(): at for at, key in enumerate(keys)}, X)
            for name, (keys, X) in read_test_vectors(path, self.dims).items()
        }

    def _embed(self, encoder: str, contents: Sequence[Any]) -> np.ndarray:
        """Shape (n_contents, dim) float16; NaN where an image can't be decoded."""
        if self._entries[encoder]["kind"] == REFERENCE:
            return self._embed_by_torch(encoder, contents)
        loaded = self._encoder(encoder)
        with self._lock:
            return np.asarray(loaded.embed_each(contents), np.float16)

    def _encoder(self, name: str) -> Any:
        if name not in self._loaded:
            from embed.forward.openvino import load_converted

            place = place_in(self._folder, self._entries[name]["folder"])
            try:
                self._loaded[name] = load_converted(place)
            except (RuntimeError, ValueError, KeyError, TypeError) as error:  # as OpenVINO tells of a network
                said = " ".join(str(error).split())
                raise CorruptFileError(f"{place} holds no encoder that can be loaded: {said:.200}") from error
        return self._loaded[name]

    def _embed_by_torch(self, encoder: str, contents: Sequence[Any]) -> np.ndarray:
        from embed.encoding import encode, find_encoder

        # Offline: a model of someone else decides no download.
        entry = self._entries[encoder]
        spec = EncoderSpec.from_json(entry["spec"])
        found = find_encoder(encoder, spec.modality, None, spec.precision, None, offline=True)
        if found.spec.fingerprint != entry["fingerprint"]:
            raise EncoderError(
                f"the model was fitted with {encoder} of fingerprint {entry['fingerprint']}, and here the name stands for "
                f"{found.spec.fingerprint}: install the weights that it was fitted with"
            )
        made = encode(contents, encoder, precision=spec.precision, missing="nan", offline=True)
        return np.asarray(made, np.float16)
