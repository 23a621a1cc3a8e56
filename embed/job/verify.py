"""Checks shards and images: reads all of them, so that page checksums and digests are compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from store.catalog.images.blobs import damaged_blobs
from store.catalog.images.links import known_links
from store.errors import CorruptFileError, MissingVectorsError
from store.vectors.keys import KeyBuffer, key_array
from store.vectors.sets import VECTORS
from store.vectors.shard import failure_names, opened_shard, shard_name, shard_names
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

DAMAGED_PREFIX = "damaged-"


@dataclass(frozen=True)
class FolderReport:
    """What `verify` found in one encoder's folder."""

    encoder: str
    folder: str
    n_shards: int
    n_vectors: int  # in whole shards
    n_duplicates: int  # keys that stand in more than one shard: harmless, space lost
    damaged: dict[str, str]  # file -> reason


@dataclass(frozen=True)
class ImageReport:
    """What `verify` found among the images."""

    n_images: int
    damaged: dict[str, str]  # SHA-256 -> reason


def read_checked_keys(
    workspace: Workspace, relative: str, dim: int, *, keys_only: bool = False
) -> np.ndarray:
    """Keys of a shard whose every byte was read and checked, shape (n_rows,).

    Args:
        keys_only: read and check the keys alone, a hundredth of it. For object stores, which keep checksums of their
            own; vectors are checked when they are read.

    Raises:
        CorruptFileError: a checksum differs, rows are lost, or vectors have another length.
    """
    with opened_shard(workspace, relative, whole=not keys_only) as shard:
        keys = shard.keys
        if not keys_only:
            shard.vectors()
    if shard.dim != dim:
        raise CorruptFileError(
            f"{workspace.path(relative)} is damaged: vectors of length {shard.dim}, not {dim}"
        )
    if shard_name(keys) != relative.rpartition("/")[2]:
        raise CorruptFileError(
            f"{workspace.path(relative)} is damaged: its {len(keys)} keys are not its name's"
        )
    return key_array(keys)


def verify_folder(workspace: Workspace, spec: EncoderSpec) -> FolderReport:
    """Check every shard and every record of failures of one encoder."""
    names = shard_names(workspace, spec.folder)
    damaged: dict[str, str] = {}
    keys = KeyBuffer()
    for name in names:
        try:
            keys.add(read_checked_keys(workspace, f"{spec.folder}/{name}", spec.dim))
        except CorruptFileError as error:
            damaged[name] = str(error)
    n_vectors = len(keys)
    for name in failure_names(workspace, spec.folder):
        try:
            workspace.read_table(f"{spec.folder}/{name}", ["key", "stage", "reason"])
        except (CorruptFileError, KeyError) as error:
            damaged[name] = str(error)
    n_duplicates = n_vectors - len(keys.distinct())
    return FolderReport(spec.name, spec.folder, len(names), n_vectors, n_duplicates, damaged)


def verify_images(workspace: Workspace) -> ImageReport:
    """Check the bytes of every image that links.parquet names; those that are damaged are put aside."""
    digests = sorted(set(filter(None, known_links(workspace).values())))
    return ImageReport(len(digests), damaged_blobs(workspace, digests))


def verify(workspace: Workspace, encoders: Sequence[str] = ()) -> list[FolderReport]:
    """Check the cache, of the named encoders (both towers of one that has two) or of all, every fingerprint there.

    Raises:
        CorruptFileError: an `encoder.json` can't be read.
        MissingVectorsError: there is nothing to check of a named encoder, or at all.
    """
    reports: list[FolderReport] = []
    checked: set[str] = set()
    for folder in workspace.names(VECTORS):
        record = f"{VECTORS}/{folder}/encoder.json"
        if workspace.exists(record):
            spec = EncoderSpec.from_json(workspace.read_json(record))
            asked = {name for name in encoders if spec.name == name or spec.name.startswith(f"{name}.")}
            if asked or not encoders:
                reports.append(verify_folder(workspace, spec))
                checked |= asked
    absent = sorted(set(encoders) - checked)
    if absent or not reports:
        raise MissingVectorsError(
            f"{workspace.root} holds no vectors{f' of {absent[0]!r}' if absent else ''}: "
            "run 'shelfprice embed run' to compute them"
        )
    return reports


def set_aside(workspace: Workspace, folder: str, names: Sequence[str]) -> None:
    """Rename damaged files so that nothing reads them: the next plan misses just what they held."""
    for name in names:
        if workspace.exists(f"{folder}/{name}"):  # another run may have been here first
            workspace.rename(f"{folder}/{name}", f"{folder}/{DAMAGED_PREFIX}{name}")
