import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ensemble.submission import SUBMISSION_FILE
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import merge_links
from store.cli import main
from store.config import Config, EmbedConfig, HeadConfig, load_config, save_config
from store.folds.assign import ensure_folds
from store.schema import LINKS, REJECTED
from store.vectors.sets import VectorSet, publish_current
from store.vectors.shard import publish_failures, shard_names
from store.workspace import Workspace
from tests.fakes import (
    catalog_table,
    fake_spec,
    publish_catalog,
    publish_fake_predictions,
    publish_folds,
    publish_vectors,
)

NAME = VectorSet("fake", "name")
CONFIG = Config(
    embed=EmbedConfig(vectors=("fake@name",)), heads=HeadConfig(run=("ridge",), vectors=("fake@name",))
)
N_TRAIN, N_TEST = 60, 20


def rows(n, start=0, **columns):
    random = np.random.default_rng(start)
    return [
        {"sample_id": start + i, "name": f"name {start + i}", "text": f"Item Name: name {start + i}"}
        | {"price": float(np.exp(random.normal(2.7, 1)))}
        | {key: values[i] for key, values in columns.items()}
        for i in range(n)
    ]


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "w")
    save_config(workspace, CONFIG)
    return workspace


@pytest.fixture
def embedded(workspace):
    """A catalogue whose rows all have their vector, and folds."""
    publish_catalog(workspace, catalog_table(rows(N_TRAIN)), catalog_table(rows(N_TEST, 1000), priced=False))
    X = np.random.default_rng(0).normal(size=(N_TRAIN + N_TEST, 4)).astype(np.float32)
    publish_vectors(workspace, NAME, {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})
    ensure_folds(workspace, CONFIG)
    return workspace


def shelfprice(workspace, *command):
    result = CliRunner().invoke(main, [*command, "-w", workspace.root])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def submitted(embedded):
    """Everything done."""
    for command in (("heads", "run"), ("ensemble", "blend"), ("ensemble", "submit")):
        shelfprice(embedded, *command)
    return embedded


def run(workspace, *arguments):
    result = CliRunner().invoke(main, ["status", "-w", workspace.root, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def status(workspace):
    return json.loads(run(workspace, "--json"))


def next_command(workspace):
    step = status(workspace)["next"]
    return step and step["command"].removesuffix(f" -w {workspace.root}")


def stale_heads(workspace):
    """Why each head has to be trained again, by what stands for it."""
    heads = status(workspace)["heads"]
    return {head["head"]: head["stale"] for head in heads if not head["is_superseded"]}


def heads_run(workspace):
    """What 'heads run' does about each head."""
    heads = json.loads(shelfprice(workspace, "heads", "run", "--json").splitlines()[-1])["heads"]
    return {head["head"]: head["status"] for head in heads}


# ---- what is there -------------------------------------------------------------------------------


def test_an_empty_workspace_asks_for_a_catalogue(workspace):
    found = status(workspace)
    assert found["catalog"] is None
    assert found["next"]["command"].startswith("shelfprice catalog ingest --train FILE")
    assert "there is no catalogue" in run(workspace)


def test_the_next_command_can_be_pasted_into_a_shell(tmp_path):
    workspace = Workspace(tmp_path / "it's $HOME; touch x")
    assert shlex.split(status(workspace)["next"]["command"])[-2:] == ["-w", workspace.root]


def test_looking_at_a_workspace_writes_nothing(embedded, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    run(embedded)
    status(Workspace(tmp_path / "never made"))
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_rows_images_and_rejections_are_counted(workspace):
    train = rows(3, image=["file:a.jpg", None, None], image_link=["http://a", "http://b", None])
    publish_catalog(workspace, catalog_table(train))
    reasons = ["price is zero", "duplicate id: first used on line 2", "duplicate id: first used on line 9"]
    table = [
        {"file": "train.csv", "line": i, "sample_id": "1", "reason": reason}
        for i, reason in enumerate(reasons)
    ]
    workspace.publish_table("catalog/rejected.parquet", pa.Table.from_pylist(table, REJECTED))
    catalog = status(workspace)["catalog"]
    assert catalog["splits"] == {"train": {"rows": 3, "with_link": 2, "with_image": 1}}
    assert catalog["rejected"] == {"price is zero": 1, "duplicate id": 2}
    assert "3 rows rejected: duplicate id (2), price is zero (1)" in run(workspace)


def test_images_whose_files_are_gone_are_counted(workspace):
    publish_catalog(workspace, catalog_table(rows(3)))
    links = []
    for content in (b"kept", b"gone", b"a pipe now"):
        digest = hashlib.sha256(content).hexdigest()
        links.append(
            {"link": f"file:{content.decode()}", "sha256": digest, "tries": 1, "n_bytes": len(content)}
        )
        if content == b"kept":
            workspace.publish_bytes(blob_path(digest), content)
    Path(workspace.path(blob_path(digest))).parent.mkdir()
    os.mkfifo(workspace.path(blob_path(digest)))
    empty = dict.fromkeys(LINKS.names)
    merge_links(workspace, pa.Table.from_pylist([empty | one for one in links], schema=LINKS))
    images = status(workspace)["images"]
    assert (images["stored"], images["lost"]) == (3, 2)
    assert "2 of them are gone from images/blobs: run 'shelfprice catalog ingest' with --images" in run(
        workspace
    )


def test_vectors_are_counted_by_split_with_failures_and_what_is_missing(embedded):
    publish_catalog(
        embedded,
        catalog_table([*rows(N_TRAIN), *rows(3, 500, name=["new", "bad", None])]),
        catalog_table(rows(N_TEST, 1000), priced=False),
    )
    from store.vectors.content import key_of

    publish_failures(embedded, fake_spec("fake").folder, [(key_of(b"bad"), "encode", "too odd")])
    (found,) = status(embedded)["vectors"]
    assert found["coverage"]["train"] == {"rows": N_TRAIN + 3, "have": N_TRAIN, "failed": 1, "missing": 1}
    assert found["coverage"]["test"] == {"rows": N_TEST, "have": N_TEST, "failed": 0, "missing": 0}
    assert found["fingerprint"] == fake_spec("fake").fingerprint
    assert found["n_bytes"] > 0
    assert next_command(embedded) == "shelfprice embed run"
    assert "train 60 of 63 (1 failed, 1 missing), test 20 of 20" in run(embedded)


def test_a_long_name_of_vectors_keeps_the_columns_apart(embedded):
    long = "clip-vit-l14-from-some-folder.text@structured"
    save_config(embedded, replace(CONFIG, embed=EmbedConfig(vectors=("fake@name", long))))
    lines = run(embedded).splitlines()
    short_line = next(line for line in lines if "fake@name" in line)
    long_line = next(line for line in lines if long in line)
    assert long_line.index(" train ") == short_line.index(" train ")


def test_images_that_nobody_has_are_nothing_to_embed(embedded):
    save_config(embedded, replace(CONFIG, embed=EmbedConfig(vectors=("fake@name", "efficientnet-lite0"))))
    assert next_command(embedded) == "shelfprice heads run"


def test_a_damaged_shard_is_told_and_verify_comes_next(embedded):
    folder = fake_spec("fake").folder
    embedded.publish_bytes(f"{folder}/{shard_names(embedded, folder)[0]}", b"PAR1 no more")
    assert next_command(embedded) == "shelfprice embed verify"
    assert "is damaged" in run(embedded)


def test_vectors_that_no_run_asks_for_are_shown_as_such(embedded):
    publish_vectors(embedded, VectorSet("other", "name"), {"train": np.ones((N_TRAIN, 4), np.float32)})
    assert "not configured" in run(embedded)
    assert next_command(embedded) == "shelfprice heads run"


# ---- what is stale -------------------------------------------------------------------------------


def test_with_everything_done_there_is_nothing_to_do(submitted):
    found = status(submitted)
    assert found["next"] is None
    assert found["untrained"] == []
    assert found["blend"]["weights"] == {"ridge": 1.0}
    assert 0 < found["blend"]["nested"] < 200
    assert [part["stale"] for part in (*found["heads"], found["blend"], found["submission"])] == [[], [], []]
    assert "nothing: all is up to date" in run(submitted)


def test_a_changed_catalogue_makes_results_stale(submitted):
    publish_catalog(
        submitted, catalog_table(rows(N_TRAIN)[:-1]), catalog_table(rows(N_TEST, 1000), priced=False)
    )
    found = status(submitted)
    assert found["folds"]["stale"] == "the training catalogue has changed"
    assert "the catalogue has changed" in stale_heads(submitted)["ridge"]
    assert "the catalogue has changed" in found["blend"]["stale"]
    assert found["submission"]["stale"] == ["its blend is stale"]
    assert found["next"]["why"] == "ridge is stale"


def test_other_folds_make_results_stale(submitted):
    publish_folds(submitted, np.arange(N_TRAIN) % 3)
    assert stale_heads(submitted)["ridge"] == ["folds have changed"]
    assert next_command(submitted) == "shelfprice heads run"


def test_folds_that_the_configuration_no_longer_asks_for_are_told(submitted):
    save_config(submitted, replace(CONFIG, folds=replace(CONFIG.folds, k=4)))
    assert status(submitted)["folds"]["stale"] == "k 5 became 4"
    assert stale_heads(submitted)["ridge"] == ["folds will be decided again: k 5 became 4"]


def test_folds_brought_along_for_other_rows_have_to_be_decided_by_hand(submitted):
    publish_folds(submitted, np.arange(N_TRAIN) % 3)
    publish_catalog(
        submitted, catalog_table(rows(N_TRAIN)[:-1]), catalog_table(rows(N_TEST, 1000), priced=False)
    )
    assert next_command(submitted) == "shelfprice catalog folds"


def test_other_weights_make_the_heads_on_their_vectors_stale(submitted):
    publish_current(submitted, fake_spec("fake", weights="1" * 64))
    (reason,) = [
        r for r in stale_heads(submitted)["ridge"] if r.startswith("vectors of fake@name have changed")
    ]
    assert fake_spec("fake").fingerprint in reason
    assert next_command(submitted) == "shelfprice embed run"


def test_vectors_that_heads_alone_name_are_named_in_the_next_command(submitted):
    publish_current(submitted, fake_spec("more"))
    sets = ("fake@name", "more@full")
    save_config(submitted, replace(CONFIG, heads=replace(CONFIG.heads, vectors=sets)))
    assert next_command(submitted) == "shelfprice embed run -e more@full"


def test_another_seed_or_parameter_makes_a_head_stale(submitted):
    params = {"n_alphas": 3}
    folder = status(submitted)["heads"][0]["folder"]
    save_config(submitted, replace(CONFIG, seed=43, heads=replace(CONFIG.heads, params={"ridge": params})))
    reasons = stale_heads(submitted)["ridge"]
    assert reasons[0] == "seed 42 became 43"
    assert any(reason.startswith("n_alphas ") and reason.endswith(" became 3") for reason in reasons)
    assert reasons[-1] == "folds will be decided again: seed 42 became 43"
    assert folder in {head["folder"] for head in status(submitted)["heads"]}


def test_a_vector_set_that_was_added_makes_heads_stale_and_the_next_run_trains_them(submitted):
    more = VectorSet("more", "name")
    X = np.random.default_rng(1).normal(size=(N_TRAIN + N_TEST, 3)).astype(np.float32)
    publish_vectors(submitted, more, {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})
    save_config(submitted, replace(CONFIG, heads=replace(CONFIG.heads, vectors=("fake@name", "more@name"))))
    assert stale_heads(submitted) == {"ridge": ["vectors of more@name are new"]}
    assert next_command(submitted) == "shelfprice heads run"
    assert heads_run(submitted) == {"ridge": "trained"}
    assert stale_heads(submitted) == {"ridge": []}
    assert status(submitted)["blend"]["stale"] == ["ridge was trained again"]


def test_a_head_of_another_code_version_is_stale_and_the_next_run_trains_it(submitted, monkeypatch):
    from heads.linear.ridge import Ridge

    version = Ridge.code_version
    monkeypatch.setattr(Ridge, "code_version", version + 1)
    assert stale_heads(submitted) == {"ridge": [f"code_version {version} became {version + 1}"]}
    assert heads_run(submitted) == {"ridge": "trained"}


def test_going_back_to_earlier_parameters_takes_up_what_they_made(submitted):
    first = status(submitted)["heads"][0]["folder"]
    blended = status(submitted)["blend"]["folder"]
    submission = submitted.read_bytes(SUBMISSION_FILE)
    other = replace(CONFIG, heads=replace(CONFIG.heads, params={"ridge": {"n_alphas": 3}}))
    save_config(submitted, other)
    assert heads_run(submitted) == {"ridge": "trained"}
    for command in (("ensemble", "blend"), ("ensemble", "submit")):
        shelfprice(submitted, *command)
    assert status(submitted)["next"] is None
    save_config(submitted, CONFIG)
    ((reason,),) = stale_heads(submitted).values()
    assert reason.startswith("n_alphas 3 became ")
    assert "'heads run' makes them current" in reason
    assert heads_run(submitted) == {"ridge": "present"}
    standing = {head["folder"]: head["is_superseded"] for head in status(submitted)["heads"]}
    assert standing.pop(first) is False
    assert list(standing.values()) == [True]
    assert status(submitted)["blend"]["stale"] == ["ridge was trained again"]
    shelfprice(submitted, "ensemble", "blend")
    assert status(submitted)["blend"]["folder"] == blended
    shelfprice(submitted, "ensemble", "submit")
    assert submitted.read_bytes(SUBMISSION_FILE) == submission


def test_a_head_that_was_never_trained_comes_next(submitted):
    save_config(submitted, replace(CONFIG, heads=replace(CONFIG.heads, run=("ridge", "sparse"))))
    assert status(submitted)["next"]["why"] == "sparse is not trained"
    assert "sparse             not trained" in run(submitted)


def test_a_head_trained_since_the_blend_makes_it_stale(submitted):
    save_config(submitted, replace(CONFIG, heads=replace(CONFIG.heads, run=("ridge", "sparse"))))
    publish_fake_predictions(submitted, "sparse", np.ones(N_TRAIN), np.ones(N_TEST))
    assert status(submitted)["blend"]["stale"] == ["sparse was trained since"]


def test_a_head_that_the_configuration_does_not_name_leaves_the_blend_as_it_is(submitted):
    shelfprice(submitted, "heads", "run", "--head", "sparse")
    found = status(submitted)
    assert found["blend"]["stale"] == []
    assert found["next"] is None
    assert "up to date, not in heads.run" in run(submitted)


def test_of_two_runs_of_a_head_the_one_that_does_not_stand_is_shown_as_such(submitted):
    folder = publish_fake_predictions(submitted, "ridge", np.ones(N_TRAIN), np.ones(N_TEST), seed=42)
    heads = status(submitted)["heads"]
    assert [(head["folder"] == folder, head["is_superseded"]) for head in heads] == [
        (True, False),
        (False, True),
    ]
    assert "older run" in run(submitted)


def test_an_older_run_does_not_stand_in_for_predictions_that_were_removed_by_hand(submitted):
    folder = publish_fake_predictions(submitted, "ridge", np.ones(N_TRAIN), np.ones(N_TEST), seed=42)
    submitted.remove(folder)
    assert [head["is_superseded"] for head in status(submitted)["heads"]] == [True]
    assert next_command(submitted) == "shelfprice heads run"
    assert heads_run(submitted) == {"ridge": "present"}
    assert next_command(submitted) is None


def test_a_damaged_record_of_what_stands_is_written_anew_by_the_next_run(submitted):
    submitted.publish_bytes("predictions/ridge.json", b"{")
    assert stale_heads(submitted) == {"ridge": []}
    output = shelfprice(submitted, "heads", "run")
    assert "predictions/ridge.json was damaged and is written anew" in output
    assert submitted.read_json("predictions/ridge.json")["head"] == "ridge"


def test_two_runs_of_which_nothing_says_which_stands_have_to_be_settled_by_a_run(submitted):
    publish_fake_predictions(submitted, "ridge", np.ones(N_TRAIN), np.ones(N_TEST), seed=42)
    submitted.remove("predictions/ridge.json")  # as version 0.1.0 left it
    assert all(
        "nothing says which of them is current" in reason for reason in stale_heads(submitted)["ridge"]
    )
    assert next_command(submitted) == "shelfprice heads run"
    assert heads_run(submitted) == {"ridge": "present"}
    assert stale_heads(submitted) == {"ridge": []}
    assert next_command(submitted) is None


def test_disk_use_is_told_by_kind(submitted):
    disk = status(submitted)["disk"]
    assert set(disk) == {"catalogue", "vectors", "predictions", "blends"}
    files = [path for path in Path(submitted.path("predictions")).rglob("*") if path.is_file()]
    assert disk["predictions"] == sum(path.stat().st_size for path in files)
    assert re.search(r"^disk        catalogue \d", run(submitted), re.MULTILINE)  # largest first


def test_a_submission_of_another_blend_is_stale(submitted):
    submitted.publish_bytes(SUBMISSION_FILE, b"sample_id,price\n1000,3.0\n")
    own = f"{status(submitted)['blend']['folder']}/{SUBMISSION_FILE}"
    assert status(submitted)["submission"]["stale"] == [f"it is not what {own} holds"]
    assert next_command(submitted) == "shelfprice ensemble submit"
    submitted.remove(own)
    assert status(submitted)["submission"]["stale"] == ["it is of another blend"]
    assert next_command(submitted) == "shelfprice ensemble submit"


def clean(workspace, *policies):
    command = ["catalog", "clean", "-w", workspace.root, *(f"--policy={one}" for one in policies)]
    assert CliRunner().invoke(main, command).exit_code == 0


def test_decisions_about_doubtful_rows_come_before_training_goes_by_them(submitted):
    assert status(submitted)["cleaning"] == {"policies": {}, "digest": None, "stale": None}
    save_config(submitted, replace(CONFIG, clean=replace(CONFIG.clean, outlier="drop")))
    found = status(submitted)
    assert found["next"]["command"].startswith("shelfprice catalog clean")
    assert found["next"]["why"] == "outlier=drop of shelfprice.toml was never applied"
    clean(submitted)
    assert "outlier=drop; up to date" in run(submitted)
    assert next_command(submitted) is None


def test_decisions_of_another_catalogue_or_policy_are_taken_again(submitted):
    double = [
        row | {"text": "Item Name: twice", "name": "twice", "price": 2.0 + i}
        for i, row in enumerate(rows(2, 500))
    ]
    publish_catalog(
        submitted, catalog_table([*rows(N_TRAIN), *double]), catalog_table(rows(N_TEST, 1000), priced=False)
    )
    clean(submitted, "price=median")
    assert status(submitted)["cleaning"]["stale"] is None
    save_config(submitted, replace(load_config(submitted), clean=replace(CONFIG.clean, price="drop")))
    assert status(submitted)["cleaning"]["stale"] == "price=median became price=drop in shelfprice.toml"
    clean(submitted)
    publish_catalog(submitted, catalog_table([*rows(N_TRAIN - 1), *double]))
    assert status(submitted)["cleaning"]["stale"] == "the catalogue has changed"
    assert "cleaning    price=drop; stale: the catalogue has changed" in run(submitted)


def test_findings_that_decide_nothing_need_not_be_up_to_date(submitted):
    clean(submitted)
    publish_catalog(
        submitted, catalog_table(rows(N_TRAIN - 1)), catalog_table(rows(N_TEST, 1000), priced=False)
    )
    assert status(submitted)["cleaning"]["stale"] is None


# ---- the command as a whole ----------------------------------------------------------------------


def test_following_the_next_command_leads_to_a_submission(embedded):
    taken = []
    while (step := status(embedded)["next"]) is not None:
        taken.append(" ".join(step["command"].split()[1:3]))
        assert len(taken) < 6, taken
        result = CliRunner().invoke(main, step["command"].split()[1:])
        assert result.exit_code == 0, result.output
    assert taken == ["heads run", "ensemble blend", "ensemble submit"]
    assert embedded.read_bytes(SUBMISSION_FILE).startswith(b"sample_id,price\n1000,")


def test_no_model_library_is_imported(submitted):
    code = (
        "import sys; from store.cli import main\n"
        f"main(['status', '-w', {submitted.root!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'xgboost', 'lightgbm', 'faiss', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all is up to date" in done.stdout


def test_what_failed_is_listed_by_row_and_file(embedded):
    from store.vectors.content import key_of

    assert run(embedded, "--failures") == "no failures\n"
    gone = "https://a.example/gone.jpg"
    publish_catalog(
        embedded,
        catalog_table(
            [
                *rows(N_TRAIN),
                *rows(1, 500, name=["bad"]),
                *rows(2, 600, image=["file:p0.jpg", gone], name=[None, None]),
            ]
        ),
        catalog_table(rows(1, 600, image=["file:p0.jpg"]), priced=False),
    )
    embedded.publish_table(
        "images/links.parquet",
        pa.Table.from_pylist(
            [
                {"link": "file:p0.jpg", "sha256": "ab" * 32},
                {"link": gone, "reason": "HTTP 404\nsoup: none"},
                {"link": "https://a.example/of-no-row.jpg", "reason": "HTTP 404"},
            ],
            schema=LINKS,
        ),
    )
    photos = fake_spec("photos", modality="image")
    publish_current(embedded, photos)
    publish_failures(embedded, photos.folder, [(b"\xab" * 16, "decode", "cut off \x1b[2J")])
    publish_failures(embedded, fake_spec("fake").folder, [(key_of(b"bad"), "encode", "too odd")])
    assert run(embedded, "--failures").splitlines() == [
        f"image: train 601 ({gone}): fetch: HTTP 404\\nsoup: none",
        "fake@name: train 500: encode: too odd",
        "photos: train 600 (p0.jpg): decode: cut off \\x1b[2J",
        "photos: test 600 (p0.jpg): decode: cut off \\x1b[2J",
        "4 failures",
    ]
    found = json.loads(run(embedded, "--failures", "--json"))["failures"]
    assert [row["sample_id"] for row in found] == [601, 500, 600, 600]
