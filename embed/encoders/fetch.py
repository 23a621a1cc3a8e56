"""Downloads models from the hub into its cache, or into a folder for a machine without network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embed.encoders.base import Resolved, Sources
from embed.encoders.registry import library_of, parse_address
from store.errors import EncoderError


@dataclass(frozen=True)
class Fetched:
    """One encoder whose files are all there now."""

    encoder: str
    files: dict[str, str]  # role -> path
    n_bytes: int


def fetch(names: Sequence[str], to: Path | None = None, *, trust_remote_code: bool = False) -> list[Fetched]:
    """Make every file of some encoders available, asking the hub for what is missing.

    Args:
        names: aliases or addresses.
        to: copy the files into this folder as well, which then serves as `--models` without network.
        trust_remote_code: fetch models too that bring code of their own, which is then run when they are used.

    Raises:
        EncoderError: unknown encoder, the hub can't be reached or has no such model, the folder can't be written.
    """
    addresses = [parse_address(name) for name in names]
    fetched = []
    for address in addresses:
        library = library_of(address)
        sources = Sources(models_dir=to, copy_to=to, trust_remote_code=trust_remote_code)
        found = library.resolve(address, sources, _no_hash)
        if to is not None:  # prove that the copy is whole
            found = library.resolve(address, replace(sources, copy_to=None, offline=True), _no_hash)
        files = {role: path for one in found for role, path in one.files.items()}
        fetched.append(Fetched(address.name, files, _n_bytes(found)))
    return fetched


def _no_hash(path: Path) -> str:
    """Fetching needs no digest of gigabytes."""
    if not path.is_file():
        raise EncoderError(f"{path} is gone: fetch it again")
    return ""


def _n_bytes(found: Sequence[Resolved]) -> int:
    paths = {Path(path) for one in found for path in one.files.values()}
    files = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])}
    return sum(file.stat().st_size for file in files if file.is_file())
