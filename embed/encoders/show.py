"""Everything that decides an encoder's vectors, its licence and its size, before any weights are downloaded."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from embed.encoders.base import Resolved, Sources
from embed.encoders.hub import WEIGHT_SUFFIXES, is_local, licence, remote_bytes
from embed.encoders.recipes import Recipe, recipe_of
from embed.encoders.registry import library_of, parse_address


@dataclass(frozen=True)
class Shown:
    """One encoder as its files describe it."""

    encoder: str
    library: str
    licence: str | None  # as the model card states it; None: it states none
    weights_bytes: int  # on disk, or on the hub; 0: not known
    memory_bytes: int  # of the weights once loaded; 0: not known
    recipe: Recipe
    notes: tuple[str, ...]
    spec: dict[str, Any]  # without the digest of the weights, which are not read


def show(names: Sequence[str], sources: Sources) -> list[Shown]:
    """Resolve encoders by what describes them alone.

    Raises:
        EncoderError: unknown encoder, its files can't be found, or a model that can't be embedded with rightly.
    """
    found = []
    for name in names:
        address = parse_address(name)
        library = library_of(address)
        is_remote = not is_local(address) and not sources.offline
        on_hub = getattr(library, "weights_on_hub", None) if is_remote else None
        for one in library.resolve(address, replace(sources, weights=False), _digest):
            folder = _folder(one)
            n_bytes = _weights_in(folder, one)
            if not n_bytes and on_hub is not None:
                n_bytes = remote_bytes(*on_hub(address))
            spec = one.spec.to_json()
            del spec["weights_sha256"]
            found.append(
                Shown(
                    one.spec.name,
                    f"{one.spec.library} {one.library_version}",
                    (licence(folder) if folder else None) or _package_licence(one),
                    n_bytes,
                    one.memory_bytes,
                    recipe_of(one.spec),
                    one.notes,
                    spec,
                )
            )
    return found


def show_lines(shown: Shown) -> list[str]:
    """For people."""
    size = f"{shown.weights_bytes / 1e6:,.0f} MB of weights" if shown.weights_bytes else "weights not counted"
    memory = f", {shown.memory_bytes / 1e9:.2f} GB in memory" if shown.memory_bytes else ""
    lines = [f"{shown.encoder}: {shown.library}, licence {shown.licence or 'not stated'}, {size}{memory}"]
    lines += [f"  {what}: {how}" for what, how in shown.recipe.items()]
    return lines + [f"  why: {note}" for note in shown.notes]


def show_record(shown: Shown) -> dict[str, Any]:
    """As JSON."""
    return asdict(shown)


def _digest(path: Path) -> str:
    """Of what is small; weights are not read."""
    if path.suffix in WEIGHT_SUFFIXES or not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder(resolved: Resolved) -> Path | None:
    where = resolved.files.get("folder") or resolved.files.get("config") or resolved.files.get("weights")
    if where is None:
        return None
    return Path(where) if Path(where).is_dir() else Path(where).parent


def _weights_in(folder: Path | None, resolved: Resolved) -> int:
    own = Path(resolved.files.get("weights", ""))
    if own.is_file():
        return own.stat().st_size
    files = (
        []
        if folder is None
        else [f for f in folder.rglob("*") if f.suffix in WEIGHT_SUFFIXES and f.is_file()]
    )
    return sum(file.stat().st_size for file in files)


def _package_licence(resolved: Resolved) -> str | None:
    """Of weights that an installed package carries."""
    package = resolved.files.get("package")
    try:
        stated = metadata(package)["License"] if package else None
        return None if stated == "UNKNOWN" else stated
    except PackageNotFoundError:
        return None
