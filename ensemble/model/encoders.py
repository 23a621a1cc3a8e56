"""The encoders of a model: converted ones from its folder, without torch; others by a reference, through torch."""

import hashlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class _Column:
    """What one encoder is asked to embed of rows, at most one content of each, and the vectors once they are found."""

    encoder: str
    contents: Sequence[Any]
    keys: pa.Array  # null where a row has no content
    X: np.ndarray = field(init=False)  # (n_rows, dim) float16
    valid: np.ndarray = field(init=False)  # (n_rows,) bool

    def without_vector(self) -> list[tuple[int, bytes]]:
        """Rows, with their keys, that have content and no vector yet."""
        return [
            (at, key)
            for at, key in enumerate(self.keys.to_pylist())
            if key is not None and not self.valid[at]
        ]


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
        """Load every converted encoder, side by side, and the vectors of the test rows."""
        _ = self._held
        names = [name for name, entry in self._entries.items() if entry["kind"] == CONVERTED]
        with ThreadPoolExecutor(max(1, len(names))) as pool:
            list(pool.map(self._encoder, names))

    def matrices(
        self,
        sets: Sequence[VectorSet],
        texts: Mapping[VectorSet, Sequence[str | None]],
        images: Sequence[Sequence[bytes]],
    ) -> list[Matrix]:
        """Vectors of rows by each set. A row without text, or without an image that can be decoded, is not valid.

        Args:
            texts: composed texts, for each set of texts.
            images: the bytes of each row's image files, of several the mean vector is taken.
        """
        columns = {one: self._columns(one, texts.get(one), images) for one in sets}
        self._fill([column for some in columns.values() for column in some])
        return [self._averaged(one, columns[one]) for one in sets]

    def _columns(
        self, one: VectorSet, texts: Sequence[str | None] | None, images: Sequence[Sequence[bytes]]
    ) -> list["_Column"]:
        """One of texts, or one for each image that a row may have."""
        if texts is not None:
            return [_Column(one.encoder, texts, text_keys(pa.array(texts, pa.string())))]
        columns = []
        for at in range(max([1, *(len(row) for row in images)])):
            contents = [row[at] if at < len(row) else None for row in images]
            digests = [
                None if content is None else hashlib.sha256(content).hexdigest() for content in contents
            ]
            columns.append(_Column(one.encoder, contents, image_keys(pa.array(digests, pa.string()))))
        return columns

    def _averaged(self, one: VectorSet, columns: Sequence["_Column"]) -> Matrix:
        matrices = [Matrix(str(one), column.X, column.valid) for column in columns]
        if len(matrices) == 1:
            return matrices[0]
        return averaged(matrices, EncoderSpec.from_json(self._entries[one.encoder]["spec"]).normalize)

    def _fill(self, columns: Sequence["_Column"]) -> None:
        """Find the vectors of all columns, and embed what none is known of: the same content once."""
        missing: dict[str, dict[bytes, Any]] = {}  # encoder -> content by key
        for column in columns:
            spec = EncoderSpec.from_json(self._entries[column.encoder]["spec"])
            column.X = np.zeros((len(column.contents), spec.dim), np.float16)
            column.valid = np.zeros(len(column.contents), bool)
            if self._cache is not None:
                cached, column.valid = gather(self._cache, spec, column.keys, np.float16)
                column.X = np.asarray(cached)
            self._take_known(column)
            for at, key in column.without_vector():
                missing.setdefault(column.encoder, {}).setdefault(key, column.contents[at])
        if not missing:
            return
        made = self._embed({encoder: list(contents.values()) for encoder, contents in missing.items()})
        for encoder, contents in missing.items():
            can_be_used = np.isfinite(made[encoder]).all(axis=1)  # not of an image that can't be decoded
            vectors = {key: made[encoder][i] for i, key in enumerate(contents) if can_be_used[i]}
            for key, vector in vectors.items():
                self._recent[encoder].keep(key, vector.copy())
            for column in columns:
                if column.encoder != encoder:
                    continue
                for at, key in column.without_vector():
                    if key in vectors:
                        column.X[at], column.valid[at] = vectors[key], True

    def _take_known(self, column: "_Column") -> None:
        """Fill in vectors that are at hand by content key: those of the test rows, and of what was embedded last."""
        place, known = self._held.get(column.encoder, ({}, column.X[:0]))
        for at, key in column.without_vector():
            found = known[place[key]] if key in place else self._recent[column.encoder].find(key)
            if found is not None:
                column.X[at], column.valid[at] = found, True

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

    def _embed(self, missing: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Encoder -> vectors of its contents, shape (n_contents, dim) float16; NaN where an image can't be decoded."""
        found: dict[str, np.ndarray] = {}
        if converted := [name for name in missing if self._entries[name]["kind"] == CONVERTED]:
            from embed.forward.openvino import embed_each

            asked = [(self._encoder(name), missing[name]) for name in converted]
            with self._lock:
                found = dict(zip(converted, embed_each(asked), strict=True))
        for name in missing.keys() - found.keys():
            found[name] = self._embed_by_torch(name, missing[name])
        return {name: np.asarray(vectors, np.float16) for name, vectors in found.items()}

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
        return encode(contents, encoder, precision=spec.precision, missing="nan", offline=True)
