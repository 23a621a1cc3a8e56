"""Downloads, fine-tuning, exports and imports killed at any moment, then run to their end: the same files, bit for bit."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.soak.commands import command, kill, result_of, shelfprice, start
from tests.soak.verdict import Verdict
from tests.soak.world import World, files_of

N_KILLS = 3
N_LINKS = 400
# Commands that read or write files beside the workspace, which `ROOT-files` stands for.
CARRYING = {
    "catalog images-export": "--to ROOT-files -w ROOT",
    "catalog images-import": "--from ROOT-files -w ROOT",
    "catalog demo": "--to ROOT-files --train 60 --test 10",
    "embed export": "--to ROOT-files -w ROOT",
}
ENDED = "w-files exists: name another"  # an export that ended before it was killed
TUNING = "--epochs 1 --warmup-epochs 1 --batch-rows 16 --patience 9 --precision fp32 --save-every 2 --device cpu --offline"


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        for one in ("catalog images", "embed finetune", *CARRYING):
            yield {"command": one, "moments": [round(draw.random(), 3) for _ in range(N_KILLS)]}


def run(world: World, case: dict[str, Any]) -> Verdict:
    with prepared(world, case["command"]) as (root, arguments, outcome):
        copy = root.parent / "first"
        shutil.copytree(root, copy)
        started = time.monotonic()
        first = shelfprice(*arguments(copy))
        seconds = time.monotonic() - started
        said = [first]
        for moment in case["moments"]:
            with tempfile.TemporaryFile() as output:
                child = start(command(arguments(root)), output.fileno())
                time.sleep(moment * seconds)
                kill(child)
        said.append(shelfprice(*arguments(root)))
        lines = [f"$ {one.line}\n[{one.code}] {one.output.strip()[-3000:]}" for one in said]
        fault = next((one.fault or "stuck" for one in said if one.fault or one.code), None)
        if fault and not said[-1].output.strip().endswith(ENDED):
            return Verdict(fault, lines)
        expected, found = outcome(copy), outcome(root)
        others = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        return (
            Verdict("lost", [*lines, f"other than without a kill: {others}"])
            if others
            else Verdict("healed", lines)
        )


@contextmanager
def prepared(world: World, name: str) -> Iterator[tuple[Path, Callable[[Path], list[str]], Any]]:
    """A workspace in which the command has work to do, its words there, and what tells how it came out."""
    if name in CARRYING:
        with world.copy() as root:
            if name == "catalog images-import":
                for files in (root.parent / "w-files", root.parent / "first-files"):
                    said = shelfprice("catalog", "images-export", "--to", str(files), "-w", str(root))
                    assert said.code == 0, said.output
                shutil.rmtree(root / "images")
            line = f"{name} {CARRYING[name]}"
            outcome = images if name == "catalog images-import" else files_beside
            yield root, lambda at: line.replace("ROOT", str(at)).split(), outcome
        return
    if name == "embed finetune":
        model = world.files / "bert"
        if not model.exists():
            result_of(lambda: save_model(model))
        with world.copy() as root:
            words = ["embed", "finetune", f"{model}?max_tokens=24@full", "--name", "small", *TUNING.split()]
            vectors = [
                "embed",
                "run",
                "-e",
                f"{model}?max_tokens=24@full",
                "--devices",
                "cpu",
                "--precision",
                "fp32",
            ]
            said = shelfprice(*vectors, "--offline", "-w", str(root))
            assert said.code == 0, said.output
            yield root, lambda at: [*words, "-w", str(at)], tuned
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.image_server"], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        port = int(server.stdout.readline())  # type: ignore[union-attr]
        folder = Path(tempfile.mkdtemp(dir=world.copies))
        root = folder / "w"
        result_of(lambda: publish_links(root, port))
        yield root, lambda at: ["catalog", "images", "--allow-private", "-w", str(at)], images
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        server.kill()
        server.wait()


def save_model(folder: Path) -> None:
    from tests.fake_models import save_tiny_bert

    save_tiny_bert(folder)


def publish_links(root: Path, port: int) -> None:
    from store.workspace import Workspace
    from tests.fakes import catalog_table, publish_catalog

    rows = [
        {"sample_id": n, "image_link": f"http://127.0.0.1:{port}/img/{n}.jpg", "price": 1.0}
        for n in range(N_LINKS)
    ]
    publish_catalog(Workspace(root), catalog_table(rows))


def images(root: Path) -> dict[str, str]:
    """Link -> digest of the bytes that lie there for it."""
    return dict(result_of(lambda: _images(root)))


def _images(root: Path) -> dict[str, str]:
    from store.catalog.images.blobs import blob_path
    from store.workspace import Workspace
    from tests.fakes import image_digests

    return {
        link: hashlib.sha256((root / blob_path(sha256)).read_bytes()).hexdigest()
        for link, sha256 in image_digests(Workspace(root)).items()
    }


def files_beside(root: Path) -> dict[str, str]:
    """Digest of each file beside the workspace, by its path."""
    folder = root.with_name(f"{root.name}-files")
    return {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files_of(folder)}


def tuned(root: Path) -> dict[str, str]:
    """Digest of each state that was kept and of each table of vectors and predictions, by its path."""
    return dict(result_of(lambda: _tuned(root)))


def _tuned(root: Path) -> dict[str, str]:
    from store.workspace import Workspace

    workspace = Workspace(root)
    found = {}
    for path in [*root.glob("finetune/*/fold-*/fold.json"), *root.glob("predictions/tuned*/*.parquet")]:
        relative = str(path.relative_to(root))
        if path.suffix == ".json":
            found[relative] = str(workspace.read_json(relative)["weights_sha256"])
        else:
            found[relative] = repr(workspace.read_table(relative).to_pylist())
    assert found, "nothing was tuned"
    return found
