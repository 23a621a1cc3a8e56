"""New rows find their relatives among the training rows, as the workspace finds those of the test rows."""

import csv
from dataclasses import replace

import pytest

import store
from ensemble.model.relatives import TrainingRelatives, hashes_of
from store.catalog.images.links import further_row_images, known_links, row_images
from store.config import ColumnConfig
from store.folds.relatives import read_relatives
from store.workspace import Workspace
from tests.image_server import draw_jpeg

LONG = (
    "green tea leaves from the hills, forty bags in a tin, strong and dark, with a leaf of mint {} inside; pour water "
    "over one bag for each cup and wait five minutes, then drink it hot or cold with lemon and honey"
)
TRAIN = [  # text, image, shop
    (LONG.format("fresh"), "a", "north"),
    ("salted caramel bar", "b", "north"),
    ("olive oil, one litre", "c", "south"),
    ("!!!", "", "south"),
    ("", "", "east"),
]
TEST = {  # what it is -> text, image, shop, level
    "the same product": ("salted caramel bar", "x", "north", 2),
    "one text, another shop": ("salted caramel bar", "x", "east", 1),
    "one image": ("another name altogether", "c", "south", 2),
    "one image, another shop": ("a third name altogether", "c", "north", 1),
    "nearly the same text": (LONG.format("fresh").replace("dark", "black"), "y", "north", 1),
    "half the same text": (LONG.format("fresh")[:50] + " and nothing of the rest of it", "z", "north", 0),
    "no words, the same signs": ("!!!", "", "south", 2),
    "nothing": ("", "", "east", 0),
    "something new": ("rye bread, sliced", "w", "north", 0),
    "one text with the row of one image": ("another name altogether", "v", "south", 2),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("relatives")
    (root / "images").mkdir()
    for at, name in enumerate("abcvwxyz"):
        (root / f"images/{name}.jpg").write_bytes(draw_jpeg(400 + at))
    for split, rows in (("train", TRAIN), ("test", list(TEST.values()))):
        with (root / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            n_columns = 5 if split == "train" else 4
            writer.writerow(["sample_id", "catalog_content", "image_link", "shop", "price"][:n_columns])
            for at, (text, image, shop, *_) in enumerate(rows):
                link = f"{image}.jpg" if image else ""
                writer.writerow([f"{split}{at}", text, link, shop, 3 + at][:n_columns])
    run = Workspace(root / "run")
    columns = ColumnConfig(categorical=("shop",), max_rejected=1.0)
    store.ingest(run, root / "train.csv", root / "test.csv", images=root / "images", columns=columns)
    return run


def new_rows(workspace):
    table = store.read_split(workspace, "test").combine_chunks()
    known = known_links(workspace)
    firsts, further = row_images(table["image"], known), further_row_images(table, known)
    pairs = zip(firsts.to_pylist(), further.to_pylist(), strict=True)
    return table, [[one for one in (first, *others) if one] for first, others in pairs]


def test_levels_of_new_rows_are_those_of_the_test_rows(workspace, tmp_path):
    table, images = new_rows(workspace)
    found = TrainingRelatives.of(workspace)
    expected = [TEST[name][-1] for name in TEST if name != "nothing" or len(table) == len(TEST)]
    assert found.levels(table, images).tolist() == expected
    assert read_relatives(workspace).of_test().tolist() == expected
    found.save(tmp_path / "kept.npz")
    kept = TrainingRelatives.load(tmp_path / "kept.npz")
    assert kept.levels(table, images).tolist() == expected
    alone = [int(kept.levels(table.slice(at, 1), images[at : at + 1])[0]) for at in range(len(table))]
    assert alone == expected


def test_an_image_that_many_rows_have_as_a_further_one_tells_nothing_there(workspace):
    table, images = new_rows(workspace)
    at = list(TEST).index("something new")
    shared = images[list(TEST).index("one image")]
    found = TrainingRelatives.of(workspace)
    own = [[*images[at], *shared]]
    assert found.levels(table.slice(at, 1), own).tolist() == [1]
    marked = replace(found, shared=hashes_of({bytes.fromhex(shared[0])}))
    assert marked.levels(table.slice(at, 1), own).tolist() == [0]
