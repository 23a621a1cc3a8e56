import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from store.catalog.download.record import IMAGES_LOCK, Journal, LinkRecord
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import merge_links
from store.cli import main
from store.config import Config, EmbedConfig, HeadConfig, save_config
from store.errors import WorkspaceError
from store.schema import LINKS
from store.standing import PREDICTIONS_LOCK
from store.vectors.sets import VectorSet, publish_current
from store.workspace import Workspace
from tests.fakes import catalog_table, fake_spec, publish_catalog, publish_fake_predictions, publish_vectors

CONFIG = Config(
    embed=EmbedConfig(vectors=("fake@name",)), heads=HeadConfig(run=("ridge",), vectors=("fake@name",))
)
N_TRAIN, N_TEST = 60, 20
OLD = 7200.0  # seconds


def shelfprice(workspace, *command):
    result = CliRunner().invoke(main, [*command, "-w", workspace.root])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def workspace(tmp_path):
    """Everything done with one head."""
    workspace, random = Workspace(tmp_path / "w"), np.random.default_rng(0)
    save_config(workspace, CONFIG)
    rows = [
        {"sample_id": i, "name": f"name {i}", "price": float(np.exp(random.normal(2.7, 1)))}
        for i in range(N_TRAIN + N_TEST)
    ]
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    embed(workspace, "fake")
    for command in (("heads", "run"), ("ensemble", "blend"), ("ensemble", "submit")):
        shelfprice(workspace, *command)
    return workspace


def embed(workspace, encoder, **spec):
    X = np.random.default_rng(1).normal(size=(N_TRAIN + N_TEST, 4)).astype(np.float32)
    publish_vectors(workspace, VectorSet(encoder, "name"), {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})
    return fake_spec(encoder).folder


def configure(workspace, **heads):
    save_config(workspace, replace(CONFIG, heads=replace(CONFIG.heads, **heads)))


def leave(workspace, path, age=OLD):
    """A file of that age in seconds."""
    workspace.publish_bytes(path, b"left over")
    then = os.stat(workspace.path(path)).st_mtime - age
    os.utime(workspace.path(path), (then, then))
    return path


def listed(workspace, *options):
    return json.loads(shelfprice(workspace, "prune", "--json", *options))


def paths(workspace):
    return {one["path"]: one["why"] for one in listed(workspace)["leftovers"]}


def files(workspace):
    return sorted(
        os.path.relpath(os.path.join(at, name), workspace.path(""))
        for at, _, names in os.walk(workspace.path(""))
        for name in names
        if not name.endswith("lock")
    )


@pytest.fixture
def littered(workspace):
    """The same after other parameters, other encoders and killed runs; with what must go, path -> why."""
    first = shelfprice(workspace, "heads", "run", "--json")
    configure(workspace, params={"ridge": {"n_alphas": 3}})
    second = json.loads(shelfprice(workspace, "heads", "run", "--json"))["heads"][0]["folder"]
    save_config(workspace, CONFIG)
    assert shelfprice(workspace, "heads", "run", "--json") == first
    trial = json.loads(
        shelfprice(workspace, "ensemble", "blend", "--head", "ridge", "--coverage", "0.8", "--json")
    )
    publish_current(workspace, fake_spec("fake", weights="1" * 64))
    publish_current(workspace, fake_spec("fake"))
    orphan = leave(workspace, blob_path("ab" * 32))
    leave(workspace, f"{trial['folder']}/.writing-blend.json-1234")  # goes with its folder
    standing = workspace.read_json("blend/current.json")["folder"]
    return workspace, {
        second: "a superseded run of ridge",
        trial["folder"]: "a superseded blend",
        embed(workspace, "other"): "the configuration reads no vectors of other",
        fake_spec("fake", weights="1" * 64).folder: "an earlier recipe of fake",
        orphan: "an image that no link names",
        leave(workspace, "images/blobs/ab/.writing-abab-1234"): "half-written by a killed run",
        leave(workspace, f"{standing}/.writing-blend.json-1234"): "half-written by a killed run",
        os.path.dirname(leave(workspace, "predictions/ridge-0123456789abcdef/oof.parquet")): "never finished",
        os.path.dirname(leave(workspace, "blend/0123456789abcdef/oof.parquet")): "never finished",
    }


def test_what_is_left_over_is_listed_with_sizes_and_nothing_is_removed(littered):
    workspace, wanted = littered
    before = files(workspace)
    assert paths(workspace) == wanted
    told = listed(workspace)
    assert not told["removed"]
    assert told["n_bytes"] == sum(one["n_bytes"] for one in told["leftovers"])
    assert all(one["n_bytes"] > 0 for one in told["leftovers"])
    output = shelfprice(workspace, "prune")
    assert all(path in output for path in wanted)
    assert "run 'shelfprice prune --yes'" in output
    assert files(workspace) == before


def test_with_yes_just_that_is_removed_and_what_stands_works_on(littered):
    workspace, wanted = littered
    before, submission = files(workspace), workspace.read_bytes("submission.csv")
    told = listed(workspace, "--yes")
    assert {one["path"] for one in told["leftovers"]} == set(wanted)
    kept = [
        file for file in before if not any(file == path or file.startswith(f"{path}/") for path in wanted)
    ]
    gone = {"vectors/current/other.json"}
    assert files(workspace) == [file for file in kept if file not in gone]
    assert shelfprice(workspace, "prune") == "nothing to remove\n"
    assert "already there" in shelfprice(workspace, "heads", "run")
    assert "up to date" in shelfprice(workspace, "ensemble", "blend")
    shelfprice(workspace, "ensemble", "submit")
    assert workspace.read_bytes("submission.csv") == submission


def test_many_leftovers_of_one_kind_are_told_in_one_line(workspace):
    for i in range(20):
        leave(workspace, blob_path(f"{i:02x}" * 32))
    assert "images/blobs/  20 times: an image that no link names" in shelfprice(workspace, "prune")


def test_what_is_young_may_belong_to_a_run_at_work_and_stays(workspace):
    for path in (
        "images/blobs/ab/.writing-abab-1234",
        blob_path("ab" * 32),
        "predictions/ridge-0123456789abcdef/oof.parquet",
        "blend/0123456789abcdef/oof.parquet",
    ):
        leave(workspace, path, age=60)
    assert shelfprice(workspace, "prune") == "nothing to remove\n"


def test_what_a_run_at_work_holds_stays_and_is_named(littered):
    workspace, wanted = littered
    orphan, superseded = blob_path("ab" * 32), next(iter(wanted))
    with workspace.lock(IMAGES_LOCK), workspace.lock(PREDICTIONS_LOCK):
        result = CliRunner().invoke(main, ["prune", "--yes", "-w", workspace.root])
    assert result.exit_code == 0, result.output
    for path in (orphan, superseded):
        assert f"{path} stays: a run at work holds its lock" in result.stderr
        assert workspace.exists(path)
    assert set(paths(workspace)) == {path for path in wanted if path.startswith(("predictions/", orphan))}


def test_predictions_that_the_standing_blend_was_made_of_stay(workspace):
    blended = json.loads(shelfprice(workspace, "ensemble", "blend", "--json"))["inputs"]["heads"]["ridge"]
    configure(workspace, params={"ridge": {"n_alphas": 3}})
    shelfprice(workspace, "heads", "run")
    assert blended not in paths(workspace)
    shelfprice(workspace, "ensemble", "blend")
    assert paths(workspace)[blended] == "a superseded run of ridge"


def test_predictions_that_the_next_run_would_take_up_stay(workspace):
    configure(workspace, params={"ridge": {"n_alphas": 3}})
    shelfprice(workspace, "heads", "run")
    shelfprice(workspace, "ensemble", "blend")
    save_config(workspace, CONFIG)
    before = len(workspace.names("predictions", "ridge-"))
    shelfprice(workspace, "prune", "--yes")
    assert len(workspace.names("predictions", "ridge-")) == before == 2
    assert "already there" in shelfprice(workspace, "heads", "run")


def test_nothing_is_taken_for_superseded_while_a_record_is_damaged(littered):
    workspace, _ = littered
    workspace.publish_bytes("predictions/ridge.json", b"{")
    assert not any(
        path.startswith("predictions/ridge-") for path, why in paths(workspace).items() if "superseded" in why
    )


def test_heads_that_the_configuration_names_nowhere_go_with_their_record_and_others_stay(workspace):
    probes = {
        head: publish_fake_predictions(workspace, head, np.ones(N_TRAIN), np.ones(N_TEST))
        for head in ("sparse", "ridge:probe", "finetuned:clip")
    }
    configure(workspace, params={"ridge:probe": {"n_alphas": 3}})
    assert paths(workspace) == {probes["sparse"]: "the configuration does not name sparse"}
    shelfprice(workspace, "prune", "--yes")
    assert not workspace.exists("predictions/sparse.json")
    assert workspace.exists(probes["ridge:probe"])
    assert workspace.exists(probes["finetuned:clip"])


def test_vectors_that_a_head_of_the_configuration_always_reads_stay(workspace):
    folder = embed(workspace, "minilm")
    assert folder in paths(workspace)
    configure(workspace, run=("ridge", "xgboost-baseline"))
    assert folder not in paths(workspace)


def test_images_that_a_link_or_the_journal_of_a_run_stands_for_stay(workspace):
    digests = [f"{i}" * 64 for i in range(3)]
    for digest in digests:
        leave(workspace, blob_path(digest))
    row = dict.fromkeys(LINKS.names) | {"link": "file:a.jpg", "sha256": digests[0], "n_bytes": 9}
    merge_links(workspace, pa.Table.from_pylist([row], LINKS))
    Journal(workspace).write([LinkRecord("http://b", digests[1])])
    assert set(paths(workspace)) == {blob_path(digests[2])}


def test_tuning_that_no_run_would_use_goes_with_its_trials(workspace):
    inputs = workspace.read_json(workspace.read_json("predictions/ridge.json")["folder"] + "/head.json")[
        "inputs"
    ]
    bound = {name: inputs[name] for name in ("vectors", "texts", "catalog_digest", "folds_hash")}
    tuning = {"head": "ridge", "bound_to": bound, "folds": {}, "refit": {}, "trials": 1, "inner_smape": {}}
    workspace.publish_json("tuning/ridge.json", tuning)
    workspace.publish_bytes("tuning/trials.journal", b"{}\n")
    assert not any(path.startswith("tuning/") for path in paths(workspace))
    workspace.publish_json("tuning/ridge.json", tuning | {"bound_to": bound | {"folds_hash": "other"}})
    assert {"tuning/ridge.json", "tuning/trials.journal"} <= set(paths(workspace))


def test_an_empty_workspace_has_nothing_to_remove(tmp_path):
    assert shelfprice(Workspace(tmp_path / "none"), "prune", "--yes") == "nothing to remove\n"
    assert not (tmp_path / "none").exists()


def test_no_model_library_is_imported(littered):
    workspace, _ = littered
    code = (
        "import sys; from store.cli import main\n"
        f"main(['prune', '--yes', '-w', {workspace.root!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'xgboost', 'lightgbm', 'faiss', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_lies_behind_a_link_out_of_the_workspace_stays_and_is_named(littered, tmp_path):
    workspace, _ = littered
    elsewhere = tmp_path / "elsewhere"
    os.rename(workspace.path("blend"), elsewhere)
    os.symlink(elsewhere, workspace.path("blend"))
    before = sorted(elsewhere.rglob("*"))
    for options in ((), ("--yes",), ("--yes",)):
        told = CliRunner().invoke(main, ["prune", *options, "-w", workspace.root])
        assert told.exit_code == 0, told.output
        assert "blend/0123456789abcdef stays: it lies behind a link out of the workspace" in told.stderr
        assert "blend/" not in told.stdout
        assert sorted(elsewhere.rglob("*")) == before
    assert told.stdout == "nothing to remove\n"
    with pytest.raises(
        WorkspaceError, match=r"blend/\w+ lies behind a link out of the workspace: delete it there"
    ):
        workspace.remove("blend/0123456789abcdef")
    workspace.remove("blend")  # the link, not what it leads to
    assert sorted(elsewhere.rglob("*")) == before
    assert not os.path.lexists(workspace.path("blend"))
