"""Examples in docstrings give what they show, and every public name says what it is."""

import doctest
import importlib
import inspect
import re

import pytest

import embed
import ensemble
import heads
import store

WITH_EXAMPLES = (
    "ensemble.score", "heads.base", "heads.features.fields", "heads.folds.crossfit", "heads.params", "heads.registry",
    "store.catalog.parse.cell_numbers", "store.catalog.parse.html", "store.config", "store.folds.assign",
    "store.metric", "store.names", "store.printable", "store.workspace",
)  # fmt: skip
PUBLIC = [(room, name) for room in (store, embed, heads, ensemble) for name in room.__all__]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_a_docstring_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert found.attempted > 0
    assert not found.failed


@pytest.mark.parametrize("room, name", PUBLIC, ids=lambda one: getattr(one, "__name__", one))
def test_a_public_name_says_what_it_is_and_what_it_takes(room, name):
    public = getattr(room, name)
    text = inspect.getdoc(public)
    assert text
    first = text.partition("\n\n")[0]
    assert "\n" not in first, "the first line is a sentence of its own"
    if not inspect.isclass(public):
        signature = inspect.signature(public)
        meanings = text.partition("Args:")[2]
        for name in signature.parameters:
            assert re.search(rf"^ +[\w, ]*\b{name}\b[\w, ]*: ", meanings, re.MULTILINE), f"what {name} means"
        assert signature.return_annotation in (None, "None") or "Returns:" in text, "what it gives back"
