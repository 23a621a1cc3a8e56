"""Every kind of file of a workspace, damaged in every way: it is healed, told with a way on that works, or noted."""

import io
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.commands import result_of
from tests.soak.verdict import Verdict, follow
from tests.soak.world import World, files_of

DAMAGES = (
    "gone",
    "emptied",
    "halved",
    "flipped",
    "other schema",
    "folder",
    "loop",
    "nested",
    "zeros",
    "older kind",
)
ROUTES = ("later", "all", "looks", "anew")


def kinds_of(world: World) -> list[str]:
    """One file of each kind: of many blobs, shards and locks the first."""
    kinds: dict[str, str] = {}
    for file in files_of(world.pristine):
        parts = file.split("/")
        kind = "/".join(parts[:2]) if parts[0] == "images" and len(parts) > 2 else file
        if parts[0] == "vectors" and len(parts) > 2:
            kind = f"{parts[1].split('-')[0]}/{parts[2].split('-')[0]}/{parts[-1].split('-')[0]}"
        kinds.setdefault(kind, file)
    return list(kinds.values())


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    """The whole table in a random order, again and again."""
    while True:
        table = [(file, damage, route) for file in kinds_of(world) for damage in DAMAGES for route in ROUTES]
        draw.shuffle(table)
        for file, damage, route in table:
            yield {"file": file, "damage": damage, "route": route, "seed": draw.randrange(2**32)}


def run(world: World, case: dict[str, Any]) -> Verdict:
    with world.copy() as root:
        damaged(root / case["file"], case["damage"], random.Random(case["seed"]))
        if case["route"] == "anew":
            for path in (*root.glob("vectors/*/part-*"), *root.glob("predictions/*"), *root.glob("blend/*")):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        looks = (*world.looks, *world.steps)
        commands = {"later": world.later, "looks": looks}.get(case["route"], world.steps)
        return follow(world, root, commands, os.path.basename(case["file"]))


def damaged(path: Path, damage: str, draw: random.Random) -> None:
    """Do one damage to one file."""
    content = path.read_bytes()
    if damage in ("gone", "folder", "loop"):
        path.unlink()
    if damage == "emptied":
        path.write_bytes(b"")
    elif damage == "halved":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(flipped(content, draw.randrange(max(1, len(content) * 8))))
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    elif damage == "folder":
        path.mkdir()
        (path / "inside").write_text("x")
    elif damage == "loop":
        path.symlink_to(path.name)
    elif damage == "nested":
        path.write_bytes(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)
    elif damage == "other schema":
        path.write_bytes(bytes.fromhex(result_of(lambda: other_schema(path, content).hex())))
    elif damage == "older kind":  # sound, and of another file of the workspace
        others = [one for one in path.parent.parent.rglob(f"*{path.suffix}") if one.is_file() and one != path]
        if others:
            shutil.copyfile(sorted(others)[draw.randrange(len(others))], path)


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit turned."""
    changed = bytearray(content)
    if changed:
        changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


def other_schema(path: Path, content: bytes) -> bytes:
    """A file of the same format that reads well and holds something else."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.table({"x": ["a", None]}), buffer)
        return buffer.getvalue()
    if path.suffix == ".json":
        return b'{"x": [1, null, {"y": 2}]}\n'
    if path.suffix in (".toml", ".last"):
        return b"[heads]\nrun = 3\n"
    return b"x,y\n1,2\n"
