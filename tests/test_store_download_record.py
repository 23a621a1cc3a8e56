import hashlib

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.catalog.download.record import JOURNAL_FOLDER, Journal, LinkRecord, fold_journals, read_journal
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import LINKS_FILE, merge_links, read_links
from store.schema import LINKS
from store.workspace import Workspace
from tests.fakes import image_digests


def put(workspace, content):
    sha256 = hashlib.sha256(content).hexdigest()
    workspace.publish_bytes(blob_path(sha256), content)
    return sha256


def rows(workspace):
    return {row["link"]: row for row in read_links(workspace).to_pylist()}


def test_a_journal_of_a_killed_run_counts_exactly_where_the_bytes_are_whole(tmp_path):
    workspace = Workspace(tmp_path)
    whole, torn = put(workspace, b"whole"), put(workspace, b"torn")
    (tmp_path / blob_path(torn)).write_bytes(b"to")
    Journal(workspace).write(
        [
            LinkRecord("http://a/whole", whole, n_bytes=5),
            LinkRecord("http://a/torn", torn, n_bytes=4),
            LinkRecord("http://a/missing", "0" * 64, n_bytes=4),
            LinkRecord("http://a/failed", None, "http 404", 1, 404),
        ]
    )
    assert fold_journals(workspace) == 2
    assert image_digests(workspace) == {"http://a/whole": whole}
    assert set(rows(workspace)) == {"http://a/whole", "http://a/failed"}
    assert workspace.names(JOURNAL_FOLDER) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8, unique=True), st.data())
def test_a_journal_cut_anywhere_gives_its_whole_lines_only(tmp_path, links, data):
    workspace = Workspace(tmp_path)
    for name in workspace.names(JOURNAL_FOLDER):
        workspace.remove(f"{JOURNAL_FOLDER}/{name}")
    Journal(workspace).write(LinkRecord(link, None, "http 404") for link in links)
    (name,) = workspace.names(JOURNAL_FOLDER)
    content = workspace.read_bytes(f"{JOURNAL_FOLDER}/{name}")
    cut = data.draw(st.integers(0, len(content)))
    found = [record["link"] for record in read_journal(content[:cut])]
    assert found == links[: len(found)]
    assert len(found) >= content[:cut].count(b"\n")


def test_the_latest_word_on_a_link_counts(tmp_path):
    workspace = Workspace(tmp_path)
    sha256 = put(workspace, b"image")
    first, second = Journal(workspace), Journal(workspace)
    first.write([LinkRecord("http://a/1", None, "http 500", 4, 500)])
    second.write([LinkRecord("http://a/1", sha256, None, 1, 200)])
    fold_journals(workspace)
    assert image_digests(workspace) == {"http://a/1": sha256}
    second.close()
    second.write([LinkRecord("http://a/1", None, "http 404", 1, 404)])
    fold_journals(workspace)
    assert rows(workspace)["http://a/1"]["reason"] == "http 404"


def test_folding_again_after_a_kill_between_publishing_and_removing_changes_nothing(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    sha256 = put(workspace, b"image")
    for record in (LinkRecord("http://a/1", None, "http 500"), LinkRecord("http://a/1", sha256)):
        Journal(workspace).write([record])
    removed = []

    def remove_one(self, relative):
        if removed:
            raise KeyboardInterrupt
        removed.append(relative)
        (tmp_path / relative).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "remove", remove_one)
        with pytest.raises(KeyboardInterrupt):
            fold_journals(workspace)
    assert len(workspace.names(JOURNAL_FOLDER)) == 1
    fold_journals(workspace)
    assert image_digests(workspace) == {"http://a/1": sha256}


def test_links_are_merged_beside_those_of_a_folder_and_an_older_file_is_read(tmp_path):
    workspace = Workspace(tmp_path)
    old = pa.table({"link": ["file:1.jpg"], "sha256": ["a" * 64], "reason": pa.nulls(1, pa.string())})
    workspace.publish_table(LINKS_FILE, old)
    merge_links(workspace, pa.Table.from_pylist([{"link": "http://a/1", "etag": '"x"'}], schema=LINKS))
    assert rows(workspace)["file:1.jpg"]["sha256"] == "a" * 64
    assert rows(workspace)["http://a/1"]["etag"] == '"x"'


def test_an_object_store_gets_whole_journal_parts(tmp_path):
    workspace = Workspace(f"memory://{tmp_path.name}")
    journal = Journal(workspace)
    journal.write(LinkRecord(f"http://a/{i}", None, "http 404") for i in range(250))
    assert len(workspace.names(JOURNAL_FOLDER)) == 1
    journal.write([LinkRecord("http://a/last", None, "http 404")])
    journal.close()
    assert len(workspace.names(JOURNAL_FOLDER)) == 2
    fold_journals(workspace)
    assert len(rows(workspace)) == 251
