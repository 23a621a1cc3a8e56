"""Caches resolved encoders in the workspace, so that a run with nothing to do imports no model library."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embed.encoders.base import Address, Resolved, Sources
from embed.encoders.registry import library_of, parse_address
from embed.encoders.remote_code import REMOTE_CODE
from store.errors import ConfigError, CorruptFileError, EncoderError, WorkspaceError
from store.local import open_regular
from store.vectors.spec import EncoderSpec, digest, slug
from store.workspace import Workspace

MEMORY = "vectors/resolved"
FORMAT = 3  # raised when a library file resolves the same address otherwise
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


def resolve(workspace: Workspace, name: str, sources: Sources, precision: str = "auto") -> list[Resolved]:
    """Find an encoder's weights and preprocessing, or remember them where no file has changed.

    Args:
        name: alias, address or folder, without composition; both towers where it names a model with two.
        precision: the policy, part of the fingerprint.

    Raises:
        EncoderError: unknown encoder, or files missing.
        ConfigError: unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    address = parse_address(name)
    library = library_of(address)
    distribution = getattr(library, "DISTRIBUTION", None)
    question = _question(address, sources, distribution) if distribution else None
    record = f"{MEMORY}/{slug(name)}-{digest(question)}.json"
    found = None
    if question and not sources.trust_remote_code:  # no code is run because a file of a workspace says so
        found = _recall(workspace, record, question)
    if found is None:
        found = library.resolve(address, sources, _hash_through(workspace))
        if question:
            _remember(
                workspace, record, {"question": question, "files": _stats(found), "answer": _plain(found)}
            )
    return [replace(one, spec=replace(one.spec, precision=precision)) for one in found]


def _question(address: Address, sources: Sources, distribution: str) -> dict[str, Any]:
    """All that the answer depends on, besides the files that it names."""
    try:
        library_version = version(distribution)
    except PackageNotFoundError as error:
        raise EncoderError(f"{address.name} needs {distribution}: pip install {distribution}") from error
    named = [path for name in (address.model, *address.options.values()) if (path := _existing(name))]
    return {
        "format": FORMAT,
        "address": dataclasses.asdict(address),
        "paths": [str(path.resolve()) for path in named],  # the same name elsewhere is another
        "models_dir": str(sources.models_dir) if sources.models_dir else None,
        "offline": sources.offline,  # else the hub's cache is completed first
        "version": library_version,
    }


def _recall(workspace: Workspace, record: str, question: dict[str, Any]) -> list[Resolved] | None:
    if not workspace.exists(record):
        return None
    try:
        memory = workspace.read_json(record)
        found = [_from_plain(answer) for answer in memory["answer"]]
        same = memory["question"] == question and memory["files"] == _stats(found)
        return found if same and not any(REMOTE_CODE in one.spec.extra for one in found) else None
    except (CorruptFileError, KeyError, TypeError, OSError):
        return None


def _existing(name: str) -> Path | None:
    """A path that a model or an option names, where there is such a file or folder."""
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user: no path
        return None


def _remember(workspace: Workspace, record: str, memory: dict[str, Any]) -> None:
    with contextlib.suppress(WorkspaceError):  # `plan` works on a workspace that can't be written
        workspace.publish_json(record, memory)


def _plain(found: Sequence[Resolved]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in found]


def _from_plain(answer: dict[str, Any]) -> Resolved:
    address, spec = Address(**answer["address"]), EncoderSpec.from_json(answer["spec"])
    return Resolved(
        address,
        spec,
        answer["files"],
        answer["library_version"],
        tuple(answer["notes"]),
        answer["n_parameters"],
        answer["stored_as"],
    )


def _stats(found: Sequence[Resolved]) -> dict[str, Any]:
    """Size and modification time of every file that an answer names; a folder stands for the files in it."""
    stats = {}
    for one in found:
        for location in one.files.values():
            path = Path(location)
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    stats[str(file)] = _stat(str(file))
    return stats


def _stat(path: str) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def _hash_through(workspace: Workspace) -> Any:
    def hash_file(path: Path) -> str:
        """SHA-256, read from the workspace where size and modification time are as they were."""
        real = path.resolve()
        record = f"{MEMORY}/hashes/{digest(str(real))}.json"
        stat = _stat(str(real))
        if workspace.exists(record):
            with contextlib.suppress(CorruptFileError, KeyError, TypeError):
                memory = workspace.read_json(record)
                if memory["path"] == str(real) and memory["stat"] == stat:
                    return str(memory["sha256"])
        try:
            with open_regular(real) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise EncoderError(f"can't read {real}: {error.strerror or error}") from error
        _remember(workspace, record, {"path": str(real), "stat": stat, "sha256": sha256})
        return sha256

    return hash_file
