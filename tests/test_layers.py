"""The four rooms meet in `store` only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "store": {"store"},
    "embed": {"embed", "store"},
    "heads": {"heads", "store"},
    "ensemble": {"ensemble", "store"},
}


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add((node.module or "").split(".")[0])
    return found & set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_store_and_itself(room):
    for path in (ROOT / room).rglob("*.py"):
        allowed = ALLOWED[room] | ({"heads"} if path.is_relative_to(ROOT / "embed/finetune") else set())
        assert imported_rooms(path) <= allowed, path


def test_no_file_is_a_drawer_for_odds_and_ends():
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            assert path.stem not in {"utils", "util", "helpers", "common", "misc"}, path
