"""Every encoder that docs/encoders.md shows is one, and every library's options are those that it takes."""

import re
from pathlib import Path

import pytest

from embed.encoders.base import Library
from embed.encoders.libraries import open_clip, sentence_transformers, timm, transformers
from embed.encoders.registry import parse_address

TEXT = (Path(__file__).parent.parent / "docs/encoders.md").read_text()
(SHOWN,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
LIBRARIES = {"open_clip": open_clip, "timm": timm, "hf": transformers, "st": sentence_transformers}


@pytest.mark.parametrize("name", SHOWN.split("\n")[:-1])
def test_every_encoder_shown_is_understood(name):
    address = parse_address(name.partition("@")[0])
    assert set(address.options) <= set(LIBRARIES[address.library].OPTIONS) | {"package"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_option_of_a_library_is_in_its_row(library):
    (options,) = re.findall(rf"^\| `{library}` \| .* \| (.*) \|$", TEXT, re.MULTILINE)
    named = re.sub(r"\([^)]*\)", "", options)
    assert set(re.findall(r"`(\w+)`", named)) == set(LIBRARIES[library].OPTIONS) - {"package"}


def test_what_a_library_may_have_is_what_is_asked_of_it():
    (table,) = re.findall(r"\| name \| what \|\n(.*?)\n\n", TEXT, re.DOTALL)
    named = {
        name
        for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)", cell)
    }
    optional = set(re.findall(r"^ {8}(\w+): ", Library.__doc__, re.MULTILINE))
    assert named == optional | set(Library.__annotations__) | {"resolve", "load"}
