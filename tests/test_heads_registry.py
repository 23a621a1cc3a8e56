"""Heads that others bring: registered in a program, or installed as a package."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from heads import registry
from heads.base import Head
from heads.registry import head_class, list_heads, make_head, register_head
from store.errors import HeadError

ROOT = Path(__file__).parent.parent


@dataclass(kw_only=True, eq=False)
class Median(Head):
    name = "median"
    summary = "the median of the training rows"
    shift: float = 0.0

    def _fit(self, rows, log_price):
        self.median_ = float(np.median(log_price)) + self.shift

    def _predict(self, rows):
        return np.full(len(rows), self.median_)


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_a_registered_head_is_made_and_listed_like_any_other():
    register_head("median", Median)
    assert head_class("median:own") is Median
    assert make_head("median", {"shift": 2.0}).shift == 2.0
    (listed,) = [head for head in list_heads() if head.head == "median"]
    assert (listed.origin, listed.params) == ("register_head", {"shift": 0.0})


def test_a_head_is_registered_by_where_it_can_be_imported_from_as_well():
    register_head("median", "tests.test_heads_registry:Median")
    assert head_class("median").__qualname__ == "Median"


def test_registering_a_class_again_takes_the_newer_one():
    register_head("median", Median)
    newer = dataclass(kw_only=True, eq=False)(type("Median", (Median,), {"__module__": __name__}))
    register_head("median", newer)
    assert head_class("median") is newer


@pytest.mark.parametrize(
    "name, head, message",
    [
        ("ridge", Median, r"head 'ridge' of register_head: its class says name = 'median'"),
        ("ridge", "a:B", r"the name 'ridge' is taken by heads\.linear\.ridge:Ridge of shelfprice: choose another"),
        ("Median", Median, "lower-case letters, digits and hyphens alone, got 'Median'"),
        ("median", Median(), r"must be a subclass of heads\.Head, got Median\(target='log_price', shift=0\.0\)"),
        ("median", dict, r"must be a subclass of heads\.Head, got <class 'dict'>"),
    ],
)  # fmt: skip
def test_what_can_not_be_registered_is_an_error_that_says_why(name, head, message):
    with pytest.raises(HeadError, match=message):
        register_head(name, head)


def test_two_heads_of_one_name_are_an_error_that_names_both():
    register_head("median", Median)
    with pytest.raises(
        HeadError, match=r"taken by tests\.test_heads_registry:Median of register_head.* for other:Median"
    ):
        register_head("median", "other:Median")


@pytest.mark.parametrize(
    "path, message",
    [
        ("no_such_module:Median", "can't be loaded from 'no_such_module:Median': No module named"),
        ("tests.test_heads_registry:Nothing", "can't be loaded .*: module .* has no attribute 'Nothing'"),
        ("tests.test_heads_registry:ROOT", "must be a subclass of heads.Head"),
    ],
)
def test_a_head_that_can_not_be_loaded_fails_when_it_is_asked_for_and_is_listed_with_the_reason(
    path, message
):
    register_head("median", path)
    with pytest.raises(HeadError, match=message):
        head_class("median")
    assert head_class("ridge").name == "ridge"
    (listed,) = [head for head in list_heads() if head.problem]
    assert "median" in listed.problem


# ---- packages: installed for real, in a process of their own ------------------------------------


MODULE = '''
from dataclasses import dataclass

import numpy as np

from heads import Head


@dataclass(kw_only=True, eq=False)
class Median(Head):
    """The median of the training rows."""

    name = "{name}"
    summary = "the median"

    def _fit(self, rows, log_price):
        self.median_ = float(np.median(log_price))

    def _predict(self, rows):
        return np.full(len(rows), self.median_)
'''


def install(folder, head, package="median_head"):
    """A package with one head, as pip lays it out."""
    (folder / f"{package}.py").write_text(MODULE.format(name=head))
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.2\n"
    )
    (info / "entry_points.txt").write_text(f"[shelfprice.heads]\n{head} = {package}:Median\n")


def shelfprice(folder, *arguments):
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "store.cli", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


def test_the_head_of_a_package_is_listed_with_the_package(tmp_path):
    install(tmp_path, "median")
    done = shelfprice(tmp_path, "heads", "list")
    assert "median (median-head 1.2): the median\n" in done.stdout, done.stderr
    listed = {
        head["head"]: head["origin"]
        for head in json.loads(shelfprice(tmp_path, "heads", "list", "--json").stdout)["heads"]
    }
    assert listed["median"] == "median-head 1.2"
    assert listed["ridge"] == "shelfprice"


def test_a_package_that_brings_a_name_that_is_taken_is_named_and_the_other_heads_go_on(tmp_path):
    install(tmp_path, "ridge")
    done = shelfprice(tmp_path, "heads", "list")
    assert "shelfprice and median-head 1.2 each bring a head 'ridge': uninstall the package" in done.stdout
    assert "lightgbm: boosted trees" in done.stdout
    done = shelfprice(tmp_path, "heads", "tune", "--head", "ridge", "-w", str(tmp_path / "w"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: shelfprice and median-head 1.2 each bring a head 'ridge'")
