import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pytest

from store.catalog.images.blobs import blob_path
from store.catalog.images.links import LINKS_FILE, known_links
from store.catalog.ingest.run import ingest
from store.catalog.read import read_split
from store.errors import CatalogError, CorruptFileError
from store.schema import LINKS
from store.workspace import Workspace
from tests.fakes import image_digests


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def take(workspace, folder, tmp_path):
    """Ingest train rows (id, link) and test rows (id, link) with the folder of images."""

    def ingest_rows(train, test=(), images=True):
        paths = []
        for name, rows in (("train.csv", train), ("test.csv", test)):
            lines = "".join(f"{id},text,{link},5\n" for id, link in rows)
            (tmp_path / name).write_text(f"sample_id,catalog_content,image_link,price\n{lines}")
            paths.append(str(tmp_path / name) if rows else None)
        return ingest(workspace, *paths, images=str(folder) if images else None)

    return ingest_rows


def links(workspace):
    return {row["link"]: row for row in workspace.read_table(LINKS_FILE).to_pylist()}


def images(workspace, split="train"):
    return read_split(workspace, split)["image"].to_pylist()


def test_images_are_found_by_id_by_split_and_by_the_file_name_of_the_link(workspace, folder, take):
    for name in (
        "1.jpg",
        "2.PNG",
        "train_3.jpeg",
        "test_4.webp",
        "51 a+b.JPG",
        "stray.jpg",
        "1.txt",
        "test_1.jpg",
    ):
        (folder / name).write_bytes(name.encode())
    rows = [
        (1, ""),
        (2, ""),
        (3, ""),
        (4, ""),
        (5, "https://x/I/51%20a+b.jpg?size=9#top"),
        (6, "https://x/none.jpg"),
    ]
    report = take(rows, [(40, ""), (7, "http://x/2.png")])
    assert images(workspace) == [
        "file:1.jpg",
        "file:2.PNG",
        "file:train_3.jpeg",
        None,
        "file:51 a+b.JPG",
        None,
    ]
    assert images(workspace, "test") == [None, "file:2.PNG"]
    assert report.n_left_over == 4
    assert report.splits["train"].n_with_image == 4
    for name in ("1.jpg", "2.PNG"):
        digest = hashlib.sha256(name.encode()).hexdigest()
        assert image_digests(workspace)[f"file:{name}"] == digest
        assert workspace.read_bytes(blob_path(digest)) == name.encode()
    assert workspace.read_table(LINKS_FILE).schema.equals(LINKS)


def test_same_bytes_are_stored_once_and_broken_ones_are_stored_too(workspace, folder, take):
    for name, content in (("1.jpg", b"same"), ("2.jpg", b"same"), ("3.jpg", b""), ("4.jpg", b"<html>")):
        (folder / name).write_bytes(content)
    report = take([(i, "") for i in (1, 2, 3, 4)])
    assert (report.images.n_stored, report.images.n_present) == (3, 1)
    assert links(workspace)["file:3.jpg"]["n_bytes"] == 0
    assert len(set(image_digests(workspace).values())) == 3
    assert report.images.no_images[2:] == (("3.jpg", "not an image: empty"), ("4.jpg", "not an image: HTML"))
    assert any("files that are stored and are no images: 4 (first: 1.jpg" in note for note in report.notes)


def test_an_unchanged_image_is_not_read_again_and_a_changed_one_changes_the_digest(workspace, folder, take):
    (folder / "1.jpg").write_bytes(b"one")
    (folder / "2.jpg").write_bytes(b"two")
    first = take([(1, ""), (2, "")])
    again = take([(1, ""), (2, "")])
    assert again.is_unchanged
    assert again.images.n_unread == 2
    (folder / "2.jpg").write_bytes(b"TWO")
    os.utime(folder / "2.jpg", ns=(1, 1))
    changed = take([(1, ""), (2, "")])
    assert (changed.images.n_unread, changed.images.n_stored) == (1, 1)
    assert changed.splits["train"].digest != first.splits["train"].digest


def test_a_lost_blob_is_copied_again(workspace, folder, take):
    (folder / "1.jpg").write_bytes(b"one")
    take([(1, "")])
    path = blob_path(image_digests(workspace)["file:1.jpg"])
    workspace.remove(path)
    assert take([(1, "")]).images.n_stored == 1
    assert workspace.read_bytes(path) == b"one"


def test_an_image_that_cannot_be_read_is_recorded_with_the_reason_and_the_row_keeps_it(
    workspace, folder, take
):
    (folder / "1.jpg").symlink_to(folder / "gone")
    (folder / "2.jpg").write_bytes(b"two")
    report = take([(1, ""), (2, "")])
    assert report.images.failed == (("1.jpg", "can't be read: No such file or directory"),)
    assert images(workspace) == ["file:1.jpg", "file:2.jpg"]
    assert "file:1.jpg" not in image_digests(workspace)
    (folder / "1.jpg").unlink()
    (folder / "1.jpg").write_bytes(b"one")
    assert not take([(1, ""), (2, "")]).images.failed
    assert "file:1.jpg" in image_digests(workspace)


def test_without_a_folder_a_row_has_the_image_that_was_downloaded_for_its_link(workspace, folder, take):
    downloaded = {"link": "http://x/a.jpg", "sha256": "0" * 64, "reason": None, "tries": 1}
    downloaded |= {"http_status": 200, "n_bytes": 3, "mtime_ns": None, "etag": None, "last_modified": None}
    workspace.publish_table(LINKS_FILE, LINKS.empty_table().from_pylist([downloaded], schema=LINKS))
    take([(1, "http://x/a.jpg"), (2, "http://x/b.jpg")], images=False)
    assert images(workspace) == ["http://x/a.jpg", None]
    (folder / "2.jpg").write_bytes(b"two")
    take([(1, "http://x/a.jpg"), (2, "http://x/b.jpg")])
    assert images(workspace) == ["http://x/a.jpg", "file:2.jpg"]
    assert downloaded.items() <= links(workspace)["http://x/a.jpg"].items()


def test_leaving_the_folder_out_later_is_told(workspace, folder, take):
    (folder / "1.jpg").write_bytes(b"one")
    take([(1, "")])
    report = take([(1, "")], images=False)
    assert images(workspace) == [None]
    assert any("1 train rows had an image out of a folder" in note for note in report.notes)


def test_a_folder_that_matches_no_row_is_an_error_with_examples_of_both_sides(workspace, folder, take):
    for i in range(9):
        (folder / f"img-{i}.jpg").write_bytes(b"x")
    (folder / "more").mkdir()
    with pytest.raises(
        CatalogError,
        match=r"not one of the 9 files .* 1\.jpg or train_1\.jpg or a b\.jpg .* holds img-0\.jpg, .*looked through as well: more",
    ):
        take([(1, "http://x/a%20b.jpg")])
    assert not workspace.exists("")


@pytest.mark.parametrize(
    "make, message", [(False, "can't list the image folder"), (True, "holds no files, only folders")]
)
def test_a_folder_that_is_not_there_or_empty_is_an_error(take, folder, make, message):
    (folder / "sub").mkdir()
    if not make:
        (folder / "sub").rmdir()
        folder.rmdir()
    with pytest.raises(CatalogError, match=message):
        take([(1, "")])


@pytest.mark.parametrize(
    "link",
    [
        "http://[",
        "%",
        "relative.jpg",
        "['http://x/a.jpg']",
        "http://x/" + "a" * 5000,
        "http://bücher.de/ü.jpg",
        "/",
    ],
)
def test_any_link_is_taken_as_it_stands(workspace, folder, take, link):
    (folder / "2.jpg").write_bytes(b"two")
    take([(1, f'"{link}"'), (2, "")])
    assert read_split(workspace, "train")["image_link"].to_pylist()[0] == link


def test_a_folder_with_odd_names_gives_its_images_and_tells_the_rest(workspace, folder, take):
    odd = [
        b"\xff\xfe.jpg",
        b"1\n.jpg",
        b" 2.jpg",
        b".jpg",
        b"-rf.jpg",
        "日本 ü.jpg".encode(),
        b"..jpg.jpg",
        b"%2e%2e%2f.jpg",
        b"x" * 240 + b".jpg",
        b"'; drop.jpg",
    ]
    for name in [*odd, b"1.jpg"]:
        (Path(os.fsdecode(bytes(folder) + b"/" + name))).write_bytes(name)
    os.symlink(folder / "nowhere", folder / "3.jpg")
    os.mkfifo(folder / "4.jpg")
    (folder / "5.jpg").mkdir()
    take([(1, ""), (2, "http://x/I/%E6%97%A5%E6%9C%AC%20%C3%BC.jpg"), (3, ""), (4, ""), (5, "")])
    assert images(workspace) == ["file:1.jpg", "file:日本 ü.jpg", "file:3.jpg", None, None]
    assert workspace.read_bytes(blob_path(links(workspace)["file:日本 ü.jpg"]["sha256"])) == odd[5]
    assert "No such file" in links(workspace)["file:3.jpg"]["reason"]


def test_a_killed_import_goes_on_where_it_stopped(workspace, folder, take, monkeypatch):
    for i in range(50):
        (folder / f"{i}.jpg").write_bytes(b"%d" % i)
    rows = [(i, "") for i in range(50)]
    with monkeypatch.context() as patch:
        patch.setattr(
            Workspace, "publish_table", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            take(rows)
    assert not workspace.exists(LINKS_FILE)
    assert take(rows).images.n_stored == 0
    blobs = [path for path in Path(workspace.path("images/blobs")).rglob("*") if path.is_file()]
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in blobs} == {path.name for path in blobs}
    assert len(blobs) == 50


@pytest.mark.parametrize("damage", ["cut", "no Parquet", "another schema", "empty"])
def test_damaged_links_are_told_and_made_again_by_the_next_ingest(workspace, folder, take, damage):
    (folder / "1.jpg").write_bytes(b"one")
    take([(1, "")])
    path = Path(workspace.path(LINKS_FILE))
    if damage == "another schema":
        workspace.publish_table(LINKS_FILE, pa.table({"link": [[1], [2]], "sha256": [1, 2]}))
    else:
        path.write_bytes({"cut": path.read_bytes()[:-9], "no Parquet": b"PAR1", "empty": b""}[damage])
    with pytest.raises(
        CorruptFileError,
        match=r"links.parquet can't be read .*: run 'shelfprice catalog ingest' with --images",
    ):
        known_links(workspace)
    report = take([(1, "")])
    assert any("links.parquet could not be read and was put aside" in note for note in report.notes)
    assert image_digests(workspace) == {"file:1.jpg": hashlib.sha256(b"one").hexdigest()}


def matched(take, folder, files, train, test=()):
    """Files of train's and test's rows, and what was said of how they were found."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    report = take(train, test)
    return [note for note in report.notes if note.startswith(tuple("123456789"))]


CASE, INSIDE = "under a name in other case", "in a folder inside the folder of images"
FORM = "under a name in another Unicode form"
ZEROS = "by a number with leading zeros"
EXTENSION = "under another extension than their link's, or one where it has none"


@pytest.mark.parametrize(
    ("file", "row", "rule"),
    [
        ("shoes/1.jpg", (1, ""), INSIDE),
        ("shoes/red/p0.jpg", (1, "https://x/p0.jpg"), INSIDE),
        ("cafe\u03010.png", (1, "https://x/caf\u00e90.png"), FORM),
        ("caf\u00e9/cafe\u03010.png", (1, "caf\u00e90.png"), FORM),
        ("CAFE\u0301.png", ("caf\u00e9", ""), CASE),
        ("cafe\u0301_0.png", ("caf\u00e9", ""), "by their id and a number, or in a folder of their id"),
        ("P0.JPG", (1, "https://x/p0.jpg"), CASE),
        ("a1.jpg", ("A1", ""), CASE),
        ("shoes/P0.JPG", (1, "https://x/p0.jpg"), CASE),
        ("000001.jpg", (1, ""), ZEROS),
        ("abc123.jpg", (1, "https://x/abc123"), EXTENSION),
        ("photo.v2.jpg", (1, "https://x/photo.v2?size=9"), EXTENSION),
        ("p0.png", (1, "https://x/p0.webp"), EXTENSION),
        ("p0.jpg", (1, r"C:\data\p0.jpg"), None),
        ("a#1.jpg", (1, r"C:\data\a#1.jpg"), None),
        ("p0.jpg", (1, "file:///data/p0.jpg"), None),
        ("p0.jpg", (1, "file:p0.jpg"), None),
        ("p0.jpg", (1, "images/p0.jpg"), None),
        ("q0.jpg", (1, "['https://x/q0.jpg', 'https://x/q1.jpg']"), None),
        ("train/1.jpg", (1, ""), INSIDE),
    ],
)
def test_an_image_is_found_under_a_name_that_can_mean_it_alone_and_the_rule_is_counted(
    workspace, folder, take, file, row, rule
):
    row = (row[0], '"' + row[1].replace('"', '""') + '"')
    said = matched(take, folder, [file, "stray.jpg"], [row, (99, "")])
    assert images(workspace) == [f"file:{file}", None]
    assert said == ([f"1 rows have their image {rule}"] if rule else [])


@pytest.mark.parametrize(
    ("files", "row"),
    [
        (["a/1.jpg", "b/1.jpg"], (1, "")),
        (["PP.jpg", "pp.jpg"], (1, "https://x/Pp.jpg")),
        (["01.jpg", "001.jpg"], (1, "")),
        (["1.jpg"], ("01", "")),
        (["a/p0.png", "b/p0.gif"], (1, "https://x/p0.webp")),
        (["test/1.jpg"], (1, "")),
    ],
)
def test_a_file_that_is_one_of_several_or_of_the_other_split_is_nobodys(workspace, folder, take, files, row):
    assert matched(take, folder, [*files, "2.jpg"], [row, (2, "")]) == []
    assert images(workspace) == [None, "file:2.jpg"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (
            ["0.png", "1.png"],
            "0.png may be of train or of test, .*: name it train_0.png or test_0.png, or put it in",
        ),
        (["a/0.png", "b/0.png"], "a/0.png and b/0.png could both be the image of row 0: keep one of them"),
        (["0.svg", "1.svg"], "0.svg is of a format that is not read: convert it to PNG or JPEG"),
        (
            ["img_0.png"],
            "would be 0.jpg or train_0.jpg .any extension., 0_0.jpg, or a file in a folder 0, .* img_0.png",
        ),
    ],
)
def test_a_folder_none_of_whose_files_can_be_taken_is_an_error_that_says_why(take, folder, files, why):
    with pytest.raises(CatalogError, match=why):
        matched(take, folder, files, [(0, ""), (1, "")], [(0, ""), (1, "")] if "1.png" in files else ())


def test_images_that_are_named_and_not_taken_are_counted_with_the_first(workspace, folder, take):
    rows = [
        (0, "p0.png|q0.png"),
        (1, "p1.png|q1.png"),
        (2, "r2.png"),
        (3, "r3.png"),
        (4, ""),
        (5, ""),
        (6, "http://x/r.png"),
    ]
    matched(take, folder, ["p0.png", "q0.png", "p1.png", "3.jpg", "a/4.png", "b/4.png", "5.svg"], rows)
    notes = take(rows).notes
    assert any("that rows name and the folder lacks: 2 (first: q1.png of row 1)" in note for note in notes)
    assert any("no image for 1 rows: a/4.png and b/4.png could both" in note for note in notes)
    assert any("no image for 1 rows: 5.svg is of a format that is not read" in note for note in notes)


def test_the_usual_name_comes_before_every_other(workspace, folder, take):
    assert matched(take, folder, ["1.jpg", "a/1.jpg", "01.jpg", "1.JPG.png"], [(1, "https://x/01.jpg")]) == []
    assert images(workspace) == ["file:1.jpg"]


def test_a_path_in_the_link_tells_files_of_one_name_apart(workspace, folder, take):
    rows = [(1, "shoes/p0.jpg"), (2, r"C:\shop\hats\P0.JPG"), (3, "https://x/bags/p0.jpg"), (4, "p0.jpg")]
    said = matched(take, folder, ["shoes/p0.jpg", "hats/p0.jpg", "bags/p0.jpg"], rows)
    assert images(workspace) == ["file:shoes/p0.jpg", "file:hats/p0.jpg", "file:bags/p0.jpg", None]
    assert said == [f"2 rows have their image {INSIDE}", f"1 rows have their image {CASE}"]


def test_one_file_is_not_taken_for_the_links_of_several_that_lack_their_own(workspace, folder, take):
    rows = [(i, f"https://x/{i}/main.webp") for i in range(3)] + [(9, "")]
    assert matched(take, folder, ["main.jpg", "9.jpg"], rows) == []
    assert images(workspace) == [None, None, None, "file:9.jpg"]


def test_a_row_whose_id_both_splits_have_takes_only_a_file_that_names_its_split(workspace, folder, take):
    files = ["1.jpg", "train_2.jpg", "test/2.jpg", "train/3.jpg", "4.jpg"]
    said = matched(take, folder, files, [(1, ""), (2, ""), (3, ""), (4, "")], [(1, ""), (2, ""), (3, "")])
    assert images(workspace) == [None, "file:train_2.jpg", "file:train/3.jpg", "file:4.jpg"]
    assert images(workspace, "test") == [None, "file:test/2.jpg", None]
    assert f"2 rows have their image {INSIDE}" in said


def test_files_in_folders_are_copied_counted_and_not_read_again(workspace, folder, take):
    matched(take, folder, ["a/1.jpg", "b/2.jpg", "b/stray.jpg"], [(1, ""), (2, "")])
    assert workspace.read_bytes(blob_path(image_digests(workspace)["file:b/2.jpg"])) == b"b/2.jpg"
    report = take([(1, ""), (2, "")])
    assert (report.images.n_unread, report.n_left_over) == (2, 1)
    assert report.is_unchanged


def test_folders_behind_symbolic_links_are_not_entered(workspace, folder, take, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.jpg").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "2.jpg").write_bytes(b"two")
    take([(1, ""), (2, "")])
    assert images(workspace) == [None, "file:2.jpg"]
