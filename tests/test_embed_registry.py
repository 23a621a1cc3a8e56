"""Encoders of others, without a fork: registered in this process, or named by an installed package."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from embed.encoders import registry
from embed.encoders.base import Address, Sources
from embed.encoders.registry import library_of, parse_address, register_encoder
from embed.encoders.resolve import resolve
from store.errors import ConfigError, EncoderError
from store.workspace import Workspace
from tests import letter_encoder

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_a_registered_library_is_found_by_prefix_and_by_short_name(tmp_path):
    with pytest.raises(EncoderError, match="unknown library 'letters', one of open_clip, st, timm, hf"):
        parse_address("letters:abc")
    register_encoder(letter_encoder)
    assert parse_address("letters:abc") == Address("letters:abc", "letters", "abc")
    assert parse_address("vowels") == Address("vowels", "letters", "aeiou")
    assert library_of(parse_address("vowels")) is letter_encoder
    (one,) = resolve(Workspace(tmp_path), "vowels", Sources())
    assert (one.spec.name, one.spec.dim) == ("vowels", 5)


def test_what_a_library_without_a_version_finds_is_asked_anew_each_time(tmp_path):
    answers = iter("ab")

    def find(address, sources, hash_file):
        return letter_encoder.resolve(Address("own", "own", next(answers)), sources, hash_file)

    register_encoder(SimpleNamespace(PREFIX="own", resolve=find, load=letter_encoder.load))
    found = [resolve(Workspace(tmp_path), "own:model", Sources())[0].spec.fingerprint for _ in range(2)]
    assert found[0] != found[1]


def test_a_library_can_be_registered_again_but_not_in_the_place_of_one_that_was_there():
    register_encoder(letter_encoder)
    other = SimpleNamespace(PREFIX="letters", resolve=letter_encoder.resolve, load=letter_encoder.load)
    register_encoder(other)
    assert library_of(parse_address("letters:abc")) is other
    other.PREFIX = "st"
    with pytest.raises(ConfigError, match=r"prefix 'st' is taken by .*sentence_transformers.*choose another"):
        register_encoder(other)


@pytest.mark.parametrize(
    "library, words",
    [
        (SimpleNamespace(PREFIX="own", load=len), "is no library of encoders: it has no resolve"),
        (SimpleNamespace(PREFIX="o:n", resolve=len, load=len), "PREFIX must be a word of letters.*got 'o:n'"),
    ],
)
def test_what_is_no_library_is_refused_with_what_it_lacks(library, words):
    with pytest.raises(ConfigError, match=words):
        register_encoder(library)


def test_a_library_with_folders_and_towers_of_its_own_says_so(tmp_path):
    (tmp_path / "letters.txt").write_text("abc")
    with pytest.raises(EncoderError, match=r"holds no model: expected one of .*modules.json \(st\)"):
        parse_address(str(tmp_path))
    parts = {"resolve": letter_encoder.resolve, "load": letter_encoder.load}
    register_encoder(
        SimpleNamespace(PREFIX="own", FOLDER_FILE="letters.txt", TOWERS=("image", "text"), **parts)
    )
    assert parse_address(str(tmp_path)).library == "own"
    assert parse_address(f"{tmp_path}.text").tower == "text"


def test_a_library_that_this_process_does_not_know_is_an_error_that_says_how_to_name_it():
    with pytest.raises(EncoderError, match=r"no library 'gone' is known.*'shelfprice\.encoders'"):
        library_of(Address("gone:a", "gone", "a"))


def package(folder, value, name="letter-encoder"):
    """An installed package with one entry point, as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[shelfprice.encoders]\nletters = {value}\n")


def encoders_of_a_new_process(folder, name):
    code = "import sys; from embed.encoders.registry import *; print(library_of(parse_address(sys.argv[1])).__name__)"
    command = [sys.executable, "-c", code, name]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": f"{folder}:{ROOT}"}
    )


def test_an_installed_package_brings_encoders_by_its_entry_point(tmp_path):
    package(tmp_path, "tests.letter_encoder")
    for name in ("letters:abc", "vowels"):
        assert encoders_of_a_new_process(tmp_path, name).stdout.strip() == "tests.letter_encoder"


def test_a_package_that_can_t_be_imported_is_named_and_does_not_stand_in_the_way(tmp_path):
    package(tmp_path, "tests.nothing_here")
    assert "sentence_transformers" in encoders_of_a_new_process(tmp_path, "minilm").stdout
    failed = encoders_of_a_new_process(tmp_path, "vowels").stderr
    assert "entry point 'letters' (tests.nothing_here) of letter-encoder can't be imported" in failed


def test_two_packages_with_one_prefix_are_refused(tmp_path):
    package(tmp_path, "tests.letter_encoder")
    package(tmp_path, "tests.letter_encoder", "other-letters")
    assert "prefix 'letters' is taken: uninstall one" in encoders_of_a_new_process(tmp_path, "vowels").stderr
