"""Every kind of file of a workspace, damaged in every way: it is made again, reported with a next step that works, or noted."""

import io
import itertools
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store.digests import METADATA_KEY
from tests.soak.commands import result_of
from tests.soak.verdict import Verdict, follow, run_on
from tests.soak.world import ENCODERS, HEADS, World, files_of

DAMAGES = (
    *("gone", "emptied", "halved", "truncated", "flipped", "zeros", "other schema", "metadata", "nested"),
    *("older kind", "folder", "pipe", "loop", "dangling", "elsewhere", "forbidden", "forbidden folder"),
)
VARIABLE = re.compile(rf"[0-9a-f]{{16,}}|/blobs/.*|measured-[^/]*|{'|'.join((*HEADS, *ENCODERS))}")
# What holds results of long work: it is made again where it is damaged, never where it may not be read.
KEPT = re.compile(r"(vectors|predictions)/.*|blend/([^/]+/(blend\.json|oof\.parquet)|current\.json)")
ROUTES = ("later", "all", "looks", "anew")


def kinds_of(files: Sequence[str]) -> dict[str, list[str]]:
    """Files by kind: those that differ in the digest, head, encoder or machine of their name are of one."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        kinds.setdefault(VARIABLE.sub("*", file), []).append(file)
    return kinds


def table(world: World) -> list[tuple[str, str]]:
    """Each kind of file with each damage."""
    return world.part_of(itertools.product(kinds_of(files_of(world.pristine)), DAMAGES))


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    """The whole table in a random order, one way to go on after the other, again and again."""
    kinds, cells = kinds_of(files_of(world.pristine)), table(world)
    routes = {one: draw.sample(ROUTES, len(ROUTES)) for one in cells}
    while True:
        for at in range(len(ROUTES)):
            for kind, damage in draw.sample(cells, len(cells)):
                route, seed = routes[kind, damage][at], draw.randrange(2**32)
                file = draw.choice(kinds[kind])
                yield {"kind": kind, "damage": damage, "file": file, "route": route, "seed": seed}


def run(world: World, case: dict[str, Any]) -> Verdict:
    with world.copy() as root:
        path = root / case["file"]
        damaged(root, case["file"], case["damage"], random.Random(case["seed"]))
        number = os.lstat(path).st_ino if os.path.lexists(path) else None
        if case["route"] == "anew":
            for one in (*root.glob("vectors/*/part-*"), *root.glob("predictions/*"), *root.glob("blend/*")):
                shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
        looks = (*world.looks, *world.steps)
        commands = {"later": world.later, "looks": looks}.get(case["route"], world.steps)
        verdict = follow(world, root, commands, path.name)
        if case["file"].startswith("tuning/") and not verdict.is_bad:  # a search makes others of it, so last
            _, outcome = run_on(world, root, ("heads tune",), path.name, verdict.said)
            verdict.outcome = outcome or verdict.outcome
        is_kept = KEPT.fullmatch(case["file"]) and case["damage"].startswith("forbidden")
        if is_kept and case["route"] != "anew" and os.lstat(path).st_ino != number:
            return Verdict(
                "lost", [*verdict.said, "what may not be read was taken for damage and made again"]
            )
        return verdict


def damaged(root: Path, file: str, damage: str, draw: random.Random) -> None:
    """Do one damage to one file of a workspace."""
    path = root / file
    content = path.read_bytes()
    if damage in ("gone", "folder", "pipe", "loop", "dangling"):
        path.unlink()
    if damage == "emptied":
        path.write_bytes(b"")
    elif damage == "halved":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "truncated":
        path.write_bytes(content[: draw.randrange(max(1, len(content)))])
    elif damage == "flipped":
        path.write_bytes(flipped(content, draw.randrange(max(1, len(content) * 8))))
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    elif damage == "folder":
        path.mkdir()
        (path / "inside").write_text("x")
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "loop":
        path.symlink_to(path.name)
    elif damage == "dangling":
        path.symlink_to("not-there")
    elif damage == "elsewhere":  # moved to another disk, say: no damage at all
        other = Path(tempfile.mkdtemp(dir=root.parent)) / path.name
        path.rename(other)
        path.symlink_to(other)
    elif damage == "forbidden":
        path.chmod(0)
    elif damage == "forbidden folder":
        path.parent.chmod(0)
    elif damage == "metadata":
        odd = draw.choice((b"[1]", b"{}", b"not JSON", b'{"a":' * 10_000, b'{"k": "x", "digest": 3}'))
        path.write_bytes(bytes.fromhex(result_of(lambda: other_metadata(path, content, odd).hex())))
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


def other_metadata(path: Path, content: bytes, odd: bytes) -> bytes:
    """The rows of a table beside other metadata; of a record one name more."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(content))
        buffer = io.BytesIO()
        found = dict(table.schema.metadata or {})
        pq.write_table(table.replace_schema_metadata(found | {METADATA_KEY: odd}), buffer)
        return buffer.getvalue()
    if path.suffix == ".json":
        return content.replace(b"{", b'{"more": "x", ', 1)
    return odd + content


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
