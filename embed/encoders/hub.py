"""Where a model's files lie: a local folder, the folder of fetched models, the hub's cache, the hub."""

import contextlib
import json
import logging
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from embed.encoders.audit import TOKEN_FILES
from embed.encoders.base import Address, HashFile, Sources
from store.errors import EncoderError
from store.local import open_regular
from store.vectors.spec import digest, slug

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
OF_WEIGHTS = (*WEIGHT_SUFFIXES, ".index.json")
ANSWER_SECONDS = 5.0  # that the hub has to say which files a model has, where its weights are here
CARD = "README.md"  # the model card: licence, and what its authors say of it


def local_path(text: str) -> Path:
    """A path as a user writes it.

    Raises:
        EncoderError: it can't be one: a user that is not there, or too long.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        shown = text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
        raise EncoderError(f"{shown!r} can't be the path of a model: {reason}") from error
    return path


def is_local(address: Address) -> bool:
    """Whether an address names a folder of this machine."""
    return local_path(address.model).is_dir()


def model_names(address: Address, config: dict[str, Any]) -> list[str]:
    """What a model is called, without its owner: by its address, and by the configuration that it was saved with."""
    names = (address.model, config.get("_name_or_path") or "")
    return [name.rstrip("/").rpartition("/")[2] for name in names if name]


def model_folder(
    address: Address,
    sources: Sources,
    *,
    wanted: Sequence[str],
    complete: Callable[[Path], list[str]],
    packaged: Path | None = None,
) -> Path:
    """The first folder that holds all of a model.

    Args:
        address: its `model` is a hub name or a local folder.
        wanted: glob patterns of the files to fetch from the hub; the model card comes along.
        complete: which files a folder still lacks, empty where it holds the whole model.
        packaged: a folder inside an installed package, or None.

    Raises:
        EncoderError: a local folder lacks files, or nothing was found; names the files, every folder looked in and
            the command that fetches them.
    """
    wanted = _needed((*wanted, CARD), sources)

    def lacking(folder: Path) -> list[str]:
        return _needed(complete(folder), sources)

    folder = _find_folder(address, sources, wanted, lacking, packaged)
    if sources.copy_to is None or is_local(address):
        return folder
    copied = sources.copy_to / slug(address.model)
    _copy_model(folder, copied, wanted)
    if lacking(copied):  # the weights go by a name that was not asked for
        _copy_model(folder, copied, [f"*{suffix}" for suffix in WEIGHT_SUFFIXES])
    return copied


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _needed(names: Sequence[str], sources: Sources) -> list[str]:
    return [name for name in names if sources.weights or not name.endswith(WEIGHT_SUFFIXES)]


def _find_folder(
    address: Address,
    sources: Sources,
    wanted: Sequence[str],
    complete: Callable[[Path], list[str]],
    packaged: Path | None,
) -> Path:
    local = local_path(address.model)
    if local.is_dir():
        if lacking := complete(local):
            raise EncoderError(f"{address.name}: {local} lacks {', '.join(lacking)}: complete the folder")
        return local.resolve()
    looked = []
    candidates = [sources.models_dir / slug(address.model)] if sources.models_dir else []
    candidates += [packaged] if packaged is not None else []
    for folder in candidates:
        if folder.is_dir() and not complete(folder):
            return folder.resolve()
        looked.append(str(folder))
    cached, _ = _snapshot(address, wanted, local_files_only=True)
    if cached is not None and not complete(cached):
        if not sources.offline:
            _complete_snapshot(address, cached, wanted)
        return cached
    looked.append(str(cached) if cached is not None else "the hub's cache")
    if not sources.offline:
        fetched, reason = _snapshot(address, wanted, local_files_only=False)
        if fetched is not None and not complete(fetched):
            return fetched
        looked.append(f"the hub ({reason or 'whose model is not whole'})")
    lacking = complete(cached if cached is not None else Path(looked[0]) / "nothing")
    raise EncoderError(
        f"{address.name}: no {', '.join(lacking)} of {address.model!r} in {'; '.join(looked)}: on a connected "
        f"machine run 'shelfprice embed fetch {_quoted(address.name)} --to DIR', then pass --models DIR here"
    )


def _quoted(name: str) -> str:
    """As a shell takes it: an address may hold question marks and ampersands."""
    return name if shlex.quote(name) == name else f'"{name}"'


def _copy_model(folder: Path, to: Path, wanted: Sequence[str]) -> None:
    """Copy the files of a model that are not there yet; each appears whole or not at all."""
    for source in sorted(folder.rglob("*")):
        relative = source.relative_to(folder)
        target = to / relative
        if not source.is_file() or not _matches(relative.as_posix(), wanted):
            continue
        if target.is_file() and target.stat().st_size == source.stat().st_size:
            continue
        partial = target.with_name(f".writing-{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise EncoderError(f"can't write {target}: {error.strerror or error}") from error


def _snapshot(address: Address, wanted: Sequence[str], *, local_files_only: bool) -> tuple[Path | None, str]:
    """A model's folder in the hub's cache, filled from the hub if need be; or None, and why.

    Raises:
        EncoderError: what should be a folder is none, and no name of a model either.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            address.model, allow_patterns=list(wanted), local_files_only=local_files_only
        )
    except HFValidationError as error:
        raise EncoderError(
            f"{address.name}: {address.model!r} is no folder here, and no name of a model on the hub (OWNER/MODEL)"
        ) from error
    except LocalEntryNotFoundError as error:
        return None, "which could not be reached" if error.__cause__ else "where it was not found"
    except Exception as error:  # noqa: BLE001 - of the hub, of the network beneath it, of a disk that is full
        return None, " ".join(str(error).split())[:200] or type(error).__name__
    return Path(found), ""


def _complete_snapshot(address: Address, cached: Path, wanted: Sequence[str]) -> None:
    """Fetch what another program left out of the hub's cache and vectors depend on, such as how tokens are pooled.

    At the commit of what is there. Weights and tokenizer, which are digested, stay what they are. Where the hub can't
    be asked, nothing happens.
    """
    from huggingface_hub import HfApi, snapshot_download

    patterns = [name for name in wanted if not name.endswith(OF_WEIGHTS)]
    if all("*" not in name and (cached / name).is_file() for name in patterns if name != CARD):
        return
    with contextlib.suppress(Exception):  # of the hub, of the network beneath it, of a disk that is full
        found = HfApi().model_info(address.model, revision=cached.name, timeout=ANSWER_SECONDS).siblings
        names = [one.rfilename for one in found or [] if _matches(one.rfilename, patterns)]
        names = [name for name in names if not name.endswith(OF_WEIGHTS) and not _matches(name, TOKEN_FILES)]
        if lacking := [name for name in names if not (cached / name).is_file()]:
            snapshot_download(address.model, revision=cached.name, allow_patterns=lacking)


def may_be_partial(folder: Path) -> bool:
    """Whether a folder is of the hub's cache and another program fetched into it what it wanted: no card lies there."""
    return folder.parent.name == "snapshots" and not (folder / CARD).is_file()


def remote_bytes(repository: str, patterns: Sequence[str]) -> int:
    """Size on the hub of the files that match the first pattern that any does; 0 where the hub can't be asked."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(repository, files_metadata=True).siblings or []
    except Exception:  # noqa: BLE001 - of the hub or of the network beneath it: sizes are for people
        return 0
    sizes = (sum(int(one.size or 0) for one in found if fnmatch(one.rfilename, p)) for p in patterns)
    return next((size for size in sizes if size), 0)


def model_card(folder: Path) -> str:
    """What a model's authors say of it; empty where they say nothing."""
    path = folder / CARD
    return path.read_text(errors="replace") if path.is_file() else ""


def licence(folder: Path) -> str | None:
    """As the head of the model card states it."""
    head = re.match(r"---\n(.*?)\n---", model_card(folder), re.DOTALL)
    stated = {
        key: found[1].strip().strip("'\"")
        for key in ("license", "license_name")
        if head and (found := re.search(rf"^{key}:\s*(\S.*)$", head[1], re.MULTILINE))
    }
    return stated.get("license_name") if stated.get("license") == "other" else stated.get("license")


def read_json(path: Path) -> Any:
    """A JSON file of a model.

    Raises:
        EncoderError: it is not JSON, or can't be read.
    """
    try:
        with open_regular(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} can't be read as JSON: {error}") from error


def digest_files(folder: Path, names: Sequence[str], hash_file: HashFile) -> str:
    """One SHA-256 over several files, by name and content; the file's own where there is one."""
    if len(names) == 1:
        return hash_file(folder / names[0])
    return digest({name: hash_file(folder / name) for name in sorted(names)}, characters=64)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the transformers family's progress bars and load reports off stderr: our errors say what matters."""
    from transformers.utils import logging as library_logging

    libraries = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    levels = [library.level for library in libraries]
    bars = library_logging.is_progress_bar_enabled()
    library_logging.disable_progress_bar()
    for library in libraries:
        library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.setLevel(level)
        if bars:
            library_logging.enable_progress_bar()
