"""Encoder names and addresses -> the library that knows them.

A library is a file of `embed.encoders.libraries`, what an installed package names under the entry-point group
`shelfprice.encoders`, or what was given to `register_encoder`. All are the same to whoever asks (see `Library`).
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from urllib.parse import parse_qsl

from embed.encoders.base import Address, Library
from embed.encoders.hub import local_path
from store.errors import ConfigError, EncoderError
from store.vectors.sets import TUNED

ENTRY_POINTS = "shelfprice.encoders"
TOWERS = ("image", "text")
Libraries = Mapping[str, Library]  # by prefix

_registered: dict[str, Library] = {}


def register_encoder(library: Library) -> None:
    """Register a library of encoders in this process, under its prefix and its short names.

    A package does the same for every process, Ray's workers too, by an entry point of the group
    `shelfprice.encoders` that names its module. `embed.testing.check_encoder` says whether an encoder does all that
    the cache relies on.

    Args:
        library: a module or an object with `PREFIX`, `resolve` and `load`, see `embed.encoders.base.Library`.
            Registering a prefix again replaces what was registered under it.

    Raises:
        ConfigError: it lacks one of those, or its prefix belongs to one of the libraries that come with shelfprice.
    """
    _check_library(library, str(getattr(library, "__name__", library)))
    if library.PREFIX in _built_in():
        raise ConfigError(
            f"prefix {library.PREFIX!r} is taken by {_built_in()[library.PREFIX]}: choose another"
        )
    _registered[library.PREFIX] = library


def library_of(address: Address) -> Library:
    """The library that resolves and loads an address.

    Raises:
        EncoderError: it is not known in this process.
    """
    libraries = _libraries_with(address.library, "")
    if address.library not in libraries:
        raise EncoderError(
            f"{address.name}: no library {address.library!r} is known in this process: call register_encoder, or name "
            f"it in the entry-point group {ENTRY_POINTS!r} of a package that is installed wherever encoders run"
        )
    return libraries[address.library]


def parse_address(text: str) -> Address:
    """Take apart `alias`, `library:model`, or a local folder; each with `.image`/`.text` and `?key=value&...`.

    Raises:
        EncoderError: unknown alias (nearest names offered), unknown library, malformed options.
    """
    body, _, query = text.partition("?")
    options = _options(text, query)
    stem, tower = _split_tower(body)
    prefix, colon, model = body.partition(":")
    libraries = _libraries_with(prefix if colon else "", stem)
    aliases = _aliases(libraries)
    if stem in aliases:
        target = parse_address(aliases[stem])
        _check_tower(text, libraries, target.library, tower)
        return Address(text, target.library, target.model, tower, {**target.options, **options})
    if colon and prefix in libraries and model:
        model, tower = _split_tower(model) if _towers(libraries[prefix]) else (model, None)
        return Address(text, prefix, model, tower, options)
    if local_path(body).is_dir():
        return Address(text, _library_of_folder(local_path(body), libraries), body, None, options)
    if local_path(stem).is_dir() and tower:
        prefix = _library_of_folder(local_path(stem), libraries)
        _check_tower(text, libraries, prefix, tower)
        return Address(text, prefix, stem, tower, options)
    if text.startswith(TUNED):
        raise EncoderError(f"{text} is a fine-tuned encoder: 'shelfprice embed finetune' makes its vectors")
    if colon and prefix not in libraries:
        raise EncoderError(f"{text}: unknown library {prefix!r}, one of {', '.join(libraries)}")
    if colon:
        raise EncoderError(f"{text}: an address is {prefix}:MODEL")
    raise EncoderError(
        f"unknown encoder {text!r}{_suggest(stem, aliases)}; or an address such as timm:MODEL, or a folder"
    )


# ---- finding libraries ---------------------------------------------------------------------------


def _libraries_with(prefix: str, alias: str) -> Libraries:
    """Known libraries; installed packages are searched for more where these know neither prefix nor alias."""
    known = {**_built_in(), **_registered}
    return known if prefix in known or alias in _aliases(known) else {**_installed(), **known}


@cache
def _built_in() -> Libraries:
    folder = importlib.import_module("embed.encoders.libraries")
    modules = [
        importlib.import_module(f"{folder.__name__}.{one.name}")
        for one in pkgutil.iter_modules(folder.__path__)
    ]
    return {module.PREFIX: module for module in modules}


@cache
def _installed() -> Libraries:
    found: dict[str, Library] = {}
    for entry_point in entry_points(group=ENTRY_POINTS):
        library = _loaded(entry_point)
        if library.PREFIX in {*found, *_built_in()}:
            raise EncoderError(
                f"{_named(entry_point)}: prefix {library.PREFIX!r} is taken: uninstall one of the two"
            )
        found[library.PREFIX] = library
    return found


def _loaded(entry_point: EntryPoint) -> Library:
    try:
        library: Library = entry_point.load()
    except Exception as error:  # whatever the code of another package raises
        raise EncoderError(f"{_named(entry_point)} can't be imported: {error}") from error
    _check_library(library, _named(entry_point))
    return library


def _named(entry_point: EntryPoint) -> str:
    package = f" of {entry_point.dist.name}" if entry_point.dist else ""
    return f"entry point {entry_point.name!r} ({entry_point.value}){package}"


def _check_library(library: Library, name: str) -> None:
    """Raises ConfigError where what is needed of a library is not there."""
    lacking = [one for one in ("PREFIX", "resolve", "load") if not hasattr(library, one)]
    if lacking:
        raise ConfigError(f"{name} is no library of encoders: it has no {', '.join(lacking)}")
    if not library.PREFIX.isidentifier():
        raise ConfigError(f"{name}: PREFIX must be a word of letters, digits and _, got {library.PREFIX!r}")


def _aliases(libraries: Libraries) -> dict[str, str]:
    """Short name -> address."""
    own: Iterable[tuple[str, Mapping[str, str]]] = (
        (prefix, getattr(library, "ALIASES", {})) for prefix, library in libraries.items()
    )
    return {alias: f"{prefix}:{target}" for prefix, aliases in own for alias, target in aliases.items()}


def _towers(library: Library) -> tuple[str, ...]:
    return tuple(getattr(library, "TOWERS", ()))


def _options(text: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
    except ValueError as error:
        raise EncoderError(f"{text}: options are written ?key=value&key=value, got {query!r}") from error
    options = dict(pairs)
    if len(options) < len(pairs):
        twice = next(key for key in options if [key for key, _ in pairs].count(key) > 1)
        raise EncoderError(f"{text}: the option {twice!r} is given twice")
    return options


def _split_tower(body: str) -> tuple[str, str | None]:
    stem, _, suffix = body.rpartition(".")
    return (stem, suffix) if stem and suffix in TOWERS else (body, None)


def _check_tower(text: str, libraries: Libraries, prefix: str, tower: str | None) -> None:
    if tower is not None and tower not in _towers(libraries[prefix]):
        having = [name for name, library in libraries.items() if _towers(library)]
        raise EncoderError(f"{text}: only models of {', '.join(having)} have towers: leave out .{tower}")


def _library_of_folder(folder: Path, libraries: Libraries) -> str:
    found: dict[str, int] = {}
    for prefix, library in libraries.items():
        file = getattr(library, "FOLDER_FILE", None)
        if file and (folder / file).is_file():
            found[prefix] = library.recognizes(folder) if hasattr(library, "recognizes") else 2
    best = max(found, key=lambda prefix: found[prefix], default=None)
    if best is not None and found[best]:
        return best
    files = {name: getattr(library, "FOLDER_FILE", None) for name, library in libraries.items()}
    expected = ", ".join(f"{file} ({name})" for name, file in files.items() if file)
    raise EncoderError(f"{folder} holds no model: expected one of {expected}")


def _suggest(stem: str, aliases: Iterable[str]) -> str:
    names = difflib.get_close_matches(stem, list(aliases), n=3, cutoff=0.5)
    return f", did you mean {', '.join(names)}?" if names else f", one of {', '.join(aliases)}"
