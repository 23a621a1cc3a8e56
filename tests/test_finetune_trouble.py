"""What stops a run, or must not: losses that are not finite, little memory, full disks, another configuration."""

import dataclasses
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from embed.encoders.base import Sources
from embed.finetune.checkpoint import BEST, latest_checkpoint, publish_tensors, read_tensors
from embed.finetune.job import prepare_job
from embed.finetune.predictions import predict_fold
from embed.finetune.processes import open_processes
from embed.finetune.recipe import FinetuneRecipe
from embed.finetune.run import finetune
from embed.finetune.training import FoldRun, TrainingOptions
from embed.finetune.vectors import load_tuned
from store.cli import main
from store.config import HeadConfig, load_config
from store.errors import ConfigError, CorruptFileError, EncoderError, HeadError, MissingVectorsError
from store.folds.assign import read_folds
from store.workspace import Workspace
from tests.finetune_runs import TINY, demo_workspace, embedded, tiny_job, tiny_models, tune, with_one_thread

one_thread = pytest.fixture(scope="module", autouse=True)(with_one_thread)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[str, str]:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, models) -> Workspace:
    """The demo catalogue with frozen vectors; every test takes a run of its own name."""
    return embedded(demo_workspace(tmp_path_factory.mktemp("demo")), *models)


def test_a_run_of_another_configuration_is_refused_and_the_difference_shown(workspace, models):
    tune(tiny_job(workspace, models, "other", epochs=1), (0,))
    job = tiny_job(workspace, models, "other", epochs=3)
    with pytest.raises(ConfigError, match=r"recipe.epochs was 1 and is 3: .* --restart"):
        tune(job, (0,))


def test_folds_in_order_of_time_are_refused(workspace, models, monkeypatch):
    in_order = dataclasses.replace(read_folds(workspace), looks_back=True)
    monkeypatch.setattr("embed.finetune.job.ensure_folds", lambda *given: in_order)
    with pytest.raises(HeadError, match="a model tuned on all other folds has seen later rows"):
        tiny_job(workspace, models, "in-time")


def test_missing_cached_vectors_name_the_command(workspace, models):
    with pytest.raises(MissingVectorsError, match=r"run 'shelfprice embed run -e .*@full'"):
        tiny_job(workspace, (models[0], models[1].replace("@structured", "@full")), "x")


def test_cached_vectors_of_other_weights_are_refused(workspace, models, tmp_path):
    from pathlib import Path

    from tests.finetune_runs import save_tiny_efficientnet

    folder = Path(models[0])
    before = (folder / "model.safetensors").read_bytes()
    try:
        save_tiny_efficientnet(folder, seed=9)
        with pytest.raises(MissingVectorsError, match=r"other weights or preprocessing .* embed run -e"):
            tiny_job(workspace, models, "x")
    finally:
        (folder / "model.safetensors").write_bytes(before)


def test_nan_stops_the_run_names_the_step_and_keeps_the_best(workspace, models, monkeypatch):
    from embed.finetune.network import TunedNetwork

    forward, calls = TunedNetwork.forward, []

    def broken(self, prepared, fields):
        calls.append(1)
        return forward(self, prepared, fields) * (float("nan") if self.training and len(calls) > 2 else 1.0)

    monkeypatch.setattr(TunedNetwork, "forward", broken)
    job = tiny_job(workspace, models, "nan", warmup_epochs=1)
    with pytest.raises(
        HeadError, match=r"diverged at step 3 \(epoch 1\): its loss is nan; .*best.safetensors"
    ):
        tune(job, (0,))
    tensors, record = read_tensors(workspace, "finetune/nan/fold-0/best.safetensors")
    assert record["epoch"] == 0
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_out_of_memory_halves_what_enters_at_once_and_steps_stay_the_same(workspace, models, monkeypatch):
    from embed.finetune.network import TunedNetwork

    wanted = tiny_job(workspace, models, "roomy", epochs=1, text_rate=1e-4)
    tune(wanted, (0,))
    forward = TunedNetwork.forward

    def short(self, prepared, fields):
        if len(prepared.rows) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, prepared, fields)

    monkeypatch.setattr(TunedNetwork, "forward", short)
    lines: list[str] = []
    job = tiny_job(workspace, models, "tight", epochs=1, text_rate=1e-4)
    run = FoldRun(job, 0, open_processes("cpu"), TrainingOptions(), lines.append)
    run.stepper.network.eval()
    run.run()
    assert any("4 rows at once" in line for line in lines)
    history = workspace.read_table("finetune/tight/fold-0/history.parquet").to_pylist()
    roomy = workspace.read_table("finetune/roomy/fold-0/history.parquet").to_pylist()
    first = [next(row["loss"] for row in rows if row["loss"] is not None) for rows in (history, roomy)]
    assert first[0] == pytest.approx(first[1], rel=0.05)  # dropout is drawn otherwise


def test_memory_for_not_even_one_row_is_an_error_with_ways_out(workspace, models, monkeypatch):
    from embed.finetune.network import TunedNetwork

    def never(self, prepared, fields):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(TunedNetwork, "forward", never)
    with pytest.raises(HeadError, match=r"out of memory on a single row: pass --gradient-checkpointing"):
        tune(tiny_job(workspace, models, "none"), (0,))


def test_a_disk_that_fills_while_saving_keeps_the_checkpoint_before(workspace, models, monkeypatch):
    import errno

    from store import files as module
    from store.errors import WorkspaceError

    publish = module.publish_local

    def full(target, write, flush=True):
        if "step-000000006" in target:
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(target, write, flush)

    monkeypatch.setattr(module, "publish_local", full)
    job = tiny_job(workspace, models, "full", epochs=2)
    with pytest.raises(WorkspaceError, match=r"no space left .* the one before it stands"):
        tune(job, (0,), save_steps=3)
    assert latest_checkpoint(workspace, job.fold_folder(0)).endswith("step-000000003.safetensors")
    monkeypatch.setattr(module, "publish_local", publish)
    assert tune(job, (0,), save_steps=3).prices[0].fold == 0


def test_unknown_folds_and_encoders_named_twice_are_refused(workspace, models):
    with pytest.raises(ConfigError, match=r"there is no fold 7, the folds are \[0, 1\]"):
        tune(tiny_job(workspace, models, "x7"), (7,))
    with pytest.raises(ConfigError, match="is named twice"):
        tiny_job(workspace, (*models, models[0]), "x")
    with pytest.raises(ConfigError, match=r"letters, digits and . _ \+ - alone, got '../x'"):
        tiny_job(workspace, models, "../x")
    with pytest.raises(EncoderError, match="'shelfprice embed finetune' makes its vectors"):
        embedded(workspace, "finetuned:tiny.image")


def test_a_disk_without_room_for_checkpoints_is_told_before_anything_is_trained(
    workspace, models, monkeypatch
):
    import shutil
    from collections import namedtuple

    from store.errors import WorkspaceError

    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    monkeypatch.setattr("embed.finetune.step.Stepper.step", lambda *a: pytest.fail("trained"))
    with pytest.raises(WorkspaceError, match=r"0.00 GB are free .* checkpoints take up to .* GB: free some"):
        tune(tiny_job(workspace, models, "cramped"), (0,))


def test_two_runs_of_a_name_take_turns(workspace, models):
    lines: list[str] = []
    job = tiny_job(workspace, models, "turns", epochs=1)

    def waiting(line: str) -> None:
        lines.append(line)
        if "at work here: waiting" in line:
            held.close()

    with ExitStack() as held:
        held.enter_context(workspace.lock("finetune/.turns.lock"))
        finetune(job, (0,), open_processes("cpu"), TrainingOptions(), "cpu", waiting)
    assert any("another run of turns is at work here: waiting for it" in line for line in lines)


def test_rows_without_an_image_go_through_in_parts_of_a_single_row(workspace, models):
    job = tiny_job(workspace, models, "single", epochs=1, warmup_epochs=1)
    valid = job.inputs.train.matrices[0].valid
    assert not valid.all()
    assert np.isfinite(tune(job, (0,), micro_rows=1).prices[0].oof).all()


@pytest.mark.parametrize("micro_rows", [5, 1])
def test_batch_statistics_are_never_of_a_single_row(workspace, models, micro_rows):
    params = {"mlp-batchnorm": {"hidden": [8], "fields": False, "precision": "fp32"}}
    config = dataclasses.replace(load_config(workspace), heads=HeadConfig(params=params))
    recipe = FinetuneRecipe(**{**TINY, "head": "mlp-batchnorm", "epochs": 1, "warmup_epochs": 1})
    name, sources = f"statistics{micro_rows}", Sources(offline=True)
    job = prepare_job(workspace, config, models, name, recipe, sources, lambda line: None)
    assert np.isfinite(tune(job, (0,), micro_rows=micro_rows).prices[0].oof).all()


def test_gradients_that_are_not_finite_are_named_by_their_own_step(workspace, models, monkeypatch):
    """The loss of that step is finite still: without a look at gradients the weights would be saved as NaN."""
    from embed.finetune.processes import Processes

    sum_gradients, calls = Processes.sum_gradients, []

    def broken(self, parameters):
        calls.append(1)
        sum_gradients(self, parameters)
        if len(calls) == 3:
            next(p for p in parameters if p.grad is not None).grad.fill_(float("inf"))

    monkeypatch.setattr(Processes, "sum_gradients", broken)
    job = tiny_job(workspace, models, "infinite", warmup_epochs=1)
    with pytest.raises(HeadError, match=r"diverged at step 3 \(epoch 1\): its loss is nan"):
        tune(job, (0,), save_steps=1)
    tensors, _ = read_tensors(workspace, latest_checkpoint(workspace, job.fold_folder(0)))
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


@pytest.mark.parametrize("at", [0.02, 0.5, 0.99], ids=["header", "middle", "end"])
def test_a_flipped_bit_in_any_file_of_tensors_is_found(tmp_path, at):
    workspace = Workspace(tmp_path)
    tensors = {"a": torch.arange(64.0), "b": torch.ones(3, 4)}
    publish_tensors(workspace, "fold-0/step-1.safetensors", tensors, {"mean": 2.5})
    path = tmp_path / "fold-0/step-1.safetensors"
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CorruptFileError, match=r"step-1.safetensors is damaged .*: remove it, and the same command"
    ):
        read_tensors(workspace, "fold-0/step-1.safetensors")


def test_a_best_state_that_is_not_the_recorded_one_embeds_and_predicts_nothing(workspace, models):
    job = tiny_job(workspace, models, "swapped", epochs=1)
    tune(job, (0,))
    best = f"{job.fold_folder(0)}/{BEST}"
    tensors, record = read_tensors(workspace, best)
    publish_tensors(workspace, best, {name: tensor + 1 for name, tensor in tensors.items()}, record)
    for read in (load_tuned, predict_fold):
        with pytest.raises(
            CorruptFileError, match=r"best.safetensors is damaged .*remove .*fold-0, and the same"
        ):
            read(job, 0)
    workspace.remove(best)
    with pytest.raises(
        CorruptFileError, match=r"best.safetensors is damaged \(it is gone\): remove .*fold-0, and"
    ):
        predict_fold(job, 0)


def test_the_warm_up_of_the_rates_is_taken_by_its_old_name_too(workspace, models):
    image, text = models
    asked = [
        "embed",
        "finetune",
        image,
        text,
        "--plan",
        "--offline",
        "-w",
        workspace.root,
        "--batch-rows",
        "16",
    ]
    for name in ("--warmup", "--rise"):
        result = CliRunner().invoke(main, [*asked, name, "1.5"])
        assert result.exit_code == 1
        assert "warmup must be a number of at least 0, below 1, got 1.5" in result.output


@pytest.mark.parametrize("name", ["../../x", "a/b", "a..b", "x" * 101, "a\x1b[2J"])
def test_a_run_whose_name_could_lead_elsewhere_is_refused(workspace, models, name):
    with pytest.raises(
        ConfigError, match=r"--name names files|the name of a fine-tuning run becomes part of a path"
    ):
        tiny_job(workspace, models, name)


def test_the_name_of_a_run_of_encoders_with_long_addresses_is_cut_short(tmp_path):
    from embed.finetune.job import _default_name

    one, other = (_default_name([f"/models/{'x' * 150}{end}", "minilm@name"]) for end in ("a", "b"))
    assert one != other
    assert len(one) == len(other) == 100
    assert _default_name(["minilm@name", "efficientnet-lite0"]) == "efficientnet-lite0+minilm"
