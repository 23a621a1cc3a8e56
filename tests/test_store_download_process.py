"""The process that stores images: its answers, its errors, and its end by a signal."""

import asyncio
import errno
import hashlib
import io
import json
import os
import signal

import pytest

from store.catalog.download.process import CRASHED, StoreProcess, serve
from store.catalog.download.record import JOURNAL_FOLDER, Journal, fold_journals, read_journal
from store.catalog.download.storing import SPILL_BYTES, Body, Stored
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import read_links
from store.errors import WorkspaceError
from store.workspace import Workspace
from tests.fakes import image_digests
from tests.image_server import Site

SITE = Site()
MOST_PIXELS = 1_000_000


def body(content, link="http://a/1", **options):
    return Body(io.BytesIO(content), len(content), link, 1, 200, **options)


def stored(workspace, *batches, make=StoreProcess):
    """What each batch came to, one process for all."""

    async def run():
        store = make(workspace, Journal(workspace), MOST_PIXELS)
        try:
            return [await store.store(batch) for batch in batches]
        finally:
            await store.close()

    return asyncio.run(run())


def test_bodies_are_stored_recorded_and_told(tmp_path):
    workspace, one, two = Workspace(tmp_path), SITE.image_bytes(1), SITE.image_bytes(2)
    bodies = [body(one, "http://a/1", etag='"é"'), body(two, "http://ä/2"), body(one, "http://a/3")]
    told = stored(workspace, bodies, [body(b"<html>", "http://a/4"), body(one, "http://a/5")])
    assert told == [
        [Stored(True), Stored(True), Stored(False)],
        [Stored(False, "not an image: HTML"), Stored(False)],
    ]
    fold_journals(workspace)
    digests = {content: hashlib.sha256(content).hexdigest() for content in (one, two)}
    assert image_digests(workspace) == {
        "http://a/1": digests[one],
        "http://ä/2": digests[two],
        "http://a/3": digests[one],
        "http://a/5": digests[one],
    }
    assert workspace.read_bytes(blob_path(digests[one])) == one


def test_a_body_larger_than_a_pipe_and_than_memory_is_given_arrives_whole(tmp_path):
    workspace = Workspace(tmp_path)
    content = SITE.image_bytes(3) + os.urandom(2 * SPILL_BYTES)
    assert stored(workspace, [body(content), body(SITE.image_bytes(4))]) == [[Stored(True), Stored(True)]]
    assert workspace.read_bytes(blob_path(hashlib.sha256(content).hexdigest())) == content


def test_the_process_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    for module in ("json", "asyncio", "store", "PIL"):
        (tmp_path / f"{module}.py").write_text("open('ran', 'w').close()\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    assert stored(Workspace(tmp_path / "w"), [body(SITE.image_bytes(1))]) == [[Stored(True)]]
    assert not (tmp_path / "ran").exists()


def test_a_refresh_that_brings_no_image_leaves_no_record(tmp_path):
    workspace = Workspace(tmp_path)
    assert stored(workspace, [body(b"gone", keep=True)]) == [[Stored(False, "not an image: unknown content")]]
    assert workspace.names(JOURNAL_FOLDER) == []


def test_a_workspace_that_can_not_be_written_is_an_error_here(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/blobs").write_bytes(b"a file where a folder should be")
    with pytest.raises(WorkspaceError, match=r"can't write .*images/blobs"):
        stored(Workspace(tmp_path), [body(SITE.image_bytes(1))])


def test_a_full_disk_is_told_and_the_line_of_what_is_not_there_counts_for_nothing(tmp_path, monkeypatch):
    def full(target, write, flush=True):
        raise OSError(errno.ENOSPC, "No space left on device")

    workspace, content = Workspace(tmp_path), SITE.image_bytes(1)
    monkeypatch.setattr("store.files.publish_local", full)
    batch = json.dumps([{"n_bytes": len(content), "link": "http://a/1", "tries": 1, "http_status": 200}])
    answers = io.BytesIO()
    serve(workspace, MOST_PIXELS, io.BytesIO(batch.encode() + b"\n" + content), answers)
    assert "no space left to write" in json.loads(answers.getvalue())
    monkeypatch.undo()
    assert fold_journals(workspace) == 1
    assert image_digests(workspace) == {}


def test_an_image_that_crashes_the_decoder_fails_alone(tmp_path):
    """A decoder can't be made to crash at will, so a stand-in for the process dies of certain bytes."""
    program = (
        "import os, sys\n"
        "import store.catalog.download.storing as storing\n"
        "from store.catalog.download import process\n"
        "problem = storing.image_problem\n"
        "def image_problem(file, max_pixels):\n"
        "    file.seek(0)\n"
        "    if b'BOOM' in file.read():\n"
        "        os.kill(os.getpid(), 11)\n"
        "    return problem(file, max_pixels)\n"
        "storing.image_problem = image_problem\n"
        "process.main(*sys.argv[1:])\n"
    )

    class Fragile(StoreProcess):
        def __init__(self, workspace, journal, max_pixels):
            super().__init__(workspace, journal, max_pixels)
            self._command[1:4] = ["-c", program]

    workspace = Workspace(tmp_path)
    bad = SITE.image_bytes(2) + b"BOOM"
    batch = [
        body(SITE.image_bytes(1), "http://a/1"),
        body(bad, "http://a/2"),
        body(SITE.image_bytes(3), "http://a/3"),
    ]
    assert stored(workspace, batch, make=Fragile) == [[Stored(True), Stored(False, CRASHED), Stored(True)]]
    fold_journals(workspace)
    assert set(image_digests(workspace)) == {"http://a/1", "http://a/3"}
    told = {row["link"]: row["reason"] for row in read_links(workspace).to_pylist()}
    assert told == {"http://a/1": None, "http://a/2": CRASHED, "http://a/3": None}


def test_a_process_that_ends_of_itself_is_a_bug_and_no_image_is_to_blame(tmp_path):
    class Broken(StoreProcess):
        def __init__(self, workspace, journal, max_pixels):
            super().__init__(workspace, journal, max_pixels)
            self._command[1:4] = ["-c", "import sys; sys.exit(3)"]

    workspace = Workspace(tmp_path)
    with pytest.raises(RuntimeError, match="ended with status 3"):
        stored(workspace, [body(SITE.image_bytes(1))], make=Broken)
    assert workspace.names(JOURNAL_FOLDER) == []


def test_a_full_disk_for_temporary_files_is_told_and_the_next_batch_is_stored(tmp_path):
    workspace, content = Workspace(tmp_path), SITE.image_bytes(1) + bytes(2 * SPILL_BYTES)
    program = (
        "import sys\n"
        "from store.catalog.download import process\n"
        "def full(file, piece):\n"
        "    raise process.WorkspaceError('no space left')\n"
        "process.keep = full\n"
        "process.main(*sys.argv[1:])\n"
    )

    async def run():
        store = StoreProcess(workspace, Journal(workspace), MOST_PIXELS)
        usual = store._command
        store._command = [usual[0], "-c", program, *usual[4:]]
        with pytest.raises(WorkspaceError, match="no space left"):
            await store.store([body(content), body(SITE.image_bytes(2))])
        store._command = usual
        again = await store.store([body(content)])
        await store.close()
        return again

    assert asyncio.run(run()) == [Stored(True)]


def test_it_ends_with_the_run_that_is_killed(tmp_path):
    """Its input ends in the midst of a body."""
    content = SITE.image_bytes(1)
    batch = json.dumps([{"n_bytes": len(content), "link": "http://a/1", "tries": 1, "http_status": 200}])
    source = io.BytesIO(batch.encode() + b"\n" + content[:100])
    with pytest.raises(SystemExit):
        serve(Workspace(tmp_path), MOST_PIXELS, source, io.BytesIO())
    assert not (tmp_path / "images").exists()


def test_an_interrupt_is_for_the_run_alone(tmp_path):
    async def run():
        store = StoreProcess(Workspace(tmp_path), Journal(Workspace(tmp_path)), MOST_PIXELS)
        before = await store.store([body(SITE.image_bytes(1))])
        os.kill(store._process.pid, signal.SIGINT)
        after = await store.store([body(SITE.image_bytes(2))])
        await store.close()
        return before + after

    assert asyncio.run(run()) == [Stored(True), Stored(True)]


def test_records_are_lines_of_a_journal_before_they_are_folded(tmp_path):
    workspace = Workspace(tmp_path)
    stored(workspace, [body(SITE.image_bytes(1))])
    (name,) = workspace.names(JOURNAL_FOLDER)
    (record,) = read_journal(workspace.read_bytes(f"{JOURNAL_FOLDER}/{name}"))
    assert (record["link"], record["tries"], record["http_status"]) == ("http://a/1", 1, 200)
