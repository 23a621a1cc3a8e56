"""Packages import only those below them, and no file imports itself through others."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "store": {"store"},
    "heads": {"heads", "store"},
    "embed": {"embed", "store"},
    "embed/finetune": {"embed", "heads", "store"},
    "ensemble": {"ensemble", "embed", "heads", "store"},
}
ROOMS = ("store", "heads", "embed", "ensemble")


def files_of(room):
    return sorted((ROOT / room).rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules():
    return {module_of(path): path for room in ROOMS for path in files_of(room)}


def imported(path):
    """Modules of ours that a file imports: anywhere, inside functions and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = names & modules().keys()
            found |= ours if ours == names else {node.module, *ours}
    return {name for name in found if name in modules()} - {module_of(path)}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_those_below_it(room):
    for path in files_of(room):
        is_finetune = path.is_relative_to(ROOT / "embed/finetune")
        allowed = ALLOWED["embed/finetune" if is_finetune else room]
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def test_no_files_import_each_other_in_a_circle():
    graph = {name: imported(path) for name, path in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_a_circle_is_found_where_there_is_one(tmp_path, monkeypatch):
    for name, content in {
        "a": "from store.b import x",
        "b": "def f():\n    from store import c",
        "c": "if TYPE_CHECKING:\n    import store.a",
    }.items():
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / f"store/{name}.py").write_text(content)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    modules.cache_clear()
    try:
        graph = {name: imported(path) for name, path in modules().items()}
        assert graph == {"store.a": {"store.b"}, "store.b": {"store.c"}, "store.c": {"store.a"}}
        with pytest.raises(CycleError, match="cycle"):
            TopologicalSorter(graph).prepare()
    finally:
        modules.cache_clear()


def test_no_file_is_a_drawer_for_odds_and_ends():
    for path in modules().values():
        assert path.stem not in {"utils", "util", "helpers", "common", "misc"}, path
