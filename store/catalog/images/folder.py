"""A folder of images: its files, and which of them is whose."""

import os
from dataclasses import dataclass
from urllib.parse import unquote

from store.catalog.ingest.ids import Id
from store.errors import CatalogError

# Of several images with one name, the first of these is taken.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif", ".heic")
_RANK = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
_EXAMPLES = 3


@dataclass(frozen=True)
class ImageFile:
    """One file; size and time are None where the system won't tell."""

    name: str
    n_bytes: int | None
    mtime_ns: int | None


@dataclass(frozen=True)
class Folder:
    """One listing of a folder of images (not of the folders in it)."""

    path: str
    names: frozenset[str]
    by_stem: dict[str, str]  # name without extension -> file name
    by_name: dict[str, str]  # name with its extension in lower case -> file name
    subfolders: tuple[str, ...]

    def find(self, split: str, sample_id: Id, link: str | None) -> str | None:
        """The file of one row: `<sample_id>.<ext>`, `<split>_<sample_id>.<ext>` or the file name of its link."""
        found = self.by_stem.get(str(sample_id)) or self.by_stem.get(f"{split}_{sample_id}")
        if found is None and link:
            found = self.by_name.get(_lower_extension(link_file_name(link)))
        return found

    def stat(self, name: str) -> ImageFile:
        try:
            status = os.stat(os.path.join(self.path, name))
        except OSError:
            return ImageFile(name, None, None)
        return ImageFile(name, status.st_size, status.st_mtime_ns)


def list_folder(path: str) -> Folder:
    """List a folder once.

    Raises:
        CatalogError: there is no such folder, or no file in it.
    """
    names: list[str] = []
    subfolders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    subfolders.append(entry.name)
                elif entry.is_file() or not os.path.exists(entry.path):
                    names.append(entry.name)  # a pipe is none: to read it would wait for ever
    except OSError as error:
        raise CatalogError(f"can't list the image folder {path}: {error.strerror or error}") from error
    if not names:
        inside = (
            f", only folders ({', '.join(sorted(subfolders)[:_EXAMPLES])}): name one of them"
            if subfolders
            else ""
        )
        raise CatalogError(f"the image folder {path} holds no files{inside}")
    by_stem: dict[str, str] = {}
    ranked = [(_RANK.get(os.path.splitext(name)[1].lower()), name) for name in names]
    for _, name in sorted((rank, name) for rank, name in ranked if rank is not None):
        by_stem.setdefault(os.path.splitext(name)[0], name)
    by_name = {_lower_extension(name): name for name in sorted(names, reverse=True)}
    return Folder(path, frozenset(names), by_stem, by_name, tuple(sorted(subfolders)))


def link_file_name(link: str) -> str:
    """The file name at the end of a link: query and fragment dropped, %20 and the like decoded."""
    return unquote(link.split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1])


def no_match(folder: Folder, split: str, ids: list[Id], links: list[str | None]) -> CatalogError:
    """The error for a folder that matches no row, with examples of both sides."""
    wanted = [f"{ids[0]}.jpg", f"{split}_{ids[0]}.jpg"]
    wanted.extend(link_file_name(link) for link in links[:1] if link)
    found = ", ".join(sorted(folder.names)[:_EXAMPLES])
    inside = (
        f", and folders, which are not entered: {', '.join(folder.subfolders[:_EXAMPLES])}"
        if folder.subfolders
        else ""
    )
    return CatalogError(
        f"not one of the {len(folder.names)} files in {folder.path} belongs to a row: the first row's image would be "
        f"{' or '.join(wanted)} (any extension), the folder holds {found}{inside}; check --images and --id-column"
    )


def _lower_extension(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem + extension.lower()
