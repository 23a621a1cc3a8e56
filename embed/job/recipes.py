"""Vectors whose recipe is another now: the line of `shelfprice status` about encoders."""

from pathlib import Path

from embed.encoders.base import Sources
from embed.encoders.recipes import differences, told
from embed.encoders.registry import library_of, parse_address
from embed.encoders.resolve import FORMAT, MEMORY
from store.errors import CorruptFileError, ShelfpriceError
from store.vectors.sets import TUNED, current_encoders, current_spec
from store.vectors.spec import EncoderSpec, slug
from store.workspace import Workspace


def changed_recipes(workspace: Workspace) -> list[str]:
    """A line for each encoder whose current vectors are not those that its address stands for now.

    An encoder that `plan` or `run` has resolved with this version is remembered; another is looked up by its files on
    this machine, none of which is hashed, and passed over where they are not there.
    """
    lines = []
    for name in current_encoders(workspace):
        if name.startswith(TUNED):
            continue
        before = current_spec(workspace, name)
        now = _remembered(workspace, name) or _looked_up(name)
        for spec, notes in now:
            if spec.name == name and differences(before, spec):
                lines.append(told(before, spec, notes))
    return lines


def _remembered(workspace: Workspace, name: str) -> list[tuple[EncoderSpec, tuple[str, ...]]]:
    stem = name.removesuffix(".image").removesuffix(".text")
    found = []
    for record in workspace.names(MEMORY, f"{slug(stem)}", ".json"):
        try:
            memory = workspace.read_json(f"{MEMORY}/{record}")
            if memory["question"]["format"] == FORMAT:
                answers = memory["answer"]
                found += [(EncoderSpec.from_json(one["spec"]), tuple(one["notes"])) for one in answers]
        except (CorruptFileError, KeyError, TypeError):
            continue
    return [one for one in found if one[0].name == name]


def _looked_up(name: str) -> list[tuple[EncoderSpec, tuple[str, ...]]]:
    try:
        address = parse_address(name)
        found = library_of(address).resolve(address, Sources(offline=True, weights=False), _no_digest)
    except (ShelfpriceError, ImportError):  # its files are elsewhere, or its library is not installed
        return []
    return [(one.spec, one.notes) for one in found]


def _no_digest(path: Path) -> str:
    return ""
