"""A tiny workspace with everything in it, and what it comes to: the same after whatever was done to it."""

import csv
import hashlib
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.soak.commands import Said, result_of, shelfprice
from tests.soak.encoder import IMAGE, TEXT

N_TRAIN, N_TEST = 48, 8
BROKEN = 3  # id of a row whose image can't be decoded
HEADS = ("svr", "sparse", "neighbours")  # the parameters of the first are searched
ENCODERS = ("vowels", "colours")
SETTINGS = f"""seed = 7

[embed]
vectors = ["{TEXT}", "{IMAGE}"]

[heads]
run = ["{HEADS[0]}", "{HEADS[1]}", "{HEADS[2]}"]
vectors = ["{TEXT}", "{IMAGE}"]

[folds]
k = 3

[clean]
same_text = "drop"
"""
NOUNS = ("tea", "coffee", "soap", "lamp", "rope", "paint", "bowl", "brush")
TABLES = ("catalog/train", "catalog/test", "catalog/holdout", "images/links", "folds", "cleaning")
MODEL = "model"  # folder of a packed model, beside the workspace
INPUTS = (*TABLES, "vectors", "failures", "tuning", "evidence")
Cell = TypeVar("Cell")
TUNE = "heads tune"
# What follows from parameters that a search found, others with each of its trials.
OF_SEARCH = ("tuning", f"{HEADS[0]}.json", "blend", "submission", "packed")
# The one column of links.parquet and of rejected.parquet that says where files lay.
VOLATILE = ("path", "tried", "seconds", "time")


class World:
    """The files of a catalogue, a finished workspace of them and its packed model.

    Args:
        part: of the tables of damages which, of how many.
    """

    def __init__(self, folder: Path, part: tuple[int, int] = (1, 1)) -> None:
        self.part = part
        self.files = folder / "files"
        self.pristine = folder / "pristine" / "w"
        self.copies = folder / "copies"
        self.copies.mkdir(parents=True)
        self._write_files()
        self.pristine.mkdir(parents=True)
        (self.pristine / "shelfprice.toml").write_text(SETTINGS)
        first = (*self.steps[:3], TUNE, *self.steps[3:], *self.looks[-2:])
        for said in self.run(self.pristine, first):
            assert said.code == 0, (said.line, said.output)
        self.outcome = self.meaning(self.pristine)
        with self.copy() as root:
            said = list(self.run(root, (*self.looks, *self.later, *self.steps)))
            self.usual = {plain(line, root) for one in said for line in one.output.splitlines()}

    steps = ("catalog ingest", "catalog clean", "embed run", "heads run", "ensemble blend", "ensemble submit")
    later = ("status", "heads run", "ensemble blend", "ensemble submit")
    looks = (
        "status",
        "status --failures",
        "embed plan",
        "embed verify",
        "prune",
        "ensemble report",
        "ensemble pack",
    )

    def part_of(self, table: Iterable[Cell]) -> list[Cell]:
        """Those cells of a table of damages that are to be tried here."""
        number, n_parts = self.part
        return list(table)[number - 1 :: n_parts]

    def arguments(self, root: Path, command: str) -> list[str]:
        """A command's words, and the options that it takes here."""
        words = command.split()
        if words[:2] == ["catalog", "ingest"]:
            words += ["--train", str(self.files / "train.csv"), "--test", str(self.files / "test.csv")]
            words += ["--images", str(self.files / "images")]
        if words[:2] == ["embed", "run"]:
            words += ["--devices", "cpu", "--precision", "fp32", "--offline", "--max-failures", "0.1"]
        if words[:2] == ["heads", "tune"]:  # a trial of each fold
            words += ["--minutes", "0.0001", *([] if "--head" in words else ["--head", HEADS[0]])]
        if words[:2] == ["ensemble", "report"]:
            words += ["--seconds", "0"]
        if words[:2] == ["ensemble", "pack"]:
            words += ["--to", str(root.parent / MODEL)]
        if words[:2] in (["embed", "plan"], ["embed", "fetch"]):
            words += ["--precision", "fp32"]
        return [*words, "-w", str(root)]

    def run(self, root: Path, commands: tuple[str, ...]) -> Iterator[Said]:
        """Each command to its end, one after another."""
        for command in commands:
            yield shelfprice(*self.arguments(root, command))

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A workspace of one's own."""
        folder = Path(tempfile.mkdtemp(dir=self.copies))
        root = folder / "w"
        shutil.copytree(self.pristine, root, symlinks=True)
        try:
            yield root
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def meaning(self, root: Path) -> dict[str, str]:
        """What the workspace says, by subject; not how it is laid out."""
        found: dict[str, str] = result_of(lambda: meaning(root))
        return found

    def _write_files(self) -> None:
        from PIL import Image

        draw = random.Random(1)
        (self.files / "images").mkdir(parents=True)
        for split, first, n in (("train", 0, N_TRAIN), ("test", 100, N_TEST)):
            rows = []
            for id in range(first, first + n):
                noun, count = draw.choice(NOUNS), draw.choice((1, 2, 6, 12))
                text = f"{noun} {draw.choice(NOUNS)} pack of {count}, value: {count}.0"
                price = round(0.7 * len(noun) * count * draw.uniform(0.9, 1.1), 2)
                rows.append(
                    [
                        id,
                        text,
                        f"https://shop.example/{id}.png",
                        draw.choice("ab"),
                        price,
                    ]
                )
                if id == BROKEN:
                    (self.files / "images" / f"{id}.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
                elif id % 5:
                    colour = tuple(draw.randrange(256) for _ in range(3))
                    Image.new("RGB", (9, 9), colour).save(self.files / "images" / f"{id}.png")
            if split == "train":
                rows[-1][1] = rows[0][1]  # the same text twice
            with open(self.files / f"{split}.csv", "w", newline="") as file:
                names = ["sample_id", "catalog_content", "image_link", "shelf", "price"]
                csv.writer(file).writerows([names, *rows])


def plain(line: str, root: Path) -> str:
    """A line without what differs from run to run: the workspace's path, numbers."""
    return re.sub(r"[0-9a-f]{16}|\d+", "#", line.replace(str(root), "W"))


def meaning(root: Path) -> dict[str, str]:
    """Digest of each subject of a workspace, or why it can't be read; runs where threads may be started."""
    from store.errors import ShelfpriceError
    from store.predictions import PRICES
    from store.workspace import Workspace

    workspace = Workspace(root)

    def table(relative: str) -> Any:
        read = workspace.read_table(relative)
        names = sorted(set(read.column_names) - set(VOLATILE))
        return names, sorted(map(repr, read.select(names).to_pylist()))

    def predictions(name: str) -> Any:
        folder = workspace.read_json(f"predictions/{name}")["folder"]
        return [folder, *(table(f"{folder}/{part}") for part in PRICES)]

    def evidence() -> Any:
        folders = [f"predictions/{name}" for name in workspace.names("predictions", "neighbours-")]
        return [table(f"{folder}/evidence.parquet") for folder in folders]

    def blend() -> Any:
        record = workspace.read_json(workspace.read_json("blend/current.json")["folder"] + "/blend.json")
        return {name: value for name, value in record.items() if name != "seconds"}

    def cached(prefix: str) -> Any:
        folders = [f"vectors/{name}" for name in workspace.names("vectors")]
        parts = [f"{folder}/{part}" for folder in folders for part in workspace.names(folder, prefix)]
        return [row for part in parts for row in table(part)[1]]

    def packed() -> Any:
        heads = root.parent / MODEL / "heads"
        return [(path.name, path.read_bytes()) for path in sorted(heads.rglob("fitted.*"))]

    subjects: dict[str, Callable[[], Any]] = {
        **{name: partial(table, f"{name}.parquet") for name in TABLES},
        **{name: partial(predictions, name) for name in workspace.names("predictions", suffix=".json")},
        "blend": blend,
        "submission": lambda: workspace.read_bytes("submission.csv"),
        "vectors": partial(cached, "part-"),
        "failures": partial(cached, "failed-"),
        "evidence": evidence,  # for people: its pages are checked when it is read
        "tuning": lambda: workspace.read_json(f"tuning/{HEADS[0]}.json"),
        **({"packed": packed} if (root.parent / MODEL).exists() else {}),
    }
    found = {}
    for name, read in subjects.items():
        try:
            found[name] = hashlib.sha256(repr(read()).encode()).hexdigest()[:12]
        except ShelfpriceError as error:
            found[name] = str(error)
    return found


def files_of(root: Path) -> list[str]:
    """Every file of a workspace."""
    return sorted(
        os.path.relpath(os.path.join(at, name), root) for at, _, names in os.walk(root) for name in names
    )
