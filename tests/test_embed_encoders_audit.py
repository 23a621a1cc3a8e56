"""No file that a model's own library opens is passed over here: each is read before the fingerprint is made, or declared harmless."""

import contextlib
import hashlib
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from embed.encoders.audit import DECIDES, HARMLESS, audit_folder
from embed.encoders.base import Sources
from embed.encoders.libraries import open_clip, sentence_transformers, timm, transformers
from embed.encoders.registry import library_of, parse_address
from embed.encoders.transformers_images import BESIDE, SIGNS
from store.errors import EncoderError
from tests.fake_models import save_tiny_bert
from tests.test_embed_encoders_families import (
    IMAGE_FAMILIES,
    JOINT_FAMILIES,
    TEXT_FAMILIES,
    joint_rows,
    photo,
)

OF_LIBRARY = {
    "st": sentence_transformers.TEXT_HARMLESS | SIGNS | BESIDE,
    "hf": transformers.TEXT_HARMLESS | SIGNS | BESIDE,
    "timm": timm.OF_OTHERS,
    "open_clip": open_clip.OF_OTHERS,
}
CARDS = (
    "README.md",
    "modules.json",
    "modeling_*.py",
)  # for people; which modules there are, which resolve reads
_watching: list[tuple[Path, set[str]]] = []


def _watch(event, arguments):
    if event == "open" and _watching and isinstance(arguments[0], (str, bytes, Path)):
        folder, names = _watching[-1]
        with contextlib.suppress(ValueError, OSError, TypeError):
            path = Path(arguments[0] if not isinstance(arguments[0], bytes) else arguments[0].decode())
            names.add(path.resolve().relative_to(folder).as_posix())


@contextlib.contextmanager
def opened_in(folder):
    """Names of the files of a folder that are opened inside the block, by whatever code."""
    if not getattr(_watch, "is_added", False):
        sys.addaudithook(_watch)
        _watch.is_added = True
    _watching.append((folder.resolve(), set()))
    try:
        yield _watching[-1][1]
    finally:
        _watching.pop()


def hash_file(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def ways():
    images = [photo(40, 40, 0)]
    for family in TEXT_FAMILIES:
        yield family.name, family, lambda folder, family=family: family.theirs(folder)
    for family in IMAGE_FAMILIES:
        yield f"{family.name}-images", family, lambda folder, family=family: family.theirs(folder, images)
    for family in JOINT_FAMILIES:
        yield (
            f"{family.name}-joint",
            family,
            lambda folder, family=family: family.theirs(folder, joint_rows()[2]),
        )


@pytest.mark.parametrize("family, theirs", [pytest.param(f, t, id=name) for name, f, t in ways()])
def test_every_file_that_the_models_own_library_opens_is_read_or_declared_harmless(family, theirs, tmp_path):
    folder = family.save(tmp_path / family.name)
    with opened_in(folder) as by_them:
        theirs(folder)
    address = parse_address(family.address.format(folder))
    with opened_in(folder) as by_us:
        library_of(address).resolve(address, Sources(offline=True), hash_file)
    harmless = (*HARMLESS, *OF_LIBRARY[address.library], *CARDS)
    passed_over = [
        name
        for name in by_them - by_us
        if (folder / name).is_file() and not any(fnmatch(Path(name).name, pattern) for pattern in harmless)
    ]
    assert by_them, "the library opened no file, so that this test shows nothing"
    assert passed_over == []


@pytest.mark.parametrize("file", sorted({pattern.replace("*", "x") for pattern in DECIDES}))
def test_a_file_that_decides_vectors_and_is_not_read_is_refused_with_what_it_decides(tmp_path, file):
    folder = save_tiny_bert(tmp_path / "bert")
    (folder / file).write_text("{}")
    with pytest.raises(EncoderError, match=rf"{file} in .* decides .*shelfprice does not read it"):
        audit_folder(folder, ("tokenizer.json", "tokenizer_config.json"), "bert")
    audit_folder(folder, ("tokenizer.json", "tokenizer_config.json", file), "bert")


def test_what_other_tools_leave_in_a_folder_is_no_reason_to_refuse(tmp_path):
    folder = save_tiny_bert(tmp_path / "bert")
    for name in (
        "train_script.py",
        "eval_results.json",
        "trainer_state.json",
        "model.onnx",
        "notes.txt",
        "x.png",
    ):
        (folder / name).write_text("{}")
    (folder / "onnx").mkdir()
    (folder / "onnx/adapter_config.json").write_text("{}")
    audit_folder(folder, ("tokenizer.json", "tokenizer_config.json"), "bert")
