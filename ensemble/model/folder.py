"""A model on disk: files with their digests in `model.json`, written whole or not at all, checked when read."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ensemble.model.contents import manifest_problem
from store.catalog.parse.fields import FIELDS_VERSION
from store.contracts import parse_json
from store.errors import CorruptFileError, WorkspaceError
from store.local import TEMPORARY_PREFIX, open_regular, write_error
from store.outputs import MODEL_KIND, MODEL_MANIFEST
from store.vectors.spec import canonical_json

READ_BYTES = 2**20
MOST_MANIFEST_BYTES = 2**26
LEFT_SECONDS = 3600.0  # after which a folder that is being written belongs to a process that was killed
MANIFEST = MODEL_MANIFEST
CARD = "README.md"
CALIBRATION = "calibration.npz"
TRAINING = "training.arrow"
VECTORS = "vectors.npz"
RELATIVES = "relatives.npz"
TEST_VECTORS = "test_vectors.npz"
FITS = "fit"  # of a workspace: where `PriceModel.fit` keeps what is its own
IN_USE = "model-"  # begin of the name of a folder there, of a model that was fitted and is in use
MODEL_LOCK = ".lock"  # in that folder, held as long as its process uses the model
KIND = MODEL_KIND
FORMAT = 1  # raised when a folder can no longer be read by the version before
FIRST_FIELDS_VERSION = 2  # of models that do not say how their texts are parsed
OWN = "sha256"  # in the manifest: digest of all the rest of it


class ModelFolder:
    """A folder that was checked, and its manifest."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over everything in the folder."""
        return str(self.manifest[OWN])[:16]

    def read(self, name: str) -> bytes:
        """Content of one of its files."""
        file = place_in(self.path, name)
        try:
            with open_regular(file) as opened:
                return opened.read()
        except OSError as error:
            raise _unreadable(file, error) from error

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "ModelFolder":
        """Read the manifest and compare every file with its digest.

        Raises:
            CorruptFileError: a file is missing or was changed, or one is there that does not belong.
            WorkspaceError: there is no such folder, it is no model, or of a newer format.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        _check_files(folder, manifest["files"])
        return cls(folder.absolute(), manifest)  # found whatever the current folder is later


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a model's manifest, as it was written."""
    file = folder / MANIFEST
    try:
        if not file.is_file():
            raise WorkspaceError(
                f"{folder} holds no model ({MANIFEST} is not there): make one with 'shelfprice ensemble pack --to {folder}'"
            )
        with open_regular(file) as opened:
            content = opened.read(MOST_MANIFEST_BYTES + 1)
        if len(content) > MOST_MANIFEST_BYTES:
            raise ValueError(f"it is larger than {MOST_MANIFEST_BYTES} bytes")
        manifest = parse_json(content)
        kind, version, digest = manifest["kind"], int(manifest["format"]), _own_digest(manifest)
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptFileError(f"{file} can't be read: {error!r:.200}: copy the model again") from error
    if kind != KIND:
        raise WorkspaceError(f"{file} is of another kind: {kind!r}")
    if version > FORMAT:
        raise WorkspaceError(
            f"{folder} is of format {version}, and this version of shelfprice reads up to {FORMAT}: install the "
            f"version that wrote it, {_writer_of(manifest)}"
        )
    if manifest.get(OWN) != digest:
        raise CorruptFileError(f"{file} was changed (its digest does not match): copy the model again")
    if manifest.get("fields_version", FIRST_FIELDS_VERSION) != FIELDS_VERSION:
        raise WorkspaceError(
            f"{folder} was packed by another version of shelfprice, {_writer_of(manifest)}, which parses texts in another way: "
            "install that version, or pack the model again"
        )
    if problem := manifest_problem(manifest):
        raise CorruptFileError(f"{file} is not what shelfprice wrote ({problem:.200}): copy the model again")
    return dict(manifest)


def _writer_of(manifest: Mapping[str, Any]) -> str:
    versions = manifest.get("versions")
    return str(versions.get("shelfprice", "a newer one")) if isinstance(versions, dict) else "a newer one"


def place_in(folder: Path, name: str) -> Path:
    """Where a file or folder of a model lies.

    Raises:
        CorruptFileError: it leads out of the model.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise CorruptFileError(
            f"{folder / MANIFEST} names {name!r}, which leads out of the model: don't use it"
        )
    return folder / name


def write_folder(
    path: str | os.PathLike[str],
    fill: Callable[[Path], dict[str, Any]],
    card: Callable[[dict[str, Any]], str],
) -> ModelFolder:
    """Write a model; readers find the old one, none, or the complete new one. A link is followed.

    Args:
        fill: puts files into a folder and returns the rest of the manifest.
        card: the model card of a manifest.

    Raises:
        WorkspaceError: see `check_replaceable`, or the folder can't be written.
    """
    check_replaceable(path)
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{TEMPORARY_PREFIX}{target.name}-"
        _sweep(target.parent, prefix)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as scratch:
            work = Path(scratch) / "model"
            work.mkdir()
            manifest = {"kind": KIND, "format": FORMAT, **fill(work)}
            (work / CARD).write_text(card(manifest), encoding="utf-8")
            manifest["files"] = {name: _sha256(work / name) for name in _names(work)}
            manifest[OWN] = _own_digest(manifest)
            (work / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            work.chmod(0o755)
            if target.exists():
                os.replace(target, Path(scratch) / "before")
            os.replace(work, target)
    except OSError as error:
        raise write_error(str(target), error) from error
    return ModelFolder(target, manifest)


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Check that a model can be written to a folder without losing anything that is no model's.

    Raises:
        WorkspaceError: the folder holds something that is no model, or files that are not the model's.
    """
    target = Path(path)
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        if not (target / MANIFEST).is_file():
            raise WorkspaceError(f"{target} exists and is not a model: choose another folder, or delete it")
        there = {
            os.path.relpath(os.path.join(at, name), target).replace(os.sep, "/")
            for at, folders, files in os.walk(target)
            for name in [*files, *(one for one in folders if os.path.islink(os.path.join(at, one)))]
        }
    except OSError as error:
        raise _unreadable(target, error) from error
    try:
        own = _read_manifest(target)["files"]
    except CorruptFileError as error:
        raise WorkspaceError(
            f"{target} holds a damaged model, so that it is not known which of its files are the model's: delete it, or "
            "choose another folder"
        ) from error
    if foreign := sorted(there - {MANIFEST, *own}):
        raise WorkspaceError(
            f"{target} would be replaced, and holds {len(foreign)} files that are not the model's (first: {foreign[0]}): "
            "move them elsewhere, or choose another folder"
        )


def _sweep(folder: Path, prefix: str) -> None:
    """Delete what killed processes left of models that they were writing."""
    for left in folder.iterdir():
        with suppress(FileNotFoundError):  # its writer has just finished
            if left.name.startswith(prefix) and time.time() - left.lstat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def copy_folder(model: ModelFolder, path: str | os.PathLike[str]) -> None:
    """The same model in another folder.

    Raises:
        CorruptFileError: a file of it is missing or was changed since it was opened.
        WorkspaceError: see `write_folder`.
    """
    digests: dict[str, str] = model.manifest["files"]
    _check_files(model.path, digests)

    def fill(work: Path) -> dict[str, Any]:
        for name in digests:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.path / name, work / name)
        _check_files(work, digests)  # what was copied, whatever was written there meanwhile
        return {name: value for name, value in model.manifest.items() if name not in (OWN, "files")}

    card = model.read(CARD).decode()
    write_folder(path, fill, lambda manifest: card)


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    there = set(_names(folder)) - {MANIFEST}
    if missing := sorted(set(digests) - there):
        raise CorruptFileError(
            f"{folder} lacks {len(missing)} of its files (first: {missing[0]}): copy it again"
        )
    if foreign := sorted(there - set(digests)):
        raise CorruptFileError(
            f"{folder} holds files that are not the model's (first: {foreign[0]}): remove them"
        )
    # On one thread: thousands of small images, each of whose readings would wait for the other threads.
    found = {name: _sha256(folder / name) for name in digests}
    if damaged := sorted(name for name, sha256 in digests.items() if found[name] != sha256):
        raise CorruptFileError(
            f"{folder / damaged[0]} was changed (its digest does not match): copy the model again"
        )


def _names(folder: Path) -> list[str]:
    """Files of a model; what a hub adds (`.gitattributes`, `.cache/`) is none of it."""
    names: list[str] = []
    todo = [("", os.fspath(folder))]
    while todo:
        begin, path = todo.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append((f"{begin}{entry.name}/", entry.path))
                    elif entry.is_file():
                        names.append(begin + entry.name)
        except OSError as error:
            raise _unreadable(Path(path), error) from error
    return sorted(name for name in names if not name.startswith("."))


def _own_digest(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != OWN}
    return hashlib.sha256(canonical_json(rest)).hexdigest()


def _sha256(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        with open_regular(path) as file:
            while part := file.read(READ_BYTES):
                digest.update(part)
        return digest.hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> WorkspaceError:
    return WorkspaceError(f"can't read {path}: {error.strerror or error}")
