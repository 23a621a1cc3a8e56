"""`import store, embed, heads, ensemble`: what each room offers, and that it costs nothing until it is used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("store", "embed", "heads", "ensemble")
HEAVY = ("torch", "sklearn", "xgboost", "lightgbm", "scipy", "faiss", "pyarrow", "numpy", "fsspec", "pandas")


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_imports_no_library(room):
    code = f"import sys, {room}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_that_a_room_offers_is_there_and_shown(room):
    module = import_module(room)
    assert module.__all__
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        offered = getattr(module, name)
        assert offered.__doc__, name
        assert offered is getattr(import_module(room), name)


@pytest.mark.parametrize("room", ROOMS)
def test_type_checkers_see_the_names_that_a_room_offers(room):
    module, typed = import_module(room), {}
    for node in ast.walk(ast.parse((ROOT / room / "__init__.py").read_text())):
        if isinstance(node, ast.If):
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                typed |= {alias.asname: (line.module, alias.name) for alias in line.names}
    assert set(typed) == set(module.__all__)
    for name, (source, original) in typed.items():
        assert getattr(import_module(source), original) is getattr(module, name)
    assert (ROOT / room / "py.typed").exists()


def test_a_name_that_a_room_lacks_is_an_error_that_offers_the_nearest():
    code = "import heads; heads.Rigde"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "module 'heads' has no attribute 'Rigde'. Did you mean: 'Ridge'?" in done.stderr
