"""Images handed over as a folder or a tar."""

import hashlib
import io
import json
import subprocess
import tarfile
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from store.catalog.download.archive import export_images, import_images
from store.catalog.download.record import Journal, LinkRecord, fold_journals
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import read_links
from store.cli import main
from store.errors import CatalogError
from store.schema import LINKS
from store.workspace import Workspace
from tests.fakes import catalog_table, image_digests, publish_catalog


def filled(path, contents=("one", "two", "three")):
    """A workspace with some images (any bytes will do) and one failed link."""
    workspace = Workspace(path)
    records = [LinkRecord("http://a/failed", None, "http 404", 1, 404)]
    for content in contents:
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        workspace.publish_bytes(blob_path(sha256), content.encode())
        records.append(LinkRecord(f"http://a/{content}", sha256, None, 1, 200, len(content)))
    Journal(workspace).write(records)
    fold_journals(workspace)
    return workspace


@pytest.mark.parametrize("name", ["handed", "handed.tar"])
def test_what_is_handed_over_arrives_whole_elsewhere(tmp_path, name):
    source, target = filled(tmp_path / "a"), Workspace(tmp_path / "b")
    assert export_images(source, str(tmp_path / name)).n_images == 3
    done = import_images(target, str(tmp_path / name))
    assert (done.n_images, done.n_links, done.passed_over) == (3, 4, [])
    assert read_links(target).to_pylist() == read_links(source).to_pylist()
    for sha256 in image_digests(source).values():
        assert target.read_bytes(blob_path(sha256)) == source.read_bytes(blob_path(sha256))
    again = import_images(target, str(tmp_path / name))
    assert (again.n_images, again.n_present, again.n_links) == (0, 3, 0)


def test_the_images_folder_of_a_workspace_is_taken_as_it_lies_even_after_a_kill(tmp_path):
    source = filled(tmp_path / "a")
    sha256 = hashlib.sha256(b"late").hexdigest()
    source.publish_bytes(blob_path(sha256), b"late")
    Journal(source).write([LinkRecord("http://a/late", sha256, None, 1, 200, 4)])
    target = Workspace(tmp_path / "b")
    assert import_images(target, str(tmp_path / "a/images")).n_images == 4
    assert image_digests(target)["http://a/late"] == sha256


def test_the_same_images_give_the_same_tar(tmp_path):
    export_images(filled(tmp_path / "a"), str(tmp_path / "a.tar"))
    export_images(filled(tmp_path / "b"), str(tmp_path / "b.tar"))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_image_here_is_kept_and_a_failure_here_is_mended(tmp_path):
    source, target = filled(tmp_path / "a", ["one", "two"]), Workspace(tmp_path / "b")
    mine = hashlib.sha256(b"mine").hexdigest()
    target.publish_bytes(blob_path(mine), b"mine")
    Journal(target).write([LinkRecord("http://a/one", mine), LinkRecord("http://a/two", None, "http 500")])
    import_images(target, str(tmp_path / "a/images"))
    digests = image_digests(target)
    assert digests["http://a/one"] == mine
    assert digests["http://a/two"] == image_digests(source)["http://a/two"]


def test_rows_see_imported_images(tmp_path):
    filled(tmp_path / "a")
    target = Workspace(tmp_path / "b")
    publish_catalog(target, catalog_table([{"sample_id": 1, "image_link": "http://a/one", "price": 1.0}]))
    import_images(target, str(tmp_path / "a/images"))
    assert target.read_table("catalog/train.parquet")["image"].to_pylist() == ["http://a/one"]


def test_an_image_that_does_not_match_its_digest_and_odd_files_are_passed_over(tmp_path):
    source = filled(tmp_path / "a")
    sha256 = image_digests(source)["http://a/two"]
    (tmp_path / "a" / blob_path(sha256)).write_bytes(b"forged")
    for name in (
        "blobs/readme.txt",
        "Ärger \n mit Namen.jpg",
        "blobs/ab/" + "z" * 64,
        "blobs/ab/" + "a" * 63,
    ):
        path = tmp_path / "a/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    target = Workspace(tmp_path / "b")
    done = import_images(target, str(tmp_path / "a/images"))
    assert dict(done.passed_over) == {
        "images whose bytes do not match their digest": 1,
        "files that are no image by digest": 4,
        "images that its links name and it does not hold": 1,
    }
    assert set(image_digests(target)) == {"http://a/one", "http://a/three"}


def test_a_tar_can_not_write_outside_the_workspace(tmp_path):
    export_images(filled(tmp_path / "a"), str(tmp_path / "a.tar"))
    evil = tmp_path / "evil.tar"
    digest = hashlib.sha256(b"evil").hexdigest()
    with tarfile.open(tmp_path / "a.tar") as good, tarfile.open(evil, "w") as tar:
        for member in good:
            tar.addfile(member, good.extractfile(member))
        for name in ("../../escaped", str(tmp_path / "escaped"), f"../blobs/{digest[:2]}/{digest}"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
        link = tarfile.TarInfo(f"blobs/{'0' * 2}/{'0' * 64}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    target = Workspace(tmp_path / "deep/er/b")
    before = set(tmp_path.rglob("*"))
    done = import_images(target, str(evil))
    assert dict(done.passed_over)["links and special files"] == 1
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path.is_relative_to(tmp_path / "deep/er/b/images") for path in files - before)
    assert set(image_digests(target)) == {"http://a/one", "http://a/two", "http://a/three"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no tar at all", "is not a whole tar"), (b"", "is not a whole tar|holds no links.parquet")],
)
def test_a_source_that_is_no_tar_is_one_error(tmp_path, content, message):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        import_images(Workspace(tmp_path / "b"), str(tmp_path / "x.tar"))


def test_a_tar_cut_short_is_one_error(tmp_path):
    export_images(filled(tmp_path / "a", [str(i) for i in range(50)]), str(tmp_path / "a.tar"))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: len(content) // 2 + 100])
    with pytest.raises(CatalogError, match="is not a whole tar"):
        import_images(Workspace(tmp_path / "b"), str(tmp_path / "cut.tar"))


def packed(path, files, mode="w", **changes):
    """A tar of (name, content)."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for attribute, value in changes.items():
                setattr(entry, attribute, value)
            tar.addfile(entry, io.BytesIO(content))
    return str(path)


def records(rows):
    table, out = pa.Table.from_pylist(rows, schema=LINKS), io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def test_images_that_a_tar_names_and_does_not_hold_are_told(tmp_path):
    links = records([dict.fromkeys(LINKS.names) | {"link": "http://a/1", "sha256": "a" * 64}])
    source = packed(tmp_path / "x.tar", [("links.parquet", links)])
    done = import_images(Workspace(tmp_path / "b"), source)
    assert (done.n_links, dict(done.passed_over)) == (
        0,
        {"images that its links name and it does not hold": 1},
    )


@pytest.mark.parametrize("content", [b"{", b'{"link":5}', b'{"link":"x","tries":"many"}'])
def test_a_journal_that_holds_no_records_is_one_error(tmp_path, content):
    line = b"%08x %s\n" % (zlib.crc32(content), content)
    source = packed(tmp_path / "x.tar", [("links.parquet", records([])), ("journal/1.jsonl", line)])
    with pytest.raises(CatalogError, match=r"journal/1\.jsonl of .*x\.tar can't be read"):
        import_images(Workspace(tmp_path / "b"), source)


@pytest.mark.parametrize("name", ["links.parquet", "journal/1.jsonl"])
def test_a_terabyte_of_nothing_is_not_read(tmp_path, name):
    sparse = {"major": "0", "minor": "1", "name": name, "size": str(10**12), "map": "0,512", "numblocks": "1"}
    headers = {f"GNU.sparse.{key}": value for key, value in sparse.items()}
    source = packed(tmp_path / "x.tar", [(name, bytes(512))], pax_headers=headers)
    with pytest.raises(CatalogError, match="can't be read: 1000000000000 bytes"):
        import_images(Workspace(tmp_path / "b"), source)


@pytest.mark.parametrize("name", ["journal/1.jsonl", "links.parquet", "blobs/30/" + "30" * 32])
def test_a_sparse_file_that_stands_for_more_than_the_tar_holds_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    with open(tmp_path / name, "wb") as hole:
        hole.truncate(2**29)
    command = ["tar", "--sparse", "--format=gnu", "-C", str(tmp_path), "-cf", str(tmp_path / "x.tar"), name]
    subprocess.run(command, check=True)
    assert (tmp_path / "x.tar").stat().st_size < 20_000
    with pytest.raises(
        CatalogError, match=rf"{name} of .*x.tar can't be read: {2**29} bytes as a sparse file"
    ):
        import_images(Workspace(tmp_path / "b"), str(tmp_path / "x.tar"))


@pytest.mark.parametrize("bomb", ["many rows", "long values", "a long page"])
def test_a_few_bytes_of_records_do_not_become_a_gigabyte(tmp_path, bomb):
    n = {"many rows": 1_000_000, "long values": 5_000, "a long page": 1}[bomb]
    link = "http://a/" + "x" * {"many rows": 1, "long values": 100_000, "a long page": 50_000_000}[bomb]
    links = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([link]))
    columns = {name: pa.nulls(n, LINKS.field(name).type) for name in LINKS.names} | {"link": links}
    file = io.BytesIO()
    pq.write_table(
        pa.table(columns), file, compression="zstd", use_dictionary=bomb != "a long page", store_schema=False
    )
    source = packed(tmp_path / "x.tar", [("links.parquet", file.getvalue())])
    with pytest.raises(
        CatalogError, match=r"more than 16777216 bytes when unpacked|a value of more than 65536 bytes"
    ):
        import_images(Workspace(tmp_path / "b"), source)


def test_links_in_a_folder_are_not_followed(tmp_path):
    source = filled(tmp_path / "a")
    secret = tmp_path / "secret"
    secret.write_bytes(b"not for them")
    digest = hashlib.sha256(b"not for them").hexdigest()
    blob = tmp_path / "a" / blob_path(digest)
    blob.parent.mkdir(exist_ok=True)
    blob.symlink_to(secret)
    Journal(source).write([LinkRecord("http://a/secret", digest, None, 1, 200, 12)])
    (tmp_path / "a/images/more").symlink_to(tmp_path)
    done = import_images(Workspace(tmp_path / "b"), str(tmp_path / "a/images"))
    assert done.n_images == 3
    assert done.odd["links and special files"] == 2
    assert not (tmp_path / "b" / blob_path(digest)).exists()


def test_records_that_unpack_to_more_than_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("store.catalog.download.archive.MOST_RECORD_BYTES", 100_000)
    rows = [dict.fromkeys(LINKS.names) | {"link": "http://a/" + "x" * 1000, "tries": 1}] * 5000
    source = packed(tmp_path / "x.tar", [("links.parquet", records(rows))])
    with pytest.raises(CatalogError, match="more than 100000 bytes when unpacked"):
        import_images(Workspace(tmp_path / "b"), source)


def test_a_damaged_header_is_one_error(tmp_path):
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "many"}
    source = packed(tmp_path / "x.tar", [("links.parquet", b"x")], pax_headers=headers)
    with pytest.raises(CatalogError, match="is not a whole tar: damaged header"):
        import_images(Workspace(tmp_path / "b"), source)


def test_a_folder_without_a_record_is_one_error(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.jpg").write_bytes(b"x")
    with pytest.raises(
        CatalogError, match=r"holds no links.parquet: name a folder or tar written by images-export"
    ):
        import_images(Workspace(tmp_path / "b"), str(tmp_path / "images"))


def test_nothing_is_overwritten_by_an_export(tmp_path):
    source = filled(tmp_path / "a")
    (tmp_path / "x.tar").write_bytes(b"mine")
    with pytest.raises(CatalogError, match="exists: name another"):
        export_images(source, str(tmp_path / "x.tar"))
    with pytest.raises(CatalogError, match="exists: name another"):
        export_images(source, str(tmp_path / "a"))


def test_there_must_be_something_to_hand_over(tmp_path):
    with pytest.raises(CatalogError, match=r"no images in .*: run 'shelfprice catalog images"):
        export_images(Workspace(tmp_path / "a"), str(tmp_path / "x.tar"))


def test_both_commands_print_what_they_did(tmp_path):
    filled(tmp_path / "a")
    runner = CliRunner()
    tar = str(tmp_path / "x.tar")
    out = runner.invoke(main, ["catalog", "images-export", "-w", str(tmp_path / "a"), "--to", tar])
    assert "3 images (0.0 MB) of 4 links" in out.stdout
    told = runner.invoke(
        main, ["catalog", "images-import", "-w", str(tmp_path / "b"), "--from", tar, "--json"]
    )
    assert json.loads(told.stdout)["n_images"] == 3
