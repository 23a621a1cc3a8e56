"""Single bits flipped in Parquet and JSON files: reported, without effect, or silently other content."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.commands import HANG_SECONDS, result_of
from tests.soak.tampering import flipped
from tests.soak.verdict import Verdict
from tests.soak.world import World, files_of

N_FILES = 100  # of one case
SHARE_OF_END = 0.5  # of flips in the last bytes of Parquet: schema, footer and metadata
END_BYTES = 3000
RECORDS = ("head", "oof", "test", "evidence", "curve")  # of a head; the other files are its model


def cases(world: World, draw: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        for suffix in (".parquet", ".json"):
            yield {"suffix": suffix, "seed": draw.randrange(2**32), "n": N_FILES, "skip": 0}


def run(world: World, case: dict[str, Any]) -> Verdict:
    with world.copy() as root:
        try:
            counts, said = result_of(lambda: flip(root, **case), HANG_SECONDS)
        except RuntimeError as error:
            return Verdict("hang" if "None" in str(error)[:20] else "crash", [str(error)[-3000:]])
    worst = next((one for one in ("traceback", "silent") if one in counts), "told")
    return Verdict(worst, said, {f"{outcome} ({case['suffix'][1:]})": n for outcome, n in counts.items()})


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Either half of the flips."""
    if case["n"] > 1:
        half = case["n"] // 2
        yield {**case, "n": half}
        yield {**case, "skip": case["skip"] + half, "n": case["n"] - half}


def flip(root: Path, suffix: str, seed: int, n: int, skip: int) -> tuple[Counter[str], list[str]]:
    """Turn a bit, read, put it back; how often it ended how, and what ended badly."""
    from store.errors import ShelfpriceError
    from store.workspace import Workspace

    workspace, draw = Workspace(root), random.Random(seed)
    files = [file for file in files_of(root) if file.endswith(suffix) and is_record(file)]
    read = workspace.read_table if suffix == ".parquet" else workspace.read_json
    whole = {file: (read(file), (root / file).read_bytes()) for file in files}
    counts: Counter[str] = Counter()
    said = []
    for number in range(skip + n):
        file = draw.choice(files)
        value, content = whole[file]
        n_bits = 8 * len(content)
        first = max(0, n_bits - 8 * END_BYTES) if draw.random() < SHARE_OF_END else 0
        bit = draw.randrange(first, n_bits)
        if number < skip:
            continue
        (root / file).write_bytes(flipped(content, bit))
        try:
            found = read(file)
            is_same = same(found, value)
            outcome, why = ("unchanged", "") if is_same else ("silent", f"was {value}\nis {found}")
        except ShelfpriceError as error:
            outcome, why = "told", str(error)
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            outcome, why = "traceback", repr(error)
        (root / file).write_bytes(content)
        counts[outcome] += 1
        if outcome in ("silent", "traceback"):
            said.append(f"{outcome}: bit {bit} of {n_bits} of {file}: {why[:2000]}")
    return counts, said


def is_record(file: str) -> bool:
    """Whether a file is a table or a record, and no part of a model, which has its digest in a record."""
    is_of_head = file.startswith("predictions/") and file.count("/") > 1
    return "openvino" not in file and (not is_of_head or Path(file).stem in RECORDS)


def same(found: Any, value: Any) -> bool:
    """Whether two tables, or two records, say the same: values, types, metadata."""
    if isinstance(value, dict):
        return bool(found == value)
    told = found.schema.metadata == value.schema.metadata
    return bool(told and found.schema.equals(value.schema) and found.equals(value))
