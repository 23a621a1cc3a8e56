"""What `import embed` offers, and that it costs nothing until it is used."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import embed

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "sklearn", "pyarrow", "numpy", "fsspec", "pandas", "PIL")


def modules_after(code):
    code = f"import sys; {code}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    return eval(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def test_importing_the_room_imports_no_library():
    assert modules_after("import embed") == []


@pytest.mark.parametrize("name", ["encode", "embed_catalogue", "vectors", "register_encoder", "TextEncoder"])
def test_asking_for_a_name_imports_no_torch(name):
    assert not {"torch", "transformers"} & set(modules_after(f"import embed; embed.{name}"))


def test_every_name_offered_is_there_documented_and_no_module():
    for name in embed.__all__:
        offered = getattr(embed, name)
        assert offered.__doc__, name
        assert import_module(offered.__module__) is not offered
    assert set(embed.__all__) <= set(dir(embed))
    assert (ROOT / "embed/py.typed").exists()


def test_a_name_that_is_not_offered_is_an_error():
    with pytest.raises(AttributeError, match="module 'embed' has no attribute 'encoder'"):
        embed.encoder  # noqa: B018
