"""Files and folders that a user names for results: checked before anything is computed, so that nothing else is lost."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from store.contracts import ANY, contract_of
from store.errors import ConfigError, WorkspaceError
from store.local import NotRegularError, open_regular
from store.workspace import Workspace

MODEL_MANIFEST = "model.json"  # of a packed model, which holds files of its own alone
MODEL_KIND = "shelfprice price model"  # first value of that file
# Of a workspace: what lies below these folders, or is called so, is its own.
OWN_FOLDERS = ("blend", "catalog", "finetune", "fit", "images", "predictions", "tuning", "vectors")
OWN_FILES = ("catalog.html", "intervals.csv", "report.html", "submission.csv")
FIRST_BYTES = 2**16  # of a file, which tell who wrote it

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Output:
    """A file or folder that an option names.

    Args:
        is_ours: whether a file that is there was written by the same command, by its first bytes; None: that is
            checked elsewhere, as for folders.
    """

    path: Path | None
    is_ours: Callable[[bytes], bool] | None = None


def check_outputs(
    outputs: Mapping[str, Output], inputs: Iterable[Path] = (), workspace: Workspace | None = None
) -> None:
    """Check every place that a command is told to write to.

    Args:
        outputs: by option.
        inputs: what the command reads.
        workspace: whose own files are left alone.

    Raises:
        ConfigError: an output is an input, another output, part of a packed model or of the workspace, or would
            replace a file that the command did not write.
    """
    taken = {os.path.realpath(one): os.fspath(one) for one in inputs}
    for option, output in outputs.items():
        if output.path is None:
            continue
        path = os.fspath(output.path)
        place = os.path.realpath(path)
        if place in taken or (said := _same_file(place, taken)) is not None:
            raise ConfigError(f"{option} {path} is also {taken.get(place) or said}: name another")
        taken[place] = f"what {option} names"
        if (model := _model_above(place)) is not None:
            raise ConfigError(
                f"{option} {path} is within the packed model {model}, whose files are its own: name another place"
            )
        if workspace is not None and _is_own(place, workspace):
            raise ConfigError(
                f"{option} {path} is a place of the workspace's own files: name one outside of {workspace.root}"
            )
        if output.is_ours is not None and os.path.lexists(place) and not _was_written(place, output.is_ours):
            raise ConfigError(
                f"{option} {path} is there and was not written by this command: name another file, or delete it first"
            )


def has_header(*last: str) -> Callable[[bytes], bool]:
    """Whether a file is empty, or a CSV of one column of ids and these."""

    def is_ours(content: bytes) -> bool:
        line = content.decode("utf-8", "replace").partition("\n")[0]
        header = next(csv.reader([line]), [])
        return not content or (len(header) == 1 + len(last) and tuple(header[1:]) == last)

    return is_ours


def _was_written(place: str, is_ours: Callable[[bytes], bool]) -> bool:
    try:
        with open_regular(place) as file:
            return is_ours(file.read(FIRST_BYTES))
    except NotRegularError:
        return False
    except OSError as error:
        raise WorkspaceError(f"can't read {place}, which would be replaced: {error.strerror}") from error


def _same_file(place: str, taken: Mapping[str, str]) -> str | None:
    """The name of a file that is the same one by a hard link."""
    return next((name for one, name in taken.items() if os.path.exists(place) and _is_same(one, place)), None)


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.samefile(one, other)


def _model_above(place: str) -> str | None:
    """The packed model that a path lies in; None: it lies in none."""
    folder = os.path.dirname(place)
    while True:
        try:
            with open_regular(os.path.join(folder, MODEL_MANIFEST)) as file:
                if MODEL_KIND.encode() in file.read(FIRST_BYTES):
                    return folder
        except OSError:
            pass
        if folder == os.path.dirname(folder):
            return None
        folder = os.path.dirname(folder)


def _is_own(place: str, workspace: Workspace) -> bool:
    """Whether a path is that of a file or folder that a workspace has, or may have."""
    if not workspace.is_local:
        return False
    relative = os.path.relpath(place, os.path.realpath(workspace.path(""))).replace(os.sep, "/")
    is_known = contract_of(relative) is not ANY or relative in OWN_FILES
    return relative == "." or is_known or relative.partition("/")[0] in OWN_FOLDERS
