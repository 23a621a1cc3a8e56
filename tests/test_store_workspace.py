import errno
import multiprocessing
import os
import time

import pyarrow as pa
import pytest

from store.errors import CorruptFileError, WorkspaceError
from store.local import TEMPORARY_PREFIX
from store.workspace import Workspace
from tests.soak.commands import result_of


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_a_published_file_reads_back_and_leaves_nothing_beside_it(workspace, tmp_path):
    workspace.publish_bytes("a/b.txt", b"hello")
    assert workspace.read_bytes("a/b.txt") == b"hello"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_debris(workspace, tmp_path):
    workspace.publish_bytes("a.txt", b"old")

    def write(file):
        file.write(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        workspace.publish("a.txt", write)
    assert workspace.read_bytes("a.txt") == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_clear_error(workspace):
    def write(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WorkspaceError, match=r"no space left to write .*a\.txt: free some"):
        workspace.publish("a.txt", write)


def test_a_workspace_below_a_file_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="can't write"):
        Workspace(tmp_path / "file").publish_bytes("a.txt", b"")


def test_listing_shows_neither_half_written_files_nor_a_missing_folder(workspace, tmp_path):
    workspace.publish_bytes("a/part-1.parquet", b"")
    (tmp_path / "a" / f"{TEMPORARY_PREFIX}part-2.parquet-00").write_bytes(b"")
    assert workspace.names("a") == ["part-1.parquet"]
    assert workspace.names("nowhere") == []


def test_what_may_not_be_removed_is_named_with_the_reason(workspace, tmp_path):
    workspace.publish_bytes("a/b", b"")
    (tmp_path / "a").chmod(0o555)

    def why():
        try:
            workspace.remove("a/b")
        except WorkspaceError as error:
            return str(error)

    assert result_of(why) == f"can't remove {tmp_path}/a/b: Permission denied"


def test_sweeping_removes_only_what_was_left_long_ago(workspace, tmp_path):
    fresh, stale = (tmp_path / f"{TEMPORARY_PREFIX}{name}" for name in ("fresh", "stale"))
    fresh.write_bytes(b"")
    stale.write_bytes(b"")
    os.utime(stale, (time.time() - 7200,) * 2)
    assert workspace.sweep("") == 1
    assert fresh.exists()
    assert not stale.exists()


def test_a_truncated_table_is_named(workspace, tmp_path):
    workspace.publish_table("t.parquet", pa.table({"a": range(1000)}))
    path = tmp_path / "t.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=r"t\.parquet is damaged"):
        workspace.read_table("t.parquet")


def test_metadata_of_a_table_is_plain_json(workspace):
    workspace.publish_table("t.parquet", pa.table({"a": [1]}), metadata={"k": [1, "two"]})
    assert workspace.read_metadata("t.parquet") == {"k": [1, "two"]}


def test_an_object_store_serves_the_same_calls():
    workspace = Workspace("memory://bucket/run")
    workspace.publish_table("v/t.parquet", pa.table({"a": [1, 2]}), metadata={"n": 2})
    assert workspace.read_table("v/t.parquet")["a"].to_pylist() == [1, 2]
    assert workspace.names("v", suffix=".parquet") == ["t.parquet"]
    assert workspace.size("v/t.parquet") > 0
    workspace.remove("v/t.parquet")
    assert not workspace.exists("v/t.parquet")


def test_an_address_that_no_library_serves_is_an_error():
    with pytest.raises(WorkspaceError, match="can't be opened"):
        Workspace("nosuchprotocol://bucket")


def _hold(root, started, release):
    with Workspace(root).lock("x/.lock"):
        started.set()
        release.wait(30)


def test_a_second_writer_waits_for_the_first_and_is_told(workspace, tmp_path):
    context = multiprocessing.get_context("spawn")
    started, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, started, release))
    holder.start()
    assert started.wait(30)
    waited = []

    def on_wait():
        waited.append(holder.is_alive())
        release.set()

    with workspace.lock("x/.lock", on_wait):
        assert waited == [True]
    holder.join(30)
