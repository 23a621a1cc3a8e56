"""A packed model's folder, damaged in every way: no file of it is read that is not as it was written."""

import hashlib
import itertools
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.model.folder import MANIFEST, OWN, _own_digest
from tests.soak.commands import result_of
from tests.soak.tampering import DAMAGES, damaged, kinds_of
from tests.soak.verdict import Verdict
from tests.soak.world import MODEL, World, files_of

FOREIGN = "foreign"  # a file that does not belong
FORGED = "forged"  # one value is another, and every digest is right
ODD: tuple[Any, ...] = (
    None,
    -1,
    0,
    1e300,
    10**18,
    "x",
    "",
    [],
    {},
    [[]],
    True,
    ["x", 1],
    {"kind": "x", "of": 3},
)
N_FLIPS = 20  # of one case


def table(world: World) -> list[tuple[str, str]]:
    """Each kind of file with each damage."""
    return world.part_of(itertools.product(kinds_of(files_of(model_of(world))), (*DAMAGES, FOREIGN, FORGED)))


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    kinds = kinds_of(files_of(model_of(world)))
    while True:
        for kind, damage in draw.sample(table(world), len(table(world))):
            file, seed = draw.choice(kinds[kind]), draw.randrange(2**32)
            n = N_FLIPS if damage in ("flipped", FORGED) else 1
            yield {"kind": kind, "damage": damage, "file": file, "seed": seed, "n": n}


def run(world: World, case: dict[str, Any]) -> Verdict:
    try:
        counts, said = result_of(lambda: tried(world, case))
    except RuntimeError as error:
        return Verdict("hang" if "with None" in str(error)[:20] else "crash", [str(error)[-3000:]])
    worst = next((one for one in ("traceback", "silent", "stuck") if one in counts), "told")
    return Verdict(worst, said, counts)


def model_of(world: World) -> Path:
    return world.pristine.parent / MODEL


def tried(world: World, case: dict[str, Any]) -> tuple[Counter[str], list[str]]:
    """Damage a copy, load it and price the test rows; how often it ended how, and what was said."""
    from store.errors import ShelfpriceError

    draw, expected = random.Random(case["seed"]), prices(world, model_of(world))
    counts: Counter[str] = Counter()
    said = []
    for _ in range(case["n"]):
        with tempfile.TemporaryDirectory(dir=world.copies) as folder:
            root = Path(folder) / MODEL
            shutil.copytree(model_of(world), root, copy_function=os.link)
            path = root / case["file"]
            shutil.copyfile(model_of(world) / case["file"], Path(folder) / "own")
            os.replace(Path(folder) / "own", path)
            if case["damage"] == FOREIGN:
                (path.parent / "other.json").write_text("{}")
            elif case["damage"] == FORGED:
                forge(root, case["file"], draw)
            else:
                damaged(root, case["file"], case["damage"], draw)
            try:
                is_same = (
                    prices(world, root) == expected or case["damage"] == FORGED
                )  # its prices are trusted
                outcome = "unchanged" if is_same else "silent"
            except ShelfpriceError as error:
                said.append(str(error))
                outcome = "told" if str(root) in str(error) or case["damage"] == FORGED else "stuck"
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                import traceback

                outcome = "traceback"
                said.append("".join(traceback.format_exception(error))[-3000:])
        counts[outcome] += 1
    return counts, said


def forge(root: Path, file: str, draw: random.Random) -> str:
    """Change one value of a file of a model, or its arrays, and make all digests right again; what was changed."""
    path, said = root / file, file
    for name in {file, MANIFEST}:  # which may be hard links
        content = (root / name).read_bytes()
        (root / name).unlink()
        (root / name).write_bytes(content)
    if path.suffix == ".json":
        value = json.loads(path.read_bytes())
        said += _changed(value, draw)
        path.write_text(json.dumps(value))
    elif path.suffix == ".npz":
        with np.load(path) as held:
            arrays = {name: held[name] for name in held.files}
        name = draw.choice(sorted(arrays))
        others = (
            np.array([{}], object), np.array(["x"]), np.zeros((0, 3)), np.array(7.5), arrays[name][:-1],
            arrays[name].astype(np.complex128), np.full(arrays[name].shape, 2**31 - 1),
        ) if arrays[name].ndim else (np.array([{}], object), np.array(["x"]))  # fmt: skip
        arrays[name] = draw.choice(others)
        said += f" {name} {arrays[name].dtype} {arrays[name].shape}"
        np.savez(path, **arrays)
    else:
        path.write_bytes(path.read_bytes()[: draw.randrange(100)])
    if file != MANIFEST:
        manifest = json.loads((root / MANIFEST).read_bytes())
        manifest["files"][file] = hashlib.sha256(path.read_bytes()).hexdigest()
        path = root / MANIFEST
        path.write_text(json.dumps(manifest))
    manifest = {name: one for name, one in json.loads(path.read_bytes()).items() if name != OWN}
    path.write_text(json.dumps(manifest | {OWN: _own_digest(manifest)}))
    return said


def _changed(value: Any, draw: random.Random) -> str:
    """Give one value in plain data, at any depth, another content; where it was."""
    where = ""
    while True:
        at = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        where += f".{at}"
        if isinstance(value[at], dict | list) and value[at] and draw.random() < 0.8:
            value = value[at]
            continue
        value[at] = draw.choice(ODD)
        return f"{where} = {value[at]!r}"


def prices(world: World, folder: Path) -> str:
    """What a model says of the test rows and their images."""
    from ensemble.model.predictions import price_file
    from ensemble.model.price_model import PriceModel

    test, images = str(world.files / "test.csv"), str(world.files / "images")
    return price_file(PriceModel.load(folder), test, images, None, 0.9, None).csv()
