import hashlib
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from store.catalog.clean.images import HASHES_FILE, perceptual_hashes
from store.catalog.clean.run import clean_catalog
from store.catalog.download.archive import export_images, import_images
from store.catalog.download.progress import Progress
from store.catalog.download.record import Journal, LinkRecord, read_journal
from store.catalog.download.run import DownloadSettings, download_images
from store.catalog.images.blobs import blob_path, damaged_blobs, read_blob
from store.catalog.images.links import known_links
from store.catalog.ingest.run import ingest
from store.catalog.show.page import thumbnail_of
from store.errors import CorruptFileError, StoreError, WorkspaceError
from store.schema import LINKS
from store.workspace import Workspace
from tests.clean_rows import found, image_bytes, publish


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def stored(workspace, content):
    digest = hashlib.sha256(content).hexdigest()
    workspace.publish_bytes(blob_path(digest), content)
    return digest


def test_a_blob_is_read_by_its_digest_and_put_aside_where_its_bytes_are_others(workspace):
    digest = stored(workspace, b"right")
    assert read_blob(workspace, digest) == b"right"
    path = Path(workspace.path(blob_path(digest)))
    path.write_bytes(b"wrong")
    for _ in range(2):
        with pytest.raises(
            CorruptFileError, match=rf"image {blob_path(digest)} is damaged.*'shelfprice catalog images'"
        ):
            read_blob(workspace, digest)
    assert [one.read_bytes() for one in path.parent.iterdir()] == [b"wrong"]
    gone = "ab" * 32
    with pytest.raises(
        WorkspaceError, match=rf"image {blob_path(gone)} is gone: run 'shelfprice catalog ingest'"
    ):
        read_blob(workspace, gone)


def test_in_a_workspace_that_cannot_be_written_a_damaged_blob_is_an_error_all_the_same(
    workspace, monkeypatch
):
    digest = stored(workspace, b"right")
    Path(workspace.path(blob_path(digest))).write_bytes(b"wrong")

    def refuse(*paths, **options):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(workspace.filesystem, "mv", refuse)
    for _ in range(2):
        with pytest.raises(CorruptFileError, match="is damaged"):
            read_blob(workspace, digest)


@pytest.mark.parametrize("again", ["ingest", "download", "import"])
def test_what_a_killed_run_left_half_written_is_swept_by_the_next(workspace, tmp_path, again):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"one")
    (tmp_path / "train.csv").write_text("sample_id,catalog_content,price\n1,x,5\n")
    ingest(workspace, str(tmp_path / "train.csv"), images=str(folder))
    export_images(workspace, str(tmp_path / "handed"))
    blob = Path(workspace.path(blob_path(hashlib.sha256(b"one").hexdigest())))
    killed = [blob.with_name(".writing-a-1"), Path(workspace.path("images/.writing-links.parquet-2"))]
    at_work = blob.with_name(".writing-b-3")
    for path in (*killed, at_work):
        path.write_bytes(b"half")
    for path in killed:
        os.utime(path, (time.time() - 90,) * 2)
    if again == "ingest":
        ingest(workspace, str(tmp_path / "train.csv"), images=str(folder))
    elif again == "download":
        download_images(workspace, DownloadSettings(), Progress(show=False))
    else:
        import_images(workspace, str(tmp_path / "handed"))
    assert not [path for path in killed if path.exists()]
    assert at_work.exists()
    assert blob.exists()


def test_what_stands_in_an_images_place_is_told_and_a_link_that_leads_nowhere_is_no_image(
    workspace, tmp_path
):
    folder, table = tmp_path / "images", tmp_path / "train.csv"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"one")
    table.write_text("sample_id,catalog_content,price\n1,x,5\n")
    ingest(workspace, str(table), images=str(folder))
    digest = hashlib.sha256(b"one").hexdigest()
    path = Path(workspace.path(blob_path(digest)))
    path.unlink()
    path.mkdir()
    with pytest.raises(
        StoreError,
        match=rf"can't read .*{digest}: Is a directory: delete it, then run 'shelfprice catalog ingest'",
    ):
        read_blob(workspace, digest)
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(WorkspaceError, match=r"is gone: run 'shelfprice catalog ingest'"):
        read_blob(workspace, digest)
    ingest(workspace, str(table), images=str(folder))
    assert read_blob(workspace, digest) == b"one"
    path.unlink()
    path.symlink_to(path.name)  # to itself
    ingest(workspace, str(table), images=str(folder))
    assert read_blob(workspace, digest) == b"one"


def test_a_link_to_itself_among_images_is_an_image_that_failed(workspace, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.jpg").write_bytes(b"one")
    (tmp_path / "images/2.jpg").symlink_to("2.jpg")
    (tmp_path / "train.csv").write_text("sample_id,catalog_content,price\n1,x,5\n2,y,6\n")
    ingest(workspace, str(tmp_path / "train.csv"), images=str(tmp_path / "images"))
    links = {one["link"]: one for one in workspace.read_table("images/links.parquet").to_pylist()}
    assert links["file:1.jpg"]["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert links["file:2.jpg"]["sha256"] is None
    assert "can't be read: " in links["file:2.jpg"]["reason"]


def test_all_damaged_blobs_are_found(workspace):
    digests = [stored(workspace, b"%d" % i) for i in range(50)]
    for digest in digests[::9]:
        Path(workspace.path(blob_path(digest))).write_bytes(b"other")
    Path(workspace.path(blob_path(digests[1]))).unlink()
    assert set(damaged_blobs(workspace, digests)) == {*digests[::9], digests[1]}


def test_cleaning_counts_a_corrupted_image_as_none_says_so_and_does_not_remember_it(workspace):
    images = {"a": image_bytes(1), "b": image_bytes(1, quality=60), "c": image_bytes(1, quality=70)}
    train = [
        {"sample_id": i, "text": f"thing {i}", "price": 1.0, "image": name} for i, name in enumerate(images)
    ]
    publish(workspace, train, images=images, fold=[0, 1, 0])
    digests = [hashlib.sha256(content).hexdigest() for content in images.values()]
    Path(workspace.path(blob_path(digests[1]))).write_bytes(image_bytes(9))
    lines: list[str] = []
    clean_catalog(workspace, log=lines.append)
    assert set(found(workspace, "near_image")) == {0, 2}
    assert [line for line in lines if "image" in line] == [
        f"1 images count as none: image {blob_path(digests[1])} is damaged (its digest does not match) and was "
        "renamed: run 'shelfprice catalog ingest' with --images again, or 'shelfprice catalog images' for links"
    ]
    workspace.publish_bytes(blob_path(digests[1]), images["b"])
    clean_catalog(workspace)
    assert set(found(workspace, "near_image")) == {0, 1, 2}


def test_a_page_shows_no_image_whose_bytes_are_others(workspace):
    digest = stored(workspace, image_bytes(1))
    assert thumbnail_of(workspace, digest).startswith("data:image/jpeg;base64,")
    Path(workspace.path(blob_path(digest))).write_bytes(image_bytes(2))
    assert thumbnail_of(workspace, digest) is None


def test_damaged_hashes_are_computed_again(workspace):
    digest = stored(workspace, image_bytes(1))
    first = perceptual_hashes(workspace, [digest])
    Path(workspace.path(HASHES_FILE)).write_bytes(b"PAR1 no more")
    assert perceptual_hashes(workspace, [digest]) == first
    assert workspace.read_table(HASHES_FILE)["sha256"].to_pylist() == [digest]


@pytest.mark.parametrize("sha256", ["../../../diary.txt", "A" * 64, "no digest"])
def test_what_is_no_digest_is_never_taken_as_the_path_of_an_image(workspace, tmp_path, sha256):
    stored(workspace, b"one")
    row = dict.fromkeys(LINKS.names) | {"link": "https://shop.example/1.jpg", "sha256": sha256, "tries": 1}
    workspace.publish_table("images/links.parquet", pa.Table.from_pylist([row], schema=LINKS))
    with pytest.raises(
        CorruptFileError,
        match=r"links.parquet can't be read .column 'sha256' holds a value that is not a SHA-256 digest",
    ):
        known_links(workspace)
    journal = Journal(workspace)
    journal.write(
        [LinkRecord("https://shop.example/2.jpg", sha256), LinkRecord("https://shop.example/3.jpg")]
    )
    name = workspace.names("images/journal")[0]
    kept = list(read_journal(workspace.read_bytes(f"images/journal/{name}")))
    assert [one["link"] for one in kept] == ["https://shop.example/3.jpg"]


def test_no_path_leads_out_of_a_workspace(workspace):
    for relative in ("../a", "images/../../a", "/etc/passwd", ".."):
        with pytest.raises(WorkspaceError, match="leads out of the workspace"):
            workspace.read_bytes(relative)
    workspace.publish_bytes("a/..b", b"")
    assert workspace.names("a", "..") == []  # hidden, and no way out
    assert workspace.exists("a/..b")
