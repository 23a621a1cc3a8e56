"""A folder of images: its files, and the row that each belongs to."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from store.catalog.download.addresses import split_links
from store.catalog.ingest.ids import Id
from store.catalog.read import SPLITS
from store.errors import CatalogError

# Of several images with one name, the first of these is taken.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif", ".heic")
_RANK = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
_EXAMPLES = 3
NO_ID = "\0"  # no file is named so
_NUMBERED = re.compile(r"(.+?)(?:[_-](\d{1,3})| \((\d{1,3})\))\Z", re.DOTALL)  # 10_0, 10-1, 10 (2)
_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)

# Why a file is taken whose name is not the usual one, in the order in which they are tried.
RULES = {
    "folder": "in a folder inside the folder of images",
    "form": "under a name in another Unicode form",
    "case": "under a name in other case",
    "zeros": "by a number with leading zeros",
    "numbered": "by their id and a number, or in a folder of their id",
    "extension": "under another extension than their link's, or one where it has none",
}


@dataclass(frozen=True)
class ImageFile:
    """One file; size and time are None where the system won't tell."""

    name: str  # relative to the folder
    n_bytes: int | None
    mtime_ns: int | None


@dataclass(frozen=True)
class Match:
    """The file of one row."""

    name: str
    rule: str | None = None  # of `RULES`; None: it has the usual name


class Folder:
    """One listing of a folder of images and of those in it.

    Args:
        names: files, relative to `path`.
        subfolders: names of the folders directly in it.
    """

    def __init__(self, path: str, names: Iterable[str], subfolders: Iterable[str]) -> None:
        self.path = path
        self.names = frozenset(names)
        self.subfolders = tuple(sorted(subfolders))

    @cached_property
    def _stems(self) -> list[tuple[str, str]]:
        """(name without extension, file) of images, the best extension of each."""
        ranked = [(_RANK.get(os.path.splitext(name)[1].lower()), name) for name in self.names]
        best: dict[str, str] = {}  # path without extension -> file
        for _, name in sorted((rank, name) for rank, name in ranked if rank is not None):
            best.setdefault(os.path.splitext(name)[0], name)
        return [(path.rpartition("/")[2], name) for path, name in best.items()]

    @cached_property
    def _bases(self) -> list[tuple[str, str]]:
        """(name, file) of every file."""
        return [(name.rpartition("/")[2], name) for name in sorted(self.names)]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _index(self._stems)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _index((_lower_extension(base), name) for base, name in self._bases)

    @cached_property
    def _by_composed_stem(self) -> dict[str, list[str]]:
        return _index((_composed(stem), name) for stem, name in self._stems)

    @cached_property
    def _by_composed_name(self) -> dict[str, list[str]]:
        return _index((_composed(_lower_extension(base)), name) for base, name in self._bases)

    @cached_property
    def _by_folded_stem(self) -> dict[str, list[str]]:
        return _index((_folded(stem), name) for stem, name in self._stems)

    @cached_property
    def _by_folded_name(self) -> dict[str, list[str]]:
        return _index((_folded(base), name) for base, name in self._bases)

    @cached_property
    def _by_unread_stem(self) -> dict[str, list[str]]:
        """Name without extension -> files of formats that are not read."""
        pairs = ((os.path.splitext(base), name) for base, name in self._bases)
        return _index(
            (_folded(stem), name) for (stem, end), name in pairs if end and end.lower() not in _RANK
        )

    @cached_property
    def _by_number(self) -> dict[str, list[str]]:
        return _index((stem.lstrip("0") or "0", name) for stem, name in self._stems if _is_number(stem))

    @cached_property
    def _by_owner(self) -> dict[str, list[tuple[int, str]]]:
        """Name of a file without the number at its end, or of the folder it is in -> (number, file)."""
        owners: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for stem, name in self._stems:
            if numbered := _NUMBERED.fullmatch(stem):
                owners[_composed(numbered[1])].append((int(numbered[2] or numbered[3]), name))
            if "/" in name:
                digits = re.search(r"\d{1,9}\Z", stem)
                owners[_composed(name.split("/")[-2])].append((int(digits[0]) if digits else 0, name))
        return dict(owners)

    def numbered(self, split: str, sample_id: Id, *, is_shared: bool = False) -> list[str]:
        """Files such as `<sample_id>_0.jpg` and `<sample_id>_1.jpg`, and those of a folder `<sample_id>`, in order."""
        others = set(SPLITS) - {split}
        found: list[tuple[int, str]] = []
        for owner in (str(sample_id), f"{split}_{sample_id}"):
            for number, name in self._by_owner.get(_composed(owner), ()):
                above = set(name.split("/")[:-1])
                if not above & others and (not is_shared or owner != str(sample_id) or split in above):
                    found.append((number, name))
        return [name for _, name in sorted(found)]

    def find(self, split: str, sample_id: Id, link: str | None, *, is_shared: bool = False) -> Match | None:
        """The file of one row: `<sample_id>.<ext>`, `<split>_<sample_id>.<ext>` or the file name of its link.

        Where there is no such file, the one that `RULES` lead to, if it is one alone.

        Args:
            is_shared: rows of both splits have this id, so that a file is theirs only if it names the split.
        """
        plain, named = str(sample_id), f"{split}_{sample_id}"
        for stem in [named] if is_shared else [plain, named]:
            if here := _directly(self._by_stem.get(stem, ())):
                return Match(here)
        names = link_file_names(link) if link else []
        for name in names:
            if here := _directly(self._by_name.get(_lower_extension(name), ())):
                return Match(here)
        folded = [_folded(name) for name in names]
        zeros = [plain] if _is_number(plain) and not is_shared else []
        tries: list[tuple[str, dict[str, list[str]], list[str]]] = [
            ("folder", self._by_stem, [plain, named]),
            ("folder", self._by_name, [_lower_extension(name) for name in names]),
            ("form", self._by_composed_stem, [_composed(plain), _composed(named)]),
            ("form", self._by_composed_name, [_composed(_lower_extension(name)) for name in names]),
            ("case", self._by_folded_stem, [_folded(plain), _folded(named)]),
            ("case", self._by_folded_name, folded),
            ("zeros", self._by_number, zeros),
            ("extension", self._by_folded_stem, [*folded, *(os.path.splitext(name)[0] for name in folded)]),
        ]
        for rule, index, keys in tries:
            for key in keys:
                if key in index:
                    needs_split = is_shared and _folded(key) == _folded(plain)
                    found = _only(index[key], split, link, needs_split)
                    if found is not None:
                        return Match(found, rule)
        return None

    def why_none(
        self, split: str, sample_id: Id, link: str | None, *, is_shared: bool = False
    ) -> tuple[str, str] | None:
        """Why no file is a row's although some have its name: the kind of reason, and what to do; see `find`."""
        plain, named = str(sample_id), f"{split}_{sample_id}"
        names = link_file_names(link) if link else []
        stems = [_folded(stem) for stem in (plain, named, *(os.path.splitext(name)[0] for name in names))]
        alike = [name for stem in stems for name in self._by_folded_stem.get(stem, ())]
        alike += [name for key in names for name in self._by_folded_name.get(_folded(key), ())]
        if _is_number(plain):
            alike += self._by_number.get(plain, ())
        others = set(SPLITS) - {split}
        alike = sorted(name for name in set(alike) if not set(name.casefold().split("/")[:-1]) & others)
        if is_shared and alike and alike[0] in self._by_folded_stem.get(stems[0], ()):
            base = alike[0].rpartition("/")[2]
            return "split", (
                f"{alike[0]} may be of train or of test, which share that id: name it train_{base} or test_{base}, or put "
                "it in a folder train or test"
            )
        if len(alike) > 1:
            return "several", (
                f"{alike[0]} and {alike[1]} could both be the image of row {sample_id}: keep one of them, or give its path "
                "in the column of images"
            )
        unread = [name for stem in stems for name in self._by_unread_stem.get(stem, ())]
        if unread and not alike:
            return "format", f"{unread[0]} is of a format that is not read: convert it to PNG or JPEG"
        return None

    def stat(self, name: str) -> ImageFile:
        try:
            status = os.stat(os.path.join(self.path, name))
        except OSError:
            return ImageFile(name, None, None)
        return ImageFile(name, status.st_size, status.st_mtime_ns)


def list_folder(path: str) -> Folder:
    """List a folder, and the folders in it, once; symbolic links to folders are not followed.

    Raises:
        CatalogError: there is no such folder, or no file in it.
    """
    names: list[str] = []
    subfolders: list[str] = []
    todo = [""]
    while todo:
        inside = todo.pop()
        try:
            with os.scandir(os.path.join(path, inside)) as entries:
                for entry in entries:
                    name = f"{inside}{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(f"{name}/")
                        subfolders.append(name)
                    elif os.path.isfile(entry.path) or not os.path.exists(entry.path):
                        names.append(name)  # a pipe is none: to read it would wait for ever
        except OSError as error:
            where = os.path.join(path, inside).rstrip("/")
            raise CatalogError(f"can't list the image folder {where}: {error.strerror or error}") from error
    top = [name for name in subfolders if "/" not in name]
    if not names:
        only = f", only folders ({', '.join(sorted(top)[:_EXAMPLES])}) without files" if top else ""
        raise CatalogError(f"the image folder {path} holds no files{only}")
    return Folder(path, names, top)


def link_file_names(link: str) -> list[str]:
    """What a file of this link may be called: of a URL or a path of any system, of a list of them the first.

    Query and fragment are dropped, %20 and the like decoded; a path may have such characters of its own.
    """
    text = link.strip("\"'`<> \t")
    links = split_links(text) if text else None
    text = _forward(text if links is None else next(iter(links), ""))
    shortened = text.split("?")[0].split("#")[0]
    bases = [
        one.rstrip("/").rsplit("/", 1)[-1] for one in (shortened, *(() if _URL.match(text) else (text,)))
    ]
    return [name for name in dict.fromkeys([unquote(bases[0]), *bases[1:]]) if name]


def no_match(
    folder: Folder, split: str, ids: list[Id], links: list[str | None], why: str | None
) -> CatalogError:
    """The error for a folder that matches no row, with examples of both sides.

    Args:
        why: a row has no image although some files have its name; see `Folder.why_none`.
    """
    none = f"not one of the {len(folder.names)} files in {folder.path} belongs to a row"
    if why is not None:
        return CatalogError(f"{none}: {why}")
    wanted = [f"{ids[0]}.jpg", f"{split}_{ids[0]}.jpg"]
    wanted.extend(name for link in links[:1] if link for name in link_file_names(link)[:1])
    found = ", ".join(sorted(folder.names)[:_EXAMPLES])
    inside = (
        f", its folders were looked through as well: {', '.join(folder.subfolders[:_EXAMPLES])}"
        if folder.subfolders
        else ""
    )
    return CatalogError(
        f"{none}: the first row's image would be {' or '.join(wanted)} (any extension), {ids[0]}_0.jpg, or a file in a "
        f"folder {ids[0]}, the folder holds {found}{inside}; check --images and --id-column"
    )


def _directly(names: Sequence[str]) -> str | None:
    """The first that lies in the folder itself."""
    return next((name for name in names if "/" not in name), None)


def _only(names: Sequence[str], split: str, link: str | None, needs_split: bool) -> str | None:
    """The one file that can be meant: none of the other split's folder, rather this split's, or the link's own path."""
    others = set(SPLITS) - {split}
    folders = {name: set(name.casefold().split("/")[:-1]) for name in names}
    left = [name for name in names if not folders[name] & others]
    own = [name for name in left if split in folders[name]]
    left = own if own or needs_split else left
    if len(left) > 1 and link:
        path = "/" + _folded(unquote(_forward(link).split("?")[0].split("#")[0]))
        left = [name for name in left if path.endswith(f"/{_folded(name)}")] or left
    return left[0] if len(left) == 1 else None


def _index(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = defaultdict(list)
    for key, name in pairs:
        index[key].append(name)
    return dict(index)


def _composed(text: str) -> str:
    """In the one Unicode form in which equal texts are equal: files of a Mac have accents as characters of their own."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(text).casefold()


def _forward(path: str) -> str:
    """A path with forward slashes, without `file:`; a URL stays as it is."""
    return path if _URL.match(path) else re.sub(r"^file:", "", path.replace("\\", "/"), flags=re.IGNORECASE)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _lower_extension(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem + extension.lower()
