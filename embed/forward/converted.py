"""Encoders converted for OpenVINO, in a folder each.

A folder holds the network (`model.xml`, `model.bin`), for texts the tokenizer, and `converted.json`, which is written
last and has a digest of each. The network takes what a preparer makes: token ids and mask, or pixels as decoded.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embed.inputs.batch import BatchLimit, Preparer
from embed.inputs.clip_tokenizer import tokenizer_from_record
from embed.inputs.texts import TextPreparer
from store.errors import CorruptFileError, WorkspaceError
from store.local import TEMPORARY_PREFIX, open_regular, write_error
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

FOLDER = "openvino"  # beside an encoder's vectors
MODEL, WEIGHTS, TOKENIZER, RECORD = "model.xml", "model.bin", "tokenizer.json", "converted.json"
FORMAT = 1  # raised when the same encoder is converted otherwise
STALE_SECONDS = 3600.0


def installed_version() -> str | None:
    """Of OpenVINO; None where it is not installed."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


def converted_folder(workspace: Workspace, spec: EncoderSpec) -> Path:
    """Where an encoder's converted model lies: with its vectors; of a remote workspace in the user's cache."""
    if workspace.is_local:
        return Path(workspace.path(spec.folder)) / FOLDER
    return Path.home() / ".cache/shelfprice" / FOLDER / spec.fingerprint


@dataclass(frozen=True)
class ConvertedModel:
    """A folder that was read and checked."""

    folder: Path
    spec: EncoderSpec
    openvino: str  # version that converted it
    pad_id: int
    cosines: dict[str, float]  # type -> of the worst measured row to fp32 with torch

    @classmethod
    def read(cls, folder: Path) -> "ConvertedModel":
        """Read the record and check every file's digest.

        Raises:
            CorruptFileError: there is no converted model, it is not whole, or it is of another format.
        """
        try:
            record = Workspace(folder).read_json(RECORD)
            if record["format"] != FORMAT:
                raise CorruptFileError(f"{folder} was converted by another version of shelfprice")
            for name, sha256 in record["files"].items():
                if _sha256(folder / name) != sha256:
                    raise CorruptFileError(f"{folder / name} is damaged")
            spec = EncoderSpec.from_json(record["spec"])
            return cls(folder, spec, record["openvino"], record["pad_id"], record["cosines"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, WorkspaceError) as error:
            raise CorruptFileError(f"{folder} holds no whole converted model: {error}") from error

    @classmethod
    def publish(
        cls, folder: Path, spec: EncoderSpec, save: Callable[[Path], None], tokenizer: Any, pad_id: int
    ) -> "ConvertedModel":
        """Write a model into a folder; whoever reads it finds the old one, the new one, or none.

        Args:
            save: writes the network to the path of an XML file that it is given, the weights beside it.
            tokenizer: its `record()`, or None.

        Raises:
            WorkspaceError: the disk is full or the folder can't be written.
        """
        made = cls(folder, spec, installed_version() or "", pad_id, {})
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder) as work:
                save(Path(work) / MODEL)
                if tokenizer is not None:
                    (Path(work) / TOKENIZER).write_text(json.dumps(tokenizer), encoding="utf-8")
                names = sorted(os.listdir(work))
                digests = {name: _sha256(Path(work) / name) for name in names}
                for name in names:
                    os.replace(Path(work) / name, folder / name)
            made._write_record(digests)
        except OSError as error:
            raise write_error(str(folder), error) from error
        return made

    def with_cosine(self, dtype: str, cosine: float) -> "ConvertedModel":
        """The same with what was measured of one type, on record."""
        measured = replace(self, cosines={**self.cosines, dtype: cosine})
        measured._write_record(Workspace(self.folder).read_json(RECORD)["files"])
        return measured

    def tokenizer(self) -> Any:
        """Texts -> `Tokens`, as the encoder's own."""
        return tokenizer_from_record(json.loads((self.folder / TOKENIZER).read_bytes()))

    def preparer(self, limit: BatchLimit) -> Preparer:
        """Of texts."""
        return TextPreparer(self.tokenizer(), self.pad_id, limit)

    def _write_record(self, digests: dict[str, str]) -> None:
        record = {
            "format": FORMAT,
            "openvino": self.openvino,
            "spec": self.spec.to_json(),
            "pad_id": self.pad_id,
            "cosines": self.cosines,
            "files": digests,
        }
        Workspace(self.folder).publish_json(RECORD, record)


def find_converted(folder: Path, spec: EncoderSpec) -> ConvertedModel | None:
    """The converted model of an encoder, whole and by this OpenVINO; None where there is none.

    Eight bits were measured out on some rows once and for all, whichever OpenVINO it was.
    """
    try:
        model = ConvertedModel.read(folder)
    except CorruptFileError:
        return None
    is_current = spec.precision == "int8" or model.openvino == installed_version()
    return model if is_current and model.spec.fingerprint == spec.fingerprint else None


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """Delete what killed processes left half-written."""
    for entry in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if entry.is_dir() and time.time() - entry.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)
