"""Rows with several images, from the cell of the link column to the vector of the row."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from heads.features.inputs import coverage_of
from store.catalog.download.addresses import all_urls, split_links
from store.catalog.download.plan import read_wanted
from store.catalog.download.rows import show_images
from store.catalog.ingest.run import ingest
from store.catalog.read import catalog_digest, read_split
from store.cli import main
from store.config import ColumnConfig, load_config
from store.errors import MissingVectorsError
from store.failures import failed_rows
from store.schema import LINKS
from store.vectors.content import image_keys
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, publish_current
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
    rows = read_split(workspace, "train")
    further = (
        rows["further_images"].to_pylist() if "further_images" in rows.column_names else [None] * len(rows)
    )
    return [
        [image, *(others or ())] for image, others in zip(rows["image"].to_pylist(), further, strict=True)
    ]


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
    assert images_of(workspace) == [[None]] * 4
    before = catalog_digest(workspace)
    record(workspace, {B: b"b", C: None})
    assert show_images(workspace) == 2
    assert images_of(workspace) == [[B], [C], [B], [None]]
    record(workspace, {A: b"a", B: b"b", C: None})
    assert show_images(workspace) == 3
    assert images_of(workspace) == [[A, B], [A, C], [B], [None]]
    assert catalog_digest(workspace) != before
    shown = catalog_digest(workspace)
    assert ingest(workspace, train).is_unchanged
    record(workspace, {A: b"a", B: b"other", C: None})
    show_images(workspace)
    assert catalog_digest(workspace) != shown
    ingest(workspace, train, columns=ColumnConfig(images_per_row="first"))
    assert list(read_wanted(workspace).urls) == [A, B]
    assert images_of(workspace) == [[A], [A], [B], [None]]


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
    for read in (lambda: load_matrix(embedded, PHOTOS, "train"), lambda: coverage_of(embedded, PHOTOS)):
        with pytest.raises(MissingVectorsError, match=r"first: 0\)"):
            read()
    failed = [row for row in failed_rows(embedded, load_config(embedded)) if row.what == "photos"]
    assert [(row.sample_id, row.file) for row in failed] == [(2, C), (1, C)]


def test_what_heads_see_of_a_row_depends_on_each_of_its_images(embedded):
    publish(embedded, {b"a": [1.0, 0.0], b"b": [0.0, 3.0]})
    before = coverage_of(embedded, PHOTOS)
    assert (before.n_valid, before.n_rows) == (3, 4)
    publish(embedded, {b"c": [1.0, 1.0]}, failed=None)
    after = coverage_of(embedded, PHOTOS)
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
    assert all_urls(None) == []
