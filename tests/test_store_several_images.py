"""Rows with several images, from the cell of the link column to the vector of the row."""

import base64
import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from heads.features.inputs import input_coverage
from store.catalog.clean.duplicates import SHARED_ROWS, group_rows
from store.catalog.download.addresses import split_links
from store.catalog.download.plan import read_wanted
from store.catalog.download.rows import show_images
from store.catalog.images.links import further_row_images, have_image, known_links, row_images
from store.catalog.ingest.run import ingest
from store.catalog.read import catalog_digest, image_references, read_split
from store.catalog.show.facts import read_facts
from store.catalog.show.page import page_of
from store.cli import main
from store.config import ColumnConfig, load_config
from store.errors import MissingVectorsError
from store.failures import failed_rows
from store.folds.assign import ensure_folds
from store.schema import LINKS
from store.vectors.content import image_keys
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, iter_image_keys, publish_current
from store.vectors.shard import publish_failures, publish_shard
from store.workspace import Workspace
from tests.fake_images import encoded, photo
from tests.fake_models import save_tiny_timm
from tests.fakes import fake_spec

A, B, C = (f"https://a.example/{name}.jpg" for name in "abc")
PHOTOS = VectorSet("photos")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for seed, name in enumerate(("p0.jpg", "p1.jpg", "p2.png", "7.jpg")):
        (images / name).write_bytes(
            encoded(photo(50, 40, seed=seed), "PNG" if name[-3:] == "png" else "JPEG")
        )
    return images


def catalogue(tmp_path, *cells):
    path = tmp_path / "train.csv"
    rows = [f'{i},tea {i},"{cell.replace(chr(34), chr(34) * 2)}",{i + 1}' for i, cell in enumerate(cells)]
    path.write_text("sample_id,catalog_content,image_link,price\n" + "\n".join(rows) + "\n")
    return str(path)


def images_of(workspace):
    return image_references(read_split(workspace, "train"))


@pytest.mark.parametrize(
    "cell",
    [
        '["p0.jpg", "p1.jpg", "p2.png"]',
        "['p0.jpg', 'p1.jpg', 'p2.png']",
        "p0.jpg;p1.jpg;p2.png",
        "p0.jpg | p1.jpg|p2.png",
        "p0.jpg, p1.jpg, p2.png",
        "p0.jpg p1.jpg  p2.png",
        "shop/p0.jpg;shop/p1.jpg;shop/p2.png;shop/p1.jpg",
    ],
)
def test_every_file_of_a_list_belongs_to_its_row(workspace, folder, tmp_path, cell):
    report = ingest(workspace, catalogue(tmp_path, cell, "p1.jpg"), images=folder)
    files = ["file:p0.jpg", "file:p1.jpg", "file:p2.png"]
    assert images_of(workspace) == [files, ["file:p1.jpg"]]
    assert report.splits["train"].n_with_several == 1
    assert report.images.n_stored == 3
    assert ingest(workspace, catalogue(tmp_path, cell, "p1.jpg"), images=folder).is_unchanged
    first = ColumnConfig(images_per_row="first")
    ingest(workspace, catalogue(tmp_path, cell, "p1.jpg"), images=folder, columns=first)
    assert images_of(workspace) == [["file:p0.jpg"], ["file:p1.jpg"]]


@pytest.mark.parametrize(
    "cell, names",
    [
        ("my dog.jpg", None),
        ("a;b.jpg", None),
        ("https://a.example/a.jpg;v=1", None),
        ("data:image/png;base64,iVBORw0.png;x.png", None),
        ("a.jpg", None),
        ("[]", []),
    ],
)
def test_one_image_is_no_list(cell, names):
    assert split_links(cell) == names


def test_links_of_a_list_are_all_wanted_and_shown_as_they_arrive(workspace, tmp_path):
    train = catalogue(tmp_path, json.dumps([A, "no link", B, A]), f"{A} {C}", B, "")
    ingest(workspace, train)
    assert list(read_wanted(workspace).urls) == [A, B, C]
    assert images_of(workspace) == [[]] * 4
    before = catalog_digest(workspace)
    record(workspace, {B: b"b", C: None})
    assert show_images(workspace) == 2
    assert images_of(workspace) == [[B], [C], [B], []]
    record(workspace, {A: b"a", B: b"b", C: None})
    assert show_images(workspace) == 3
    assert images_of(workspace) == [[A, B], [A, C], [B], []]
    assert catalog_digest(workspace) != before
    shown = catalog_digest(workspace)
    assert ingest(workspace, train).is_unchanged
    record(workspace, {A: b"a", B: b"other", C: None})
    show_images(workspace)
    assert catalog_digest(workspace) != shown
    ingest(workspace, train, columns=ColumnConfig(images_per_row="first"))
    assert list(read_wanted(workspace).urls) == [A, B]
    assert images_of(workspace) == [[A], [A], [B], []]


def test_a_link_of_a_list_that_can_not_be_used_is_counted_and_the_others_are_taken(workspace, tmp_path):
    ingest(workspace, catalogue(tmp_path, f"""['1.jpg', '{A}']"""))
    wanted = read_wanted(workspace)
    assert (list(wanted.urls), wanted.n_rows_with_link, wanted.n_unusable) == ([A], 1, {})
    assert wanted.notes == {"list: usable links were taken, left out: relative link": 1}
    assert read_facts(workspace).splits[0].missing == {"a link, not fetched yet": 1}


def record(workspace, contents):
    """links.parquet as a download of these would leave it."""
    rows = [
        {"link": link, "sha256": hashlib.sha256(content).hexdigest()}
        if content is not None
        else {"link": link, "reason": "HTTP 404"}
        for link, content in contents.items()
    ]
    workspace.publish_table("images/links.parquet", pa.Table.from_pylist(rows, schema=LINKS))


@pytest.fixture
def embedded(workspace, tmp_path):
    """Rows of (A, B), (A, C), (C, B) and none; A and B have a vector, C failed."""
    train = catalogue(tmp_path, f"{A} {B}", f"{A} {C}", f"{C} {B}", "")
    ingest(workspace, train)
    record(workspace, {A: b"a", B: b"b", C: b"c"})
    show_images(workspace)
    return workspace


def publish(workspace, vectors, failed=b"c", normalize=False):
    spec = fake_spec("photos", dim=2, modality="image")
    spec = type(spec)(**{**spec.__dict__, "normalize": normalize})
    publish_current(workspace, spec)
    keys = [key(content) for content in vectors]
    publish_shard(workspace, spec.folder, pa.array(keys, pa.binary(16)), np.array(list(vectors.values())), {})
    if failed:
        publish_failures(workspace, spec.folder, [(key(failed), "decode", "cut off")])


def key(content):
    return image_keys(pa.array([hashlib.sha256(content).hexdigest()]))[0].as_py()


@pytest.mark.parametrize("in_file", [False, True])
def test_a_row_has_the_mean_of_its_images_that_have_a_vector(embedded, tmp_path, in_file):
    publish(embedded, {b"a": [1.0, 0.0], b"b": [0.0, 3.0]})
    folder = tmp_path / "scratch"
    folder.mkdir()
    matrix = load_matrix(embedded, PHOTOS, "train", folder=folder if in_file else None)
    assert matrix.valid.tolist() == [True, True, True, False]
    np.testing.assert_allclose(matrix.X[:], [[0.5, 1.5], [1, 0], [0, 3], [0, 0]])


def test_the_mean_of_vectors_of_length_one_has_length_one(embedded):
    publish(embedded, {b"a": [1.0, 0.0], b"b": [0.0, 1.0]}, normalize=True)
    np.testing.assert_allclose(load_matrix(embedded, PHOTOS, "train").X[0], [0.5**0.5] * 2, atol=1e-3)


def test_a_further_image_that_was_never_embedded_is_missing_and_one_that_failed_is_told(embedded):
    publish(embedded, {b"a": [1.0, 0.0]})
    for read in (lambda: load_matrix(embedded, PHOTOS, "train"), lambda: input_coverage(embedded, PHOTOS)):
        with pytest.raises(MissingVectorsError, match=r"first: 0\)"):
            read()
    failed = [row for row in failed_rows(embedded, load_config(embedded)) if row.what == "photos"]
    assert [(row.sample_id, row.file) for row in failed] == [(2, C), (1, C)]


def test_what_heads_see_of_a_row_depends_on_each_of_its_images(embedded):
    publish(embedded, {b"a": [1.0, 0.0], b"b": [0.0, 3.0]})
    before = input_coverage(embedded, PHOTOS)
    assert (before.n_valid, before.n_rows) == (3, 4)
    publish(embedded, {b"c": [1.0, 1.0]}, failed=None)
    after = input_coverage(embedded, PHOTOS)
    assert before.digest != after.digest
    assert (after.n_valid, after.n_rows) == (3, 4)


def test_the_job_embeds_every_image_once_and_status_counts_the_rows(workspace, folder, tmp_path):
    save_tiny_timm(tmp_path / "model")
    encoder = str(tmp_path / "model")
    train = catalogue(tmp_path, "p0.jpg;p1.jpg", "p1.jpg;p2.png", "p0.jpg", "", "x", "y", "z", "7.jpg")
    ingest(workspace, train, images=folder)

    def shelfprice(*command):
        result = CliRunner().invoke(main, [*command, "-w", workspace.root])
        assert result.exit_code == 0, result.output
        return result.stdout

    run = ("embed", "run", "--offline", "--devices", "cpu", "-e", encoder, "--json")
    (done,) = json.loads(shelfprice(*run))["encoders"]
    assert (done["embedded"], done["sets"][0]["splits"]["train"]["empty"]) == (4, 4)
    assert json.loads(shelfprice(*run))["encoders"][0]["embedded"] == 0
    X = load_matrix(workspace, VectorSet(encoder), "train").X
    single = dict(zip(("p0.jpg", "p1.jpg", "p2.png"), (X[2], 2 * X[0] - X[2], None), strict=True))
    alone = tmp_path / "alone.csv"
    alone.write_text("sample_id,catalog_content,image_link,price\n0,a,p0.jpg,1\n1,b,p1.jpg,2\n2,c,p2.png,3\n")
    ingest(workspace, str(alone), images=folder)
    each = load_matrix(workspace, VectorSet(encoder), "train").X
    np.testing.assert_allclose(single["p0.jpg"], each[0], atol=1e-2)
    np.testing.assert_allclose(X[0], (each[0] + each[1]) / 2, atol=1e-2)
    np.testing.assert_allclose(X[1], (each[1] + each[2]) / 2, atol=1e-2)
    ingest(workspace, train, images=folder)
    assert "2 rows with several images" in shelfprice("status")
    (held,) = [one for one in json.loads(shelfprice("status", "--json"))["vectors"] if one["name"] == encoder]
    assert held["coverage"]["train"] == {"rows": 8, "have": 4, "failed": 0, "missing": 0}


def test_files_numbered_after_an_id_or_in_its_folder_are_all_of_its_row(workspace, tmp_path):
    images = tmp_path / "images"
    for name in (
        "10_1.jpg",
        "10_0.jpg",
        "10_10.png",
        "11.jpg",
        "11-2.jpg",
        "12_1.jpg",
        "13/b2.jpg",
        "13/b10.jpg",
    ):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(name.encode())
    train = tmp_path / "train.csv"
    ids = ("10", "11", "12", "12_1", "13", "14")
    train.write_text("sample_id,catalog_content,price\n" + "".join(f"{one},tea,2\n" for one in ids))
    report = ingest(workspace, str(train), images=images)
    assert images_of(workspace) == [
        ["file:10_0.jpg", "file:10_1.jpg", "file:10_10.png"],
        ["file:11.jpg", "file:11-2.jpg"],
        [],
        ["file:12_1.jpg"],
        ["file:13/b2.jpg", "file:13/b10.jpg"],
        [],
    ]
    assert "3 rows have their image by their id and a number, or in a folder of their id" in report.notes
    ingest(workspace, str(train), images=images, columns=ColumnConfig(images_per_row="first"))
    assert images_of(workspace)[:2] == [["file:10_0.jpg"], ["file:11.jpg"]]


def test_numbered_files_of_an_id_of_both_files_must_name_the_split(workspace, tmp_path):
    images = tmp_path / "images"
    for name in ("1_0.jpg", "test_1_0.jpg", "test_1_1.jpg", "train/1/a.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(name.encode())
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("sample_id,catalog_content,price\n1,tea,2\n")
    ingest(workspace, str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), images=images)
    assert images_of(workspace) == [["file:train/1/a.jpg"]]
    test = read_split(workspace, "test")
    assert test["image"].to_pylist() == ["file:test_1_0.jpg"]
    assert test["further_images"].to_pylist() == [["file:test_1_1.jpg"]]


JPEG, PNG = (encoded(photo(30, 20, seed=seed), kind) for seed, kind in ((1, "JPEG"), (2, "PNG")))
SHA = [hashlib.sha256(content).hexdigest() for content in (JPEG, PNG)]
URI = [
    f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    for kind, content in (("jpeg", JPEG), ("png", PNG))
]
FEATURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # Hugging Face's `Image`
BOTH = [{"bytes": JPEG, "path": "a.jpg"}, {"bytes": PNG, "path": None}]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([BOTH[0], BOTH[1], None], FEATURE),
        pa.array([JPEG, PNG, None]),
        pa.array([URI[0], URI[1].replace("data", "DATA", 1), ""]),
        pa.array([[JPEG, PNG, JPEG], [PNG], []]),
        pa.array([BOTH, BOTH[1:], None], pa.list_(FEATURE)),
        pa.array([URI, URI[1:], []]),
        pa.array([json.dumps(URI), URI[1], None]),
        pa.array([" ".join(URI), URI[1], None]),
    ],
    ids=lambda cells: str(cells.type),
)
def test_images_in_the_table_itself_are_kept_by_content(workspace, cells):
    table = pa.table(
        {"sample_id": [1, 2, 3], "catalog_content": list("abc"), "price": [1.0, 2.0, 3.0], "photo": cells}
    )
    columns = ColumnConfig(image_link="photo")
    report = ingest(workspace, table, columns=columns)
    has_list = pa.types.is_list(cells.type) or (
        pa.types.is_string(cells.type) and len(cells[0].as_py()) > len(URI[0])
    )
    first, second = (f"data:{sha}" for sha in SHA)
    assert images_of(workspace) == [[first, second] if has_list else [first], [second], []]
    assert (report.n_inline, report.splits["train"].n_with_image) == (2, 2)
    keys = [keys.to_pylist() for ((_, keys), *_) in iter_image_keys(workspace, PHOTOS, "train")]
    assert keys == [[*image_keys(pa.array(SHA)).to_pylist(), None]]
    assert ingest(workspace, table, columns=columns).is_unchanged
    show_images(workspace)
    assert images_of(workspace)[1] == [second]
    wanted = read_wanted(workspace)
    assert (wanted.urls, wanted.n_unusable, wanted.n_from_folder) == ({}, {}, 2)


def test_an_image_column_that_is_not_named_is_found_by_its_type_or_hinted_at(workspace):
    plain = {"sample_id": [1, 2], "catalog_content": ["a", "b"], "price": [1.0, 2.0]}
    report = ingest(workspace, pa.table(plain | {"photo": pa.array(BOTH, FEATURE)}))
    assert "column 'photo' of the train frame holds images: they are those of its rows" in report.notes
    assert (report.n_inline, report.numeric) == (2, ())
    report = ingest(workspace, pa.table(plain | {"photo": pa.array([JPEG, PNG])}))
    assert any("'--image-column photo' names one that holds images" in note for note in report.notes)
    assert report.n_inline == 0


def test_what_the_link_column_can_not_give_is_said(workspace):
    plain = {"sample_id": [1, 2], "catalog_content": ["a", "b"], "price": [1.0, 2.0]}
    ingest(workspace, pa.table(plain | {"image_link": ["data:image/png;base64,???", "data:,plain%20text"]}))
    (row,) = failed_rows(workspace, load_config(workspace))
    assert (row.sample_id, row.stage, row.reason) == (1, "read", "a data: URI that can't be read")
    report = ingest(workspace, pa.table(plain | {"image_link": [r"C:\shop\a.JPG", "file:///shop/b.png"]}))
    assert "2 rows of the train frame name image files: give their folder with --images" in report.notes


def test_rows_that_share_any_image_are_in_one_fold_unless_many_share_it(workspace, tmp_path):
    sign = [B] * (SHARED_ROWS + 1)
    cells = [
        f"{A} {C}",
        f"https://a.example/x.jpg {A}",
        *(f"https://a.example/{i}.jpg {one}" for i, one in enumerate(sign)),
    ]
    ingest(workspace, catalogue(tmp_path, *cells))
    wanted = list(read_wanted(workspace).urls)
    record(workspace, {link: link.encode() for link in wanted})
    show_images(workspace)
    rows, known = read_split(workspace, "train"), known_links(workspace)
    further = further_row_images(rows, known)
    group = group_rows(rows["text"], row_images(rows["image"], known), near=False, further=further)
    assert group.tolist() == [0, 0, *range(1, len(sign) + 1)]
    assert have_image(rows, known | {A: None})[:2] == [True, True]  # another one could be had
    assert have_image(rows, known | {A: None, C: None})[:2] == [False, True]
    folds = ensure_folds(workspace, load_config(workspace))
    assert len(np.unique(folds.group)) == len(cells) - 1


def test_the_page_shows_every_image_of_a_doubtful_row(workspace, folder, tmp_path):
    ingest(workspace, catalogue(tmp_path, "p0.jpg;p1.jpg", "p0.jpg", *"abcdefgh"), images=folder)
    result = CliRunner().invoke(main, ["catalog", "clean", "-w", workspace.root])
    assert result.exit_code == 0, result.output
    facts = read_facts(workspace)
    assert (facts.splits[0].with_several, facts.splits[0].n_images) == (1, 3)
    page = page_of(facts, lambda digest: f"shown:{digest}")
    for name in ("p0.jpg", "p1.jpg"):
        assert f"shown:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}" in page
