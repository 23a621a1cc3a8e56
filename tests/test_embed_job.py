import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from embed.job.limits import FailureLimits
from embed.job.plan import plan_encoder
from embed.job.run import EmbedOptions, run
from embed.job.writer import ShardWriter
from store.errors import CorruptFileError, FailureLimitError, WorkspaceError
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet
from store.vectors.shard import read_failures, read_keys, read_shard, shard_names
from store.workspace import Workspace
from tests.fake_encoders import DIM, fake_loader, fake_request, fake_resolved, fake_vector
from tests.fakes import catalog_table, publish_catalog

ROOT = Path(__file__).parent.parent
NAME = VectorSet("fake", "name")
SILENT = lambda line: None  # noqa: E731
EVERY_BATCH = EmbedOptions(shard_seconds=0.0)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def publish_names(workspace, names, test=None):
    train = [{"sample_id": i, "name": n, "price": 1.0} for i, n in enumerate(names)]
    rest = [{"sample_id": len(names) + i, "name": n} for i, n in enumerate(test or [])]
    publish_catalog(workspace, catalog_table(train), catalog_table(rest, priced=False) if test else None)


def embed(workspace, request=None, options=EVERY_BATCH, say=SILENT, **loader):
    return run(
        workspace, [request or fake_request(workspace, "fake@name")], options, fake_loader(**loader), say
    )[0]


def names_of(n):
    return [f"product {i} of {'x' * (i % 7)}" for i in range(n)]


def assert_complete(workspace, names):
    matrix = load_matrix(workspace, NAME, "train")
    assert matrix.valid.all()
    np.testing.assert_allclose(matrix.X, [fake_vector(name) for name in names], atol=1e-2)


def test_every_row_of_both_splits_gets_its_vector(workspace):
    publish_names(workspace, names_of(9), test=["only in test", *names_of(2)])
    outcome = embed(workspace)
    assert outcome.n_embedded == 10
    assert_complete(workspace, names_of(9))
    np.testing.assert_allclose(
        load_matrix(workspace, NAME, "test").X[0], fake_vector("only in test"), atol=1e-2
    )


def test_a_second_run_loads_no_model(workspace):
    publish_names(workspace, names_of(5))
    embed(workspace)
    loads: list[str] = []
    assert embed(workspace, loads=loads).n_embedded == 0
    assert loads == []


def test_damaged_records_of_an_encoder_whose_vectors_are_there_are_written_anew(workspace):
    publish_names(workspace, names_of(5))
    embed(workspace)
    records = [*Path(workspace.root).glob("vectors/**/*.json")]
    whole = [path.read_bytes() for path in records]
    for path in records:
        path.write_bytes(path.read_bytes()[:99])
    assert embed(workspace).n_embedded == 0
    assert [path.read_bytes() for path in records] == whole
    assert len(records) == 2


def test_rows_in_another_order_and_a_moved_workspace_all_hit(workspace, tmp_path):
    publish_names(workspace, names_of(20))
    embed(workspace, rows=3)
    os.rename(tmp_path / "workspace", tmp_path / "elsewhere")
    moved = Workspace(tmp_path / "elsewhere")
    publish_names(moved, names_of(20)[::-1])
    loads: list[str] = []
    assert embed(moved, loads=loads, rows=7).n_embedded == 0
    assert loads == []
    assert_complete(moved, names_of(20)[::-1])


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "1" * 64},
        {"preprocessing": {"size": [32, 32]}},
        {"pooling": "cls"},
        {"precision": "fp32"},
        {"normalize": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_weights_preprocessing_or_precision_policy_all_miss(workspace, change):
    publish_names(workspace, names_of(6))
    embed(workspace)
    changed = fake_request(workspace, "fake@name", **change)
    assert len(plan_encoder(workspace, changed.resolved, changed.source).missing) == 6


def test_another_composition_misses_only_texts_that_differ(workspace):
    rows = [{"sample_id": i, "name": f"tea {i}", "price": 1.0} for i in range(3)]
    rows.append({"sample_id": 3, "name": "tea 3", "price": 1.0, "value": 12.0, "unit": "ounce"})
    publish_catalog(workspace, catalog_table(rows))
    embed(workspace)
    request = fake_request(workspace, "fake@structured")
    assert len(plan_encoder(workspace, request.resolved, request.source).missing) == 1


def test_compositions_of_one_encoder_come_out_of_one_load(workspace):
    rows = [{"sample_id": i, "name": f"tea {i}", "text": f"tea {i}, loose", "price": 1.0} for i in range(4)]
    publish_catalog(workspace, catalog_table(rows))
    loads: list[str] = []
    assert embed(workspace, fake_request(workspace, "fake@name", "fake@full"), loads=loads).n_embedded == 8
    assert loads == ["fake"]
    assert load_matrix(workspace, VectorSet("fake", "full"), "train").valid.all()


def test_killed_20_times_at_random_moments_a_run_resumes_complete_and_unharmed(workspace):
    names = names_of(1000)
    publish_names(workspace, names)
    command = [sys.executable, "-m", "tests.kill_runs", workspace.root, "20", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    progress = [int(line) for line in done.stdout.split()]
    assert len(progress) == 20
    assert progress == sorted(progress)  # nothing that was published is lost
    assert 0 < progress[-1] < len(names), "the kills must fall into the work"
    outcome = embed(workspace, options=EmbedOptions())
    assert outcome.n_embedded == len(names) - progress[-1]
    assert not outcome.plan.damaged
    keys = read_keys(workspace, outcome.plan.spec.folder)
    assert len(keys) == len(set(keys.to_pylist())) == len(names)
    whole = Workspace(workspace.root + "-uninterrupted")
    publish_names(whole, names)
    embed(whole, options=EmbedOptions())
    np.testing.assert_allclose(
        load_matrix(workspace, NAME, "train").X, load_matrix(whole, NAME, "train").X, atol=1e-3
    )


def test_two_runs_at_once_do_the_work_once_and_the_second_says_that_it_waits(workspace):
    names = names_of(60)
    publish_names(workspace, names)
    at_work = threading.Event()
    said: list[str] = []
    first = threading.Thread(
        target=embed, args=(workspace,), kwargs={"seconds": 0.02, "on_batch": lambda n: at_work.set()}
    )
    first.start()
    assert at_work.wait(10)
    second = embed(workspace, say=said.append)
    first.join()
    assert second.n_embedded == 0
    assert any("waiting" in line for line in said)
    keys = read_keys(workspace, second.plan.spec.folder)
    assert len(keys) == len(set(keys.to_pylist())) == len(names)
    assert_complete(workspace, names)


def test_an_interrupt_publishes_what_is_done(workspace):
    publish_names(workspace, names_of(40))

    def interrupt(n):
        if n == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(workspace, options=EmbedOptions(), on_batch=interrupt)
    spec = fake_resolved().spec
    assert len(read_keys(workspace, spec.folder)) == 10
    assert embed(workspace).n_embedded == 30


def test_a_damaged_shard_is_named_put_aside_and_just_its_rows_are_computed_again(workspace):
    names = names_of(12)
    publish_names(workspace, names)
    folder = embed(workspace).plan.spec.folder
    shard = shard_names(workspace, folder)[2]
    path = Path(workspace.path(f"{folder}/{shard}"))
    content = bytearray(path.read_bytes())
    stored = read_shard(workspace, f"{folder}/{shard}")[1]
    content[content.find(stored.tobytes())] ^= 0xFF  # in the vectors: the keys alone would look whole
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=shard):
        load_matrix(workspace, NAME, "train")
    said: list[str] = []
    assert embed(workspace, say=said.append).n_embedded == 2
    assert any(shard in line and "aside" in line for line in said)
    assert_complete(workspace, names)


def test_a_shard_that_may_not_be_read_is_an_error_and_is_not_embedded_again(workspace, monkeypatch):
    publish_names(workspace, names_of(12))
    folder = embed(workspace).plan.spec.folder
    before = shard_names(workspace, folder)
    opened = os.open

    def refused(path, *args, **kwargs):
        if "part-" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr("os.open", refused)
        with pytest.raises(WorkspaceError, match=r"can't read .*part-.*: Permission denied"):
            embed(workspace)
    assert shard_names(workspace, folder) == before
    assert embed(workspace).n_embedded == 0


def test_a_failure_is_recorded_and_never_tried_again_unless_asked(workspace):
    publish_names(workspace, [*names_of(9), "bad"])
    lenient = EmbedOptions(FailureLimits(max_failures=0.5), shard_seconds=0.0)
    outcome = embed(workspace, options=lenient, fails=lambda content: content == "bad")
    assert (outcome.n_embedded, outcome.n_failed) == (9, 1)
    assert read_failures(workspace, outcome.plan.spec.folder)["reason"].to_pylist() == ["bad is broken"]
    assert load_matrix(workspace, NAME, "train").valid.tolist() == [True] * 9 + [False]
    loads: list[str] = []
    embed(workspace, options=lenient, loads=loads)
    assert loads == []
    retried = embed(workspace, options=EmbedOptions(FailureLimits(max_failures=0.5), retry_failed=True))
    assert retried.n_embedded == 1
    assert len(read_failures(workspace, outcome.plan.spec.folder)) == 0
    assert load_matrix(workspace, NAME, "train").valid.all()


def test_a_failure_that_fails_again_stays_on_record_once(workspace):
    publish_names(workspace, [*names_of(9), "bad"])
    lenient = EmbedOptions(FailureLimits(max_failures=0.5), retry_failed=True)
    for _ in range(2):
        outcome = embed(workspace, options=lenient, fails=lambda content: content == "bad")
    assert len(read_failures(workspace, outcome.plan.spec.folder)) == 1
    assert outcome.plan.n_failed == 1


def test_too_many_failures_stop_the_run_early_and_what_is_done_stays(workspace):
    publish_names(workspace, [*names_of(4), *[f"bad {i}" for i in range(96)]])
    batches: list[int] = []
    with pytest.raises(
        FailureLimitError, match=r"2 of 100 inputs failed.*bad 0 is broken.*--max-failures 0.03"
    ):
        embed(workspace, fails=lambda c: c.startswith("bad"), on_batch=batches.append)
    assert len(batches) < 10
    assert len(read_keys(workspace, fake_resolved().spec.folder)) == 4
    loads: list[str] = []
    with pytest.raises(FailureLimitError, match="--retry-failed"):
        embed(workspace, loads=loads)
    assert loads == []


def test_splits_that_differ_in_coverage_stop_the_run_before_a_model_is_loaded(workspace):
    publish_names(workspace, names_of(10), test=["a", "b", None, None])
    loads: list[str] = []
    with pytest.raises(FailureLimitError, match=r"train 0\.0%, test 50\.0%.*--max-coverage-gap 0\.51"):
        embed(workspace, loads=loads)
    assert loads == []
    assert embed(workspace, options=EmbedOptions(FailureLimits(max_coverage_gap=0.51))).n_embedded == 12


def test_a_catalogue_without_images_skips_image_encoders(workspace):
    publish_names(workspace, names_of(3))
    loads: list[str] = []
    outcome = embed(workspace, fake_request(workspace, "images"), loads=loads)
    assert outcome.plan.has_nothing_to_embed
    assert loads == []


def test_a_vector_that_is_not_finite_is_a_failure(workspace, monkeypatch):
    publish_names(workspace, names_of(6))
    monkeypatch.setattr(
        "tests.fake_encoders.fake_vector",
        lambda content: np.full(DIM, 1e6 if content == names_of(6)[3] else 1.0, np.float32),
    )
    outcome = embed(workspace, options=EmbedOptions(FailureLimits(max_failures=0.5)))
    assert (outcome.n_embedded, outcome.n_failed) == (5, 1)


def test_an_object_store_works_as_a_local_folder_does(tmp_path):
    workspace = Workspace(f"memory://{tmp_path}/bucket")
    publish_names(workspace, names_of(12))
    outcome = embed(workspace)
    shard = shard_names(workspace, outcome.plan.spec.folder)[0]
    workspace.publish_bytes(f"{outcome.plan.spec.folder}/{shard}", b"not a shard")
    assert embed(workspace).n_embedded == 2
    assert embed(workspace).n_embedded == 0
    assert_complete(workspace, names_of(12))


def test_a_full_disk_is_one_clear_error_and_the_next_run_goes_on(workspace, monkeypatch):
    publish_names(workspace, names_of(30))
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        WorkspaceError, match=r"no space left to write .*part-.*free some and run the command again"
    ):
        embed(workspace)
    monkeypatch.undo()
    folder = fake_resolved().spec.folder
    done = len(read_keys(workspace, folder))
    assert 0 < done < 30
    assert embed(workspace).n_embedded == 30 - done
    assert not list(Path(workspace.path(folder)).glob(".writing*"))


def test_a_workspace_that_cannot_be_written_is_one_clear_error_before_a_model_is_loaded(workspace):
    publish_names(workspace, names_of(3))
    Path(workspace.path("vectors")).write_text("in the way, as a read-only mount would be")
    loads: list[str] = []
    with pytest.raises(WorkspaceError, match="can't write"):
        embed(workspace, loads=loads)
    assert loads == []


def test_a_killed_run_leaves_no_lock_behind(workspace):
    publish_names(workspace, names_of(100))
    command = [sys.executable, "-m", "tests.kill_runs", workspace.root, "1", "3"]
    subprocess.run(command, check=True, capture_output=True, timeout=600, cwd=ROOT)
    said: list[str] = []
    embed(workspace, options=EmbedOptions(), say=said.append)
    assert not any("waiting" in line for line in said)


def test_an_error_before_the_first_batch_is_the_one_that_is_told(tmp_path):
    def no_provenance():
        raise AssertionError("nothing was embedded")

    writer = ShardWriter(Workspace(tmp_path), fake_resolved().spec, no_provenance, 1000, 60.0)
    with pytest.raises(KeyboardInterrupt, match="stopped early"), writer:
        raise KeyboardInterrupt("stopped early")
    assert (writer.n_published, writer.records) == (0, set())
    assert shard_names(Workspace(tmp_path), fake_resolved().spec.folder) == []
