"""Workspaces on an object store: a real S3 API on loopback, and a proxy that refuses, throttles or drops requests."""

import hashlib
import json
import os
import threading

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

from embed.encoders.base import image_preprocessing
from embed.inputs.decoded import read_image
from embed.inputs.images import decode_image
from embed.job.catalog import blob_reader
from embed.job.run import EmbedOptions, run
from store.catalog.images.blobs import blob_path
from store.cli import main
from store.config import Config, EmbedConfig, FoldConfig, HeadConfig, save_config
from store.errors import ShelfpriceError, WorkspaceError
from store.lease import held
from store.standing import PREDICTIONS_LOCK, read_standing
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet
from store.vectors.shard import read_keys
from store.workspace import Workspace
from tests.fake_encoders import fake_loader, fake_request, fake_resolved, fake_vector
from tests.fake_images import encoded, photo
from tests.fake_models import WORDS, save_tiny_sentence_model
from tests.fakes import catalog_table, publish_catalog, publish_fake_predictions, publish_folds
from tests.s3_server import KEY, SECRET, Proxy, moto

SILENT = lambda line: None  # noqa: E731
N = 60


@pytest.fixture(scope="module")
def upstream():
    with moto() as address:
        yield address


@pytest.fixture
def proxy(upstream, monkeypatch):
    """The server as the workspace reaches it, credentials in the environment."""
    import s3fs

    proxy = Proxy(upstream)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def workspace(proxy, request):
    """An empty workspace in a bucket of its own."""
    bucket = f"bucket-{abs(hash(request.node.name)) % 10**8}"
    fsspec.filesystem("s3").mkdir(bucket)
    workspace = Workspace(f"s3://{bucket}/run")
    yield workspace
    assert_no_secret(workspace)


def assert_no_secret(workspace):
    proxy_free = fsspec.filesystem("s3", skip_instance_cache=True)
    for path in proxy_free.find(workspace.path("")):
        content = proxy_free.cat_file(path)
        assert SECRET.encode() not in content, path
        assert KEY.encode() not in content, path


def publish_names(workspace, n=N):
    rows = [{"sample_id": i, "name": f"product {i}", "price": 1.0} for i in range(n)]
    publish_catalog(workspace, catalog_table(rows))


def embed(workspace, **loader):
    options = EmbedOptions(shard_seconds=0.0)
    return run(
        workspace, [fake_request(workspace, "fake@name")], options, fake_loader(rows=4, **loader), SILENT
    )[0]


def keys_of(workspace):
    return read_keys(workspace, fake_resolved().spec.folder).to_pylist()


def shelfprice(*arguments, code=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert SECRET not in result.output
    assert KEY not in result.output
    return result


def test_embed_heads_and_status_work_on_an_object_store(workspace, tmp_path):
    model = save_tiny_sentence_model(tmp_path / "model", max_tokens=8)
    vectors = f"{model}@name"
    random = np.random.default_rng(0)
    rows = [
        {"sample_id": i, "name": " ".join(random.choice(WORDS, 4)), "price": float(np.exp(random.normal()))}
        for i in range(80)
    ]
    publish_catalog(
        workspace, catalog_table(rows), catalog_table([{"sample_id": 900, "name": "x"}], priced=False)
    )
    save_config(
        workspace,
        Config(
            embed=EmbedConfig(vectors=(vectors,)),
            heads=HeadConfig(run=("ridge",), vectors=(vectors,)),
            folds=FoldConfig(k=3),
        ),
    )
    at = ("-w", workspace.root)
    assert "0 there before" in shelfprice("embed", "run", "--offline", "--devices", "cpu", *at).output
    assert "0 embedded" in shelfprice("embed", "run", "--offline", *at).output
    assert "SMAPE" in shelfprice("heads", "run", *at).output
    assert "already there" in shelfprice("heads", "run", *at).output
    told = json.loads(shelfprice("status", "--json", *at).stdout)
    assert told["vectors"][0]["coverage"]["train"] == {"rows": 80, "have": 80, "failed": 0, "missing": 0}
    assert [head["head"] for head in told["heads"]] == ["ridge"]
    assert workspace.names("predictions")


def test_what_stands_is_recorded_and_the_rest_is_pruned_on_an_object_store(workspace):
    publish_names(workspace)
    publish_folds(workspace, np.arange(N) % 3)
    save_config(
        workspace, Config(embed=EmbedConfig(vectors=()), heads=HeadConfig(run=("ridge",), vectors=()))
    )
    folders = [publish_fake_predictions(workspace, "ridge", np.zeros(N), seed=seed) for seed in (1, 42)]
    at = ("-w", workspace.root, "--json")
    assert [one["path"] for one in json.loads(shelfprice("prune", *at).stdout)["leftovers"]] == folders[:1]
    assert workspace.exists(folders[0])
    with held(workspace, PREDICTIONS_LOCK):
        told = json.loads(shelfprice("prune", "--yes", *at).stdout)
    assert [one["path"] for one in told["busy"]] == folders[:1]
    shelfprice("prune", "--yes", *at)
    assert [workspace.exists(folder) for folder in folders] == [False, True]
    assert read_standing(workspace).folders == {"ridge": folders[1]}


def test_a_missing_image_is_a_failure_and_a_store_that_does_not_answer_is_an_error(workspace, proxy):
    preprocessing = image_preprocessing(
        size=(8, 8), resize="squash", resize_to=(8, 8), interpolation="bilinear", mean=[0] * 3, std=[1] * 3
    )
    content = encoded(photo(9, 9))
    digest = hashlib.sha256(content).hexdigest()
    workspace.publish_bytes(blob_path(digest), content)
    images, decode = blob_reader(workspace), lambda content: decode_image(content, preprocessing)
    assert read_image(images, digest, decode).shape == (8, 8, 3)
    assert read_image(images, "cd" * 32, decode).stage == "read"
    proxy.verdict = lambda n, method, path: "drop"
    with pytest.raises(WorkspaceError, match=r"the connection to s3://.* fails"):
        read_image(images, digest, decode)
    proxy.verdict = lambda n, method, path: None


def test_a_run_with_nothing_to_do_publishes_nothing(workspace, proxy):
    publish_names(workspace)
    embed(workspace)
    proxy.requests.clear()
    assert embed(workspace).n_embedded == 0
    assert not [path for method, path in proxy.requests if method == "PUT"]


@pytest.mark.parametrize("kind", ["drop", "SlowDown"])
def test_a_store_that_drops_or_throttles_now_and_then_is_asked_again(workspace, proxy, kind):
    publish_names(workspace)
    refused = set()

    def now_and_then(n, method, path):
        """Every seventh request, but never the same one twice in a row, however threads interleave."""
        if n % 7 or (method, path) in refused:
            refused.discard((method, path))
            return None
        refused.add((method, path))
        return kind

    proxy.verdict = now_and_then
    assert embed(workspace).n_embedded == N
    proxy.verdict = lambda n, method, path: None
    assert len(keys_of(workspace)) == len(set(keys_of(workspace))) == N
    X = load_matrix(workspace, VectorSet("fake", "name"), "train").X
    np.testing.assert_allclose(X[3], fake_vector("product 3"), atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("drop", r"the connection to s3://bucket-\d+/run fails \(\w+\): .*run the command again"),
        ("SlowDown", r"asks to slow down \(SlowDown\), again and again: .*run the command again"),
        (
            "ExpiredToken",
            r"credentials for s3://bucket-\d+/run have expired: renew them; .*run the command again",
        ),
        ("AccessDenied", r"refuses access \(AccessDenied\): check the rights"),
        ("InvalidAccessKeyId", r"does not know these credentials \(InvalidAccessKeyId\)"),
    ],
)
def test_what_the_store_says_no_to_in_mid_run_is_one_line_and_the_next_run_goes_on(
    workspace, proxy, kind, told
):
    publish_names(workspace)
    shards = []

    def after_three_shards(n, method, path):
        if method == "PUT" and "part-" in path:
            shards.append(path)
        return kind if len(shards) > 3 else None

    proxy.verdict = after_three_shards
    with pytest.raises(WorkspaceError, match=told) as caught:
        embed(workspace)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)
    proxy.verdict = lambda n, method, path: None
    workspace.remove(f"{fake_resolved().spec.folder}/lock")  # else waited for, as the next test shows
    done = len(keys_of(workspace))
    assert done == 12
    outcome = embed(workspace)
    assert outcome.n_embedded == N - done
    assert not outcome.plan.damaged
    assert len(keys_of(workspace)) == len(set(keys_of(workspace))) == N


@pytest.mark.parametrize("kind", ["drop", "ExpiredToken"])
def test_a_plan_that_the_store_fails_takes_no_shard_for_damaged(workspace, proxy, kind):
    publish_names(workspace)
    embed(workspace)
    before = keys_of(workspace)
    proxy.verdict = lambda n, method, path: kind if "part-" in path else None
    with pytest.raises(WorkspaceError):
        embed(workspace)
    proxy.verdict = lambda n, method, path: None
    assert keys_of(workspace) == before


def test_missing_credentials_are_one_line(workspace, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        output = shelfprice("status", "-w", workspace.root, code=1).output
        s3fs.S3FileSystem.clear_instance_cache()
    assert output.count("\n") == 1
    assert "no credentials for s3://" in output
    assert "AWS_ACCESS_KEY_ID" in output


def test_an_address_with_credentials_is_refused_and_not_repeated():
    with pytest.raises(WorkspaceError, match="holds credentials") as caught:
        Workspace(f"s3://{KEY}:{SECRET}@bucket/run")
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_bucket_that_is_not_there_is_named(proxy):
    with pytest.raises(ShelfpriceError, match=r"no catalogue in s3://nowhere/run|no bucket"):
        embed(Workspace("s3://nowhere/run"))


def test_two_clusters_on_one_workspace_do_the_work_once_and_the_second_says_that_it_waits(workspace):
    publish_names(workspace)
    at_work, waiting, said = threading.Event(), threading.Event(), []

    def work_until_the_second_waits(n):
        at_work.set()
        waiting.wait(60)

    def say(line):
        said.append(line)
        if "waiting" in line:
            waiting.set()

    first = threading.Thread(
        target=embed, args=(workspace,), kwargs={"on_batch": work_until_the_second_waits}
    )
    first.start()
    assert at_work.wait(60)
    second = run(
        Workspace(workspace.root), [fake_request(workspace, "fake@name")], EmbedOptions(), fake_loader(), say
    )[0]
    waiting.set()
    first.join()
    assert second.n_embedded == 0
    assert any("waiting" in line for line in said)
    assert len(keys_of(workspace)) == len(set(keys_of(workspace))) == N


def test_a_lease_whose_holder_died_lapses(tmp_path):
    workspace = Workspace(f"memory://{tmp_path}/leases")
    workspace.publish_bytes("lock", b'{"owner": "dead", "host": "gone", "beat": 3}')
    waited = []
    with held(workspace, "lock", lambda: waited.append(True), lapse_seconds=0.3):
        assert json.loads(workspace.read_bytes("lock"))["owner"] != "dead"
    assert waited == [True]
    assert not workspace.exists("lock")


def test_a_lease_that_is_renewed_is_never_taken_over(tmp_path):
    workspace = Workspace(f"memory://{tmp_path}/renewed")
    order, inside = [], threading.Event()

    def first():
        with held(workspace, "lock", lapse_seconds=0.3):
            inside.set()
            finish.wait(1.5)  # several times what a lease without renewal would last
            order.append("first")

    finish = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with held(workspace, "lock", lapse_seconds=0.3):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
