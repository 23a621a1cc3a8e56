"""A tiny CLIP, both towers, the whole way on the demo catalogue with everything that can be switched on."""

import numpy as np
import pytest

from embed.finetune.checkpoint import latest_checkpoint, read_tensors
from embed.finetune.step import Stepper
from store.config import Config, EmbedConfig, FoldConfig, HeadConfig, save_config
from store.folds.assign import read_folds
from store.predictions import read_predictions
from store.vectors.folded import load_any
from store.vectors.sets import VectorSet
from tests.fake_models import save_tiny_clip
from tests.finetune_runs import demo_workspace, embedded, tiny_job, tune, with_one_thread

one_thread = pytest.fixture(scope="module", autouse=True)(with_one_thread)
HEAD = {"hidden": [16, 8], "fields": True, "batch_rows": 32, "precision": "fp32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    workspace = demo_workspace(root, 120, 20)
    heads = HeadConfig(params={"mlp-layernorm": HEAD, "mlp-batchnorm": HEAD})
    save_config(workspace, Config(embed=EmbedConfig(vectors=()), folds=FoldConfig(k=2), heads=heads))
    clip = str(save_tiny_clip(root / "clip"))
    return embedded(workspace, clip), clip


def test_both_towers_are_tuned_with_adapters_recomputation_and_augmented_warm_up(place, monkeypatch):
    workspace, clip = place
    step, modes = Stepper.step, set()

    def spied(stepper, prepared, share):
        losses = step(stepper, prepared, share)
        network = stepper.network
        modes.add((network.frozen, any(tower.training for tower in network.towers), network.head.training))
        return losses

    monkeypatch.setattr(Stepper, "step", spied)
    job = tiny_job(
        workspace,
        (clip,),
        "clip",
        head="mlp-layernorm",
        lora=2,
        checkpointing=True,
        augment=True,
        augmented_warmup=1,
        layer_decay=0.8,
        average=0.5,
    )
    outcome = tune(job)
    assert outcome.folder is not None
    assert modes == {(True, False, True), (False, True, True)}  # encoders train once the head's epoch is over
    assert np.isfinite(read_predictions(workspace, outcome.folder).oof["log_price"].to_numpy()).all()
    folds_hash = read_folds(workspace).hash
    for name in (VectorSet("finetuned:clip.image"), VectorSet("finetuned:clip.text", "structured")):
        for split in ("train", "test"):
            matrix = load_any(workspace, name, split, folds_hash).for_fold(0)
            assert matrix.valid.any()
    tensors, _ = read_tensors(workspace, f"{job.fold_folder(0)}/best.safetensors")
    of_towers = [name for name in tensors if name.startswith("parameter/towers.")]
    assert of_towers
    assert all("lora_" in name for name in of_towers)


def test_half_precision_goes_through_a_scaler_whose_state_is_saved(place):
    workspace, clip = place
    job = tiny_job(
        workspace, (clip,), "half", head="mlp-batchnorm", precision="fp16", epochs=1, last_blocks=1
    )
    outcome = tune(job, (0,))
    assert np.isfinite(outcome.prices[0].oof).all()
    _, record = read_tensors(workspace, latest_checkpoint(workspace, job.fold_folder(0)))
    assert record["scaler"]["scale"] > 1
    assert workspace.read_json(f"{job.fold_folder(0)}/fold.json")["precision"] == "fp16"
