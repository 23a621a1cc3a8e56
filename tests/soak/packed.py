"""A packed model's folder, damaged in every way: no file of it is read that is not as it was written."""

import itertools
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.commands import result_of
from tests.soak.tampering import DAMAGES, damaged, kinds_of
from tests.soak.verdict import Verdict
from tests.soak.world import MODEL, World, files_of

FOREIGN = "foreign"  # a file that does not belong
N_FLIPS = 20  # of one case


def table(world: World) -> list[tuple[str, str]]:
    """Each kind of file with each damage."""
    return world.part_of(itertools.product(kinds_of(files_of(model_of(world))), (*DAMAGES, FOREIGN)))


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    kinds = kinds_of(files_of(model_of(world)))
    while True:
        for kind, damage in draw.sample(table(world), len(table(world))):
            file, seed = draw.choice(kinds[kind]), draw.randrange(2**32)
            n = N_FLIPS if damage == "flipped" else 1
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
            else:
                damaged(root, case["file"], case["damage"], draw)
            try:
                outcome = "unchanged" if prices(world, root) == expected else "silent"
            except ShelfpriceError as error:
                said.append(str(error))
                outcome = "told" if str(root) in str(error) else "stuck"
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                import traceback

                outcome = "traceback"
                said.append("".join(traceback.format_exception(error))[-3000:])
        counts[outcome] += 1
    return counts, said


def prices(world: World, folder: Path) -> str:
    """What a model says of the test rows and their images."""
    from ensemble.model.predictions import price_file
    from ensemble.model.price_model import PriceModel

    test, images = str(world.files / "test.csv"), str(world.files / "images")
    return price_file(PriceModel.load(folder), test, images, None, 0.9, None).csv()
