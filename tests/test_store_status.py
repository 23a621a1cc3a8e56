import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from store.cli import main
from store.config import Config, EmbedConfig, HeadConfig, load_config, save_config
from store.folds.assign import ensure_folds
from store.schema import LINKS, REJECTED
from store.staleness import CURRENT_BLEND, SUBMISSION_FILE
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


@pytest.fixture
def submitted(embedded):
    """Everything done, by hand-made results."""
    fingerprint = fake_spec("fake").fingerprint
    folder = publish_fake_predictions(
        embedded,
        "ridge",
        np.zeros(N_TRAIN),
        np.zeros(N_TEST),
        vectors=[["fake@name", fingerprint, "0"]],
        seed=42,
    )
    record = embedded.read_json(f"{folder}/head.json")["inputs"]
    inputs = {key: record[key] for key in ("folds_hash", "catalog_digest")} | {
        "heads": {"ridge": folder},
        "seed": 42,
    }
    blend = {"inputs": inputs, "weights": {"ridge": 1.0}, "method": "average", "scores": {"nested": 21.5}}
    embedded.publish_json("blend/abc/blend.json", blend)
    embedded.publish_json(CURRENT_BLEND, {"folder": "blend/abc"})
    for place in ("blend/abc/", ""):
        embedded.publish_bytes(place + SUBMISSION_FILE, b"sample_id,price\n1000,2.0\n")
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
    return {head["head"]: head["stale"] for head in status(workspace)["heads"]}


# ---- what is there -------------------------------------------------------------------------------


def test_an_empty_workspace_asks_for_a_catalogue(workspace):
    found = status(workspace)
    assert found["catalog"] is None
    assert found["next"]["command"].startswith("shelfprice catalog ingest --train FILE")
    assert "there is no catalogue" in run(workspace)


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
    assert "3 rows rejected: 1 price is zero, 2 duplicate id" in run(workspace)


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
    assert found["blend"]["nested"] == 21.5
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


def test_another_seed_or_parameter_makes_a_head_stale(submitted):
    folder = publish_fake_predictions(
        submitted, "knn", np.zeros(N_TRAIN), np.zeros(N_TEST), seed=42, params={"k": 3, "p": 2}
    )
    assert stale_heads(submitted)["knn"] == []
    save_config(submitted, replace(CONFIG, seed=43, heads=replace(CONFIG.heads, params={"knn": {"k": 5}})))
    assert stale_heads(submitted)["knn"][-2:] == ["seed 42 became 43", "k 3 became 5"]
    assert folder in {head["folder"] for head in status(submitted)["heads"]}


def test_a_head_that_was_never_trained_comes_next(submitted):
    save_config(submitted, replace(CONFIG, heads=replace(CONFIG.heads, run=("ridge", "sparse"))))
    assert status(submitted)["next"]["why"] == "sparse is not trained"
    assert "sparse             not trained" in run(submitted)


def test_a_head_trained_since_the_blend_makes_it_stale(submitted):
    folder = publish_fake_predictions(submitted, "sparse", np.ones(N_TRAIN), np.ones(N_TEST))
    later = submitted.modified("blend/abc/blend.json") + 5
    os.utime(submitted.path(f"{folder}/head.json"), (later, later))
    assert status(submitted)["blend"]["stale"] == ["sparse was trained since"]
    assert next_command(submitted) == "shelfprice ensemble blend"


def test_of_two_standing_runs_the_older_one_is_shown_as_such(submitted):
    folder = publish_fake_predictions(
        submitted, "ridge", np.ones(N_TRAIN), np.ones(N_TEST), seed=42, params={"alpha": 2}
    )
    later = submitted.modified("blend/abc/blend.json") + 5
    os.utime(submitted.path(f"{folder}/head.json"), (later, later))
    heads = status(submitted)["heads"]
    assert [(head["folder"] == folder, head["is_superseded"]) for head in heads] == [
        (True, False),
        (False, True),
    ]
    assert status(submitted)["blend"]["stale"] == ["ridge was trained again"]


def test_a_submission_of_another_blend_is_stale(submitted):
    submitted.publish_bytes(SUBMISSION_FILE, b"sample_id,price\n1000,3.0\n")
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
                {"link": gone, "reason": "HTTP 404"},
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
        f"image: train 601 ({gone}): fetch: HTTP 404",
        "fake@name: train 500: encode: too odd",
        "photos: train 600 (p0.jpg): decode: cut off \\x1b[2J",
        "photos: test 600 (p0.jpg): decode: cut off \\x1b[2J",
        "4 failures",
    ]
    found = json.loads(run(embedded, "--failures", "--json"))["failures"]
    assert [row["sample_id"] for row in found] == [601, 500, 600, 600]
