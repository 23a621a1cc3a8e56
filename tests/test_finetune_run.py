"""Frozen, then fine-tuned, the whole way on the demo catalogue with tiny models."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from embed.cli import embed as embed_group
from embed.finetune.run import FinetuneOutcome
from ensemble.inputs import read_training_rows, select_predictions
from heads.run import run_heads
from store.catalog.ingest.run import ingest
from store.config import Config, FoldConfig, HeadConfig, load_config
from store.errors import (
    FoldMismatchError,
    HeadError,
    MissingVectorsError,
)
from store.folds.assign import read_folds
from store.predictions import read_predictions
from store.prune import find_leftovers
from store.standing import read_standing, standing_file
from store.status import read_status
from store.vectors.folded import fold_specs, load_any
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, current_file, current_spec
from store.workspace import Workspace
from tests.finetune_runs import PARAMS, demo_workspace, embedded, tiny_job, tiny_models, tune, with_one_thread

one_thread = pytest.fixture(scope="module", autouse=True)(with_one_thread)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[str, str]:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, models) -> Workspace:
    """The demo catalogue with frozen vectors; tests that write take a run of their own name."""
    return embedded(demo_workspace(tmp_path_factory.mktemp("demo")), *models)


@pytest.fixture(scope="module")
def tuned(workspace, models) -> FinetuneOutcome:
    return tune(tiny_job(workspace, models, "tiny"))


SETS = ("finetuned:tiny.image", "finetuned:tiny.text@structured")


def with_heads(**params: dict) -> Config:
    return Config(folds=FoldConfig(k=2), heads=HeadConfig(params={**PARAMS, **params}))


def test_a_run_gives_every_row_a_price_by_a_model_that_never_saw_its_fold(workspace, tuned):
    predictions = read_predictions(workspace, tuned.folder)
    assert predictions.head == "finetuned:tiny"
    assert len(predictions.oof) == len(read_folds(workspace).fold)
    assert np.isfinite(predictions.test["log_price"].to_numpy()).all()
    by_fold = {one.fold: one for one in tuned.prices}
    fold = predictions.oof["fold"].to_numpy()
    for k, one in by_fold.items():
        np.testing.assert_array_equal(predictions.oof["log_price"].to_numpy()[fold == k], one.oof)
    np.testing.assert_allclose(
        predictions.test["log_price"].to_numpy(), np.mean([one.test for one in by_fold.values()], axis=0)
    )


def test_tuned_predictions_are_blended_like_any_heads(workspace, tuned):
    rows = read_training_rows(workspace, select_predictions(workspace, ["finetuned:tiny"]))
    assert rows.heads == ("finetuned:tiny",)
    assert rows.n_test == 30


def test_each_fold_has_vectors_of_its_own_and_none_go_by_name_alone(workspace, tuned):
    folds_hash = read_folds(workspace).hash
    spec = current_spec(workspace, "finetuned:tiny.text")
    by_fold = fold_specs(spec)
    assert sorted(by_fold) == [0, 1]
    assert {one.folds_hash for one in by_fold.values()} == {folds_hash}
    assert len({one.fingerprint for one in by_fold.values()} | {spec.fingerprint}) == 3
    matrix = load_any(workspace, VectorSet("finetuned:tiny.text", "structured"), "train", folds_hash)
    assert not np.allclose(matrix.for_fold(0).X, matrix.for_fold(1).X)
    with pytest.raises(MissingVectorsError, match="embed finetune"):
        load_matrix(workspace, VectorSet("finetuned:tiny.text", "structured"), "train")


def test_a_head_trains_on_fold_matched_vectors_and_says_so(workspace, tuned):
    lines: list[str] = []
    config = with_heads(**{"ridge:tuned": {"vectors": list(SETS)}})
    (result,) = run_heads(workspace, config, ["ridge:tuned"], lines.append)
    assert result.status == "trained", result.error
    assert any("fold-matched vectors of finetuned:tiny.image" in line for line in lines)
    assert read_predictions(workspace, result.folder).report["fold_matched"] == list(SETS)


def test_a_head_may_mix_frozen_and_tuned_vectors(workspace, tuned, models):
    config = with_heads(**{"ridge:mixed": {"vectors": [SETS[1], models[0]]}})
    (result,) = run_heads(workspace, config, ["ridge:mixed"])
    assert result.status == "trained", result.error


def test_a_tuned_head_asked_of_the_light_ones_names_the_command_that_makes_it(workspace):
    (result,) = run_heads(workspace, with_heads(), ["finetuned:tiny"])
    assert "is tuned along with its encoders: run 'shelfprice embed finetune'" in str(result.error)


def test_vectors_tuned_for_other_folds_are_refused(workspace, tuned):
    with pytest.raises(FoldMismatchError, match=r"was tuned for folds .* run 'shelfprice embed finetune'"):
        load_any(workspace, VectorSet("finetuned:tiny.image"), "train", "0" * 16)


def test_status_counts_tuned_vectors_and_finds_nothing_stale(workspace, tuned):
    status = read_status(workspace, load_config(workspace)).record
    holding = next(one for one in status["vectors"] if one.name == "finetuned:tiny.image")
    assert holding.missing == 0
    assert holding.n_shards >= 2
    head = next(one for one in status["heads"] if one.head == "finetuned:tiny")
    assert head.stale == ()
    (run,) = status["finetune"]
    assert (run.name, run.folds_done, run.n_folds, run.stale) == ("tiny", (0, 1), 2, ())


def test_vectors_of_a_run_whose_prices_were_not_published_yet_are_not_pruned(workspace, tuned):
    current = [current_file(workspace, f"finetuned:tiny.{kind}") for kind in ("image", "text")]
    files = (standing_file("finetuned:tiny"), f"{tuned.folder}/head.json", *current)
    contents = {file: workspace.read_bytes(file) for file in files}
    for file in files:
        workspace.remove(file)
    try:
        leftovers = [one.path for one in find_leftovers(workspace, load_config(workspace))]
        assert not [path for path in leftovers if path.startswith("vectors/finetuned")]
    finally:
        for file, content in contents.items():
            workspace.publish_bytes(file, content)


@pytest.mark.parametrize("command", ["status", "prune"])
def test_looking_at_a_workspace_with_tuned_models_imports_no_torch(workspace, tuned, command):
    code = (
        "import sys; from store.cli import main\n"
        f"main([{command!r}, '-w', {workspace.root!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'sklearn', 'transformers', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fine-tuning" in done.stdout or command == "prune"


def test_status_says_why_a_run_can_not_go_on(workspace, tuned):
    other = dataclasses.replace(load_config(workspace), seed=43)
    status = read_status(workspace, other).record
    assert status["finetune"][0].stale == ("seed was 42 and is 43",)
    assert "seed 42 became 43" in next(one for one in status["heads"] if one.head == "finetuned:tiny").stale


def test_tuned_predictions_stand_and_enter_the_blend(workspace, tuned):
    assert read_standing(workspace).folders["finetuned:tiny"] == tuned.folder
    assert "finetuned:tiny" in select_predictions(workspace, configured=()).folders


def test_prune_keeps_what_tuning_made_but_for_checkpoints_of_folds_that_are_done(workspace, tuned):
    leftovers = {one.path for one in find_leftovers(workspace, load_config(workspace))}
    kept = {folder for folder in workspace.names("vectors") if "finetuned" in folder}
    assert kept
    assert not {f"vectors/{folder}" for folder in kept} & leftovers
    assert tuned.folder not in leftovers
    steps = [path for path in leftovers if path.startswith("finetune/tiny/fold-")]
    assert steps
    assert all("/step-" in path for path in steps)


def test_a_second_run_trains_nothing(workspace, tuned, models, monkeypatch):
    monkeypatch.setattr("embed.finetune.step.Stepper.step", lambda *a: pytest.fail("trained again"))
    again = tune(tiny_job(workspace, models, "tiny"))
    assert again.smape == tuned.smape


def test_history_and_chart_tell_of_every_step_and_epoch(workspace, tuned):
    table = workspace.read_table("finetune/tiny/fold-1/history.parquet")
    steps = [row for row in table.to_pylist() if row["loss"] is not None]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    inner = [row for row in table.to_pylist() if row["inner_smape"] is not None]
    assert [row["epoch"] for row in inner] == [0, 1, 2]
    image = workspace.read_bytes("finetune/tiny/curve.svg").decode()
    assert image.count("fold ") == 2
    assert "<polyline" in image


def test_of_checkpoints_the_best_and_the_last_are_kept(workspace, tuned):
    names = workspace.names("finetune/tiny/fold-0", suffix=".safetensors")
    assert [name.split("-")[0] for name in names] == ["best.safetensors", "step", "warm.safetensors"]


def test_restart_removes_what_a_run_of_the_name_did(workspace, models):
    first = tiny_job(workspace, models, "anew", epochs=1)
    tune(first, (0,))
    second = tiny_job(workspace, models, "anew", epochs=1, head_rate=2e-3)
    from embed.finetune.processes import open_processes
    from embed.finetune.run import finetune
    from embed.finetune.training import TrainingOptions

    outcome = finetune(
        second, (1,), open_processes("cpu"), TrainingOptions(), "cpu", lambda line: None, restart=True
    )
    assert outcome is not None
    assert outcome.missing == (0,)


def test_one_fold_alone_is_scored_and_nothing_is_published_for_heads(workspace, models):
    outcome = tune(tiny_job(workspace, models, "part", epochs=1), (1,))
    assert outcome.missing == (0,)
    assert outcome.folder is None
    assert [one.fold for one in outcome.prices] == [1]
    with pytest.raises(MissingVectorsError, match="let every fold finish"):
        current_spec(workspace, "finetuned:part.image")


def test_tuning_parameters_on_tuned_vectors_is_refused(workspace, tuned):
    from heads.run import tune_head

    config = with_heads(fusion={"vectors": list(SETS)})
    with pytest.raises(HeadError, match=r"reads fine-tuned vectors \(finetuned:tiny.image\)"):
        tune_head(workspace, config, "fusion", 0.01)


def test_the_command_plans_and_reports(workspace, tuned, models):
    options = ["--name", "tiny", "--offline", "-w", workspace.root, "--json"]
    options += ["--epochs", "2", "--warmup-epochs", "2", "--batch-rows", "16", "--image-rate", "1e-3"]
    options += ["--text-rate", "1e-3", "--precision", "fp32", "--patience", "9"]
    planned = CliRunner().invoke(
        embed_group, ["finetune", *models, *options, "--plan"], catch_exceptions=False
    )
    found = json.loads(planned.stdout)
    assert found["steps"] > 0
    assert found["rows_per_second"] > 0
    assert found["memory_bytes"] > 0
    assert found["embedding_hours"] > 0
    ran = CliRunner().invoke(embed_group, ["finetune", *models, *options], catch_exceptions=False)
    assert json.loads(ran.stdout)["smape"] == pytest.approx(tuned.smape)
    assert json.loads(ran.stdout)["folder"] == tuned.folder


def test_other_test_rows_are_embedded_and_priced_without_tuning_again(tmp_path, models, monkeypatch):
    workspace = embedded(demo_workspace(tmp_path, 100, 10), *models)
    before = tune(tiny_job(workspace, models, "tiny", epochs=1, warmup_epochs=1))
    test, images = tmp_path / "demo/test.csv", tmp_path / "demo/images"
    test.write_text(test.read_text().replace("Item Name: ", "Item Name: another "))
    ingest(workspace, str(tmp_path / "demo/train.csv"), str(test), images=str(images))
    embedded(workspace, *models)
    monkeypatch.setattr("embed.finetune.step.Stepper.step", lambda *a: pytest.fail("trained again"))
    after = tune(tiny_job(workspace, models, "tiny", epochs=1, warmup_epochs=1))
    assert after.smape == before.smape
    assert after.folder != before.folder
    predictions = read_predictions(workspace, after.folder)
    assert np.isfinite(predictions.test["log_price"].to_numpy()).all()
    earlier = read_predictions(workspace, before.folder)
    assert predictions.oof.equals(earlier.oof)
    assert not predictions.test.equals(earlier.test)


def test_a_run_killed_before_its_chart_was_drawn_has_one_after_the_next_start(workspace, tuned, models):
    workspace.remove("finetune/tiny/curve.svg")
    again = tune(tiny_job(workspace, models, "tiny"))
    assert workspace.exists("finetune/tiny/curve.svg")
    assert again.curve.endswith("curve.svg")
