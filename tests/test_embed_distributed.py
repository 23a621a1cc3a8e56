"""`embed run --engine ray` on a local Ray of 2 CPUs, shared by the tests: starting one takes seconds."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from embed.distributed.cluster import Cluster
from embed.distributed.engine import RayEncoder
from embed.distributed.layout import WantedActors
from embed.distributed.stages import Work, opened
from embed.encoders.base import Sources
from embed.forward.devices import DeviceSettings
from embed.inputs.batch import RowWindow
from embed.job.limits import FailureLimits
from embed.job.request import find_requests
from embed.job.run import EmbedOptions, run
from store.cli import main
from store.errors import EncoderError, EngineError, WorkspaceError
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet
from store.vectors.shard import read_failures, read_keys
from store.workspace import Workspace
from tests.fake_images import broken_images, encoded, photo, publish_images
from tests.fake_models import save_tiny_sentence_model, save_tiny_timm
from tests.test_embed_cli import publish_texts

ray = pytest.importorskip("ray", reason="Ray is not made for this version of Python")
N_IMAGES = 400


@pytest.fixture(scope="module")
def cluster():
    """A Ray that runs already: the engine connects to it and leaves it running."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_sentence_model(folder / "text", max_tokens=8)
    save_tiny_timm(folder / "image")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A workspace of many distinct images, one of them broken; copied, never embedded into."""
    workspace = Workspace(tmp_path_factory.mktemp("images") / "workspace")
    contents = {f"{i}.png": encoded(photo(40, 30, seed=i)) for i in range(N_IMAGES)}
    publish_images(workspace, contents | {"broken": broken_images()["truncated JPEG"]})
    return workspace


def copy_of(workspace, tmp_path, name="workspace"):
    subprocess.run(["cp", "-r", workspace.root, tmp_path / name], check=True)
    return Workspace(tmp_path / name)


def embed(workspace, encoder, *arguments, code=0):
    command = [
        "embed",
        "run",
        "--offline",
        "--devices",
        "cpu",
        "-e",
        str(encoder),
        *arguments,
        "-w",
        workspace.root,
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == code, result.output
    return result


def on_ray(workspace, encoder, *arguments, code=0):
    return embed(workspace, encoder, "--engine", "ray", *arguments, code=code)


def embed_images(workspace, model, make=RayEncoder, **options):
    cluster = Cluster(WantedActors(actors=2), None, 120.0)

    def load(resolved):
        return [make(workspace, one, cluster, DeviceSettings(("cpu",))) for one in resolved]

    requests = find_requests(workspace, [str(model)], Sources(offline=True))
    settings = EmbedOptions(FailureLimits(max_failures=0.5), shard_seconds=0.0, **options)
    return run(workspace, requests, settings, load, lambda line: None)[0]


def assert_all_embedded_once(workspace, model):
    (request,) = find_requests(workspace, [str(model)], Sources(offline=True))
    keys = read_keys(workspace, request.resolved.spec.folder).to_pylist()
    assert len(keys) == len(set(keys)) == N_IMAGES
    assert len(read_failures(workspace, request.resolved.spec.folder)) == 1


def encoder_processes():
    """Workers of Ray that hold the model."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "Encoder" in " ".join(process.cmdline()) and process.cmdline()[0].startswith("ray::"):
                found.append(process)
    return found


def an_encoder_process():
    """One of them, waited for: whoever was killed takes a while to come back."""
    deadline = time.monotonic() + 120
    while not (found := encoder_processes()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def test_images_come_out_as_from_the_local_engine(cluster, models, images, tmp_path):
    here, there = copy_of(images, tmp_path, "here"), copy_of(images, tmp_path, "there")
    asked = (models / "image", "--json", "--max-failures", "0.1", "--precision", "fp32")
    local = json.loads(embed(here, *asked).stdout)["encoders"][0]
    remote = json.loads(on_ray(there, *asked, "--actors", "2").stdout)["encoders"][0]
    for part in (
        "embedded",
        "newly_failed",
        "folder",
        "wanted",
        "hits",
        "failed",
        "missing",
        "sets",
        "truncated",
    ):
        assert remote[part] == local[part], part
    images_of = VectorSet(str(models / "image"))
    X, Y = load_matrix(here, images_of, "train"), load_matrix(there, images_of, "train")
    np.testing.assert_allclose(Y.X, X.X, atol=2e-3)
    np.testing.assert_array_equal(Y.valid, X.valid)
    reasons = [read_failures(w, local["folder"])["reason"].to_pylist() for w in (here, there)]
    assert reasons[0] == reasons[1]
    assert "0 embedded" in embed(there, *asked[0:1], "--max-failures", "0.1", "--precision", "fp32").output


def test_texts_of_two_compositions_come_out_as_from_the_local_engine(cluster, models, tmp_path):
    text = models / "text"
    workspaces = [Workspace(tmp_path / name) for name in ("here", "there")]
    outcomes = []
    for workspace, engine in zip(workspaces, (embed, on_ray), strict=True):
        publish_texts(workspace, 500)
        asked = (f"{text}@name", "-e", f"{text}@structured", "--json", "--precision", "fp32")
        outcomes.append(json.loads(engine(workspace, *asked).stdout)["encoders"][0])
    assert outcomes[1]["embedded"] == outcomes[0]["embedded"] == 500
    assert outcomes[1]["truncated"] == outcomes[0]["truncated"]
    X, Y = (load_matrix(w, VectorSet(str(text), "name"), "train").X for w in workspaces)
    np.testing.assert_allclose(Y, X, atol=2e-3)


def test_workers_killed_three_times_lose_nothing_and_double_nothing(cluster, models, images, tmp_path):
    workspace = copy_of(images, tmp_path)
    killed = []

    class Killing(RayEncoder):
        @contextlib.contextmanager
        def results(self):
            with super().results() as results:
                yield self.kill_on_the_way(results)

        def kill_on_the_way(self, results):
            for n, result in enumerate(results):
                if n in (0, 2, 4):
                    victim = an_encoder_process()
                    victim.send_signal(signal.SIGKILL)
                    killed.append(victim.pid)
                yield result

    outcome = embed_images(workspace, models / "image", Killing)
    assert len(set(killed)) == 3
    assert outcome.n_embedded == N_IMAGES
    assert_all_embedded_once(workspace, models / "image")


def test_the_driver_killed_the_local_engine_finishes(models, images, tmp_path):
    workspace = copy_of(images, tmp_path)
    asked = ["-e", str(models / "image"), "--max-failures", "0.1", "-w", workspace.root]
    command = [
        sys.executable,
        "-m",
        "store.cli",
        "embed",
        "run",
        "--offline",
        "--devices",
        "cpu",
        "--engine",
        "ray",
    ]
    child = subprocess.Popen(
        [*command, "--actors", "1", "--publish-every", "0", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    (request,) = find_requests(workspace, [str(models / "image")], Sources(offline=True))
    deadline = time.monotonic() + 300
    while not len(read_keys(workspace, request.resolved.spec.folder)):
        assert child.poll() is None, child.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    others = psutil.Process(child.pid).children(recursive=True)
    others = [one for one in others if "Agent" not in one.name()]  # those look for their parent once a minute
    child.kill()
    child.wait()
    done = len(read_keys(workspace, request.resolved.spec.folder))
    assert f"{N_IMAGES - done} embedded" in embed(workspace, models / "image", "--max-failures", "0.1").output
    assert_all_embedded_once(workspace, models / "image")
    _, alive = psutil.wait_procs(others, timeout=120)
    assert not alive, "Ray's processes outlive the driver"


def test_a_cluster_that_others_fill_is_an_error_that_says_what_is_free(cluster, models, tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    publish_texts(workspace, 4)

    @ray.remote(num_cpus=1.75)
    class Hog:
        def ready(self):
            return True

    hog = Hog.remote()
    ray.get(hog.ready.remote(), timeout=60)
    try:
        output = on_ray(workspace, models / "text", "--give-up-after", "2", code=1).output
    finally:
        ray.kill(hog)
    assert "no actor was ready in 2 s. It wants 1 CPUs and 0 GPUs; free are 0.25 and 0" in output


def test_what_the_cluster_cannot_hold_is_refused_at_once(cluster, models, tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    publish_texts(workspace, 4)
    assert (
        "--num-gpus 1 can't be scheduled"
        in on_ray(workspace, models / "text", "--num-gpus", "1", code=1).output
    )
    assert (
        "--actors 500 can't be scheduled"
        in on_ray(workspace, models / "text", "--actors", "500", code=1).output
    )


def test_weights_that_an_actor_cannot_load_are_one_clear_line(cluster, tmp_path):
    model = save_tiny_sentence_model(tmp_path / "model", max_tokens=8)
    workspace = Workspace(tmp_path / "workspace")
    publish_texts(workspace, 4)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    output = on_ray(workspace, model, code=1).output
    assert output.count("\n") == 1
    assert f"{model} can't be loaded" in output
    with pytest.raises(EncoderError, match="can't be loaded"):
        embed_images(workspace, model)


def test_no_progress_is_an_error_and_not_a_wait_for_ever(cluster, models, images, tmp_path):
    workspace = copy_of(images, tmp_path)
    stopped = []

    class Stopping(RayEncoder):
        still_seconds = 10.0  # not 120 for actors that load a model, however busy the machine

        @contextlib.contextmanager
        def results(self):
            with super().results() as results:
                yield self.stop_after_one(results)

        def stop_after_one(self, results):
            for result in results:
                for process in encoder_processes() if not stopped else ():
                    process.suspend()
                    stopped.append(process)
                yield result

    try:
        with pytest.raises(EngineError, match=r"made no progress .*run the command again to go on"):
            embed_images(workspace, models / "image", Stopping)
    finally:
        for process in stopped:
            process.kill()
    embed(workspace, models / "image", "--max-failures", "0.1")
    assert_all_embedded_once(workspace, models / "image")


def test_a_machine_that_does_not_see_the_workspace_says_so_instead_of_failing_every_image(tmp_path):
    work = Work(str(tmp_path / "elsewhere"), None, 1, 1, DeviceSettings(), 1, RowWindow("x", [], []))
    with pytest.raises(WorkspaceError, match=r"machine .* sees no catalogue at .*elsewhere"):
        opened(work)


def test_without_ray_the_error_names_the_extra(models, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "workspace")
    publish_texts(workspace, 4)
    monkeypatch.setattr("embed.distributed.cluster.find_spec", lambda name: None)
    assert "pip install 'shelfprice[ray]'" in on_ray(workspace, models / "text", code=1).output


def test_with_nothing_to_do_ray_is_not_started(models, tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    publish_texts(workspace, 4)
    embed(workspace, models / "text")
    code = "import sys; from store.cli import main\ntry: main(sys.argv[1:])\nfinally: assert 'ray' not in sys.modules"
    arguments = [
        "embed",
        "run",
        "--offline",
        "--engine",
        "ray",
        "-e",
        str(models / "text"),
        "-w",
        workspace.root,
    ]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
