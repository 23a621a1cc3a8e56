"""A disk that is full or read-only, folders that may not be written: reported, nothing lost, the same results afterwards."""

import ctypes
import dataclasses
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak import kills
from tests.soak.commands import Said, result_of
from tests.soak.verdict import Verdict
from tests.soak.world import World

READ_ONLY, FORBIDDEN = "read-only", "forbidden"
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def can_mount() -> bool:
    """Whether this process may mount a file system of its own."""
    return (
        subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode == 0
    )


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Kilobytes of room beside what is there, a disk that is read-only, or folders; the latter alone where none may mount."""
    rooms = (0, 4, 12, 40, 100, READ_ONLY, FORBIDDEN) if can_mount() else (FORBIDDEN,)
    while True:
        for one in draw.sample(kills.COMMANDS, len(kills.COMMANDS)):
            yield {"command": one, "room": draw.choice(rooms)}


def run(world: World, case: dict[str, Any]) -> Verdict:
    """A mount is in a namespace of its own, which ends with the child."""
    if case["room"] == FORBIDDEN:
        return _forbidden(world, case)
    return Verdict(**result_of(lambda: dataclasses.asdict(_run(world, case)), 600))


def _run(world: World, case: dict[str, Any]) -> Verdict:
    own_mounts()
    with world.copy() as origin:
        kills.prepare(origin, case["command"])
        root = origin.parent / "mounted"
        root.mkdir()
        mount("-t", "tmpfs", "-o", "size=64m", "none", str(root))
        shutil.copytree(origin, root, dirs_exist_ok=True)
        if case["room"] == READ_ONLY:
            mount("-o", "remount,ro", str(root))
        else:
            free = os.statvfs(root)
            used = (free.f_blocks - free.f_bfree) * free.f_frsize // 1024
            mount("-o", f"remount,size={used + case['room']}k", str(root))
        (first,) = world.run(root, (case["command"],))
        mount("-o", "remount,rw,size=64m", str(root))
        return _judged(world, root, case["command"], first)


def _forbidden(world: World, case: dict[str, Any]) -> Verdict:
    with world.copy() as root:
        kills.prepare(root, case["command"])
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        (first,) = world.run(root, (case["command"],))
        for folder in folders:
            folder.chmod(0o755)
        return _judged(world, root, case["command"], first)


def _judged(world: World, root: Path, command: str, first: Said) -> Verdict:
    if first.fault or (first.code and not is_told(first)):
        return Verdict(first.fault or "stuck", [f"$ {first.line}\n[{first.code}] {first.output[-3000:]}"])
    return kills.finished(world, root, (command,), before=[first])


def is_told(said: Said) -> bool:
    """Whether a message names the disk's trouble."""
    told = ("no space left", "No space left", "Read-only", "can't write", "can't remove")
    return any(words in said.output for words in told)


def own_mounts() -> None:
    """Leave the namespace of mounts that all others share."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("--make-rprivate", "/")


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
