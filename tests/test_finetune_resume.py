"""A run that is killed goes on and ends with the same weights; two processes do what one does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embed.finetune.checkpoint import latest_checkpoint, read_tensors
from store.workspace import Workspace
from tests.finetune_runs import demo_workspace, embedded, tiny_models, with_one_thread

one_thread = pytest.fixture(scope="module", autouse=True)(with_one_thread)

CHANGES = {
    "epochs": 3,
    "average": 0.9,
    "augment": True,
    "schedule": "plateau",
    "warmup": 0.2,
    "warmup_epochs": 1,
}
FOLDER = "finetune/{}/fold-0"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace, and encoders: an image's, a text's with dropout, a text's without."""
    root = tmp_path_factory.mktemp("resume")
    image, text = tiny_models(root)
    still = f"{_without_dropout(root / 'text', root / 'still')}?max_tokens=24@structured"
    return embedded(demo_workspace(root, 90, 10), image, text, still), (image, text, still)


@pytest.fixture(scope="module")
def runs(place):
    """Every run of these tests, by one process that imports once."""
    workspace, (image, text, still) = place
    drops = {"encoders": [image, text], "changes": CHANGES, "save_steps": 2, "micro_rows": 6}
    exact = {"encoders": [image, still], "changes": {"epochs": 1, "warmup_epochs": 1}, "save_steps": 200}
    wanted = [
        {"name": "whole", **drops},
        {"name": "killed", "kill_at": 2, **drops},
        {"name": "killed", "kill_at": 6, **drops},
        {"name": "killed", **drops},
        {"name": "warm", "warm_up_only": True, **drops},
        {"name": "warm", **drops},
        {"name": "alone", **exact},
        {"name": "both", "processes": 2, **exact},
        {"name": "cut", "micro_rows": 5, **exact},
    ]
    command = [sys.executable, "-m", "tests.finetune_runs", workspace.root, json.dumps(wanted)]
    subprocess.run(command, check=True, timeout=300)
    return workspace


def end_of(workspace: Workspace, name: str) -> dict[str, torch.Tensor]:
    last = latest_checkpoint(workspace, FOLDER.format(name))
    assert last is not None
    return read_tensors(workspace, last)[0]


def test_a_run_killed_twice_ends_with_the_same_bits_as_one_left_alone(runs):
    whole, again = end_of(runs, "whole"), end_of(runs, "killed")
    assert whole.keys() == again.keys()
    assert any(name.startswith("optimizer/") for name in whole)
    assert any(name.startswith("mean/") for name in whole)
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
    best = [runs.read_bytes(f"{FOLDER.format(n)}/best.safetensors") for n in ("whole", "killed")]
    assert best[0] == best[1]


def test_a_run_that_stopped_right_after_the_warm_up_ends_with_the_same_bits(runs):
    whole, again = end_of(runs, "whole"), end_of(runs, "warm")
    assert whole.keys() == again.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("name", ["both", "cut"])
def test_two_processes_or_small_parts_take_the_steps_that_one_batch_takes(runs, name):
    alone, other = end_of(runs, "alone"), end_of(runs, name)
    # Running means of gradients are compared, not weights: AdamW makes as much of a gradient's sign as of its size,
    # and where one is nothing but rounding, so is its sign.
    means = [key for key in alone if key.startswith("optimizer/") and key.endswith("/exp_avg")]
    one, two = (torch.cat([end[key].flatten() for key in means]) for end in (alone, other))
    assert float((one - two).norm() / one.norm()) < 1e-3
    losses = [
        [
            row["loss"]
            for row in runs.read_table(f"{FOLDER.format(n)}/history.parquet").to_pylist()
            if row["loss"]
        ]
        for n in ("alone", name)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[0]) > 1
    warm = read_tensors(runs, f"{FOLDER.format('alone')}/warm.safetensors")[0]
    head = {key.removeprefix("parameter/head."): t for key, t in alone.items() if "/head." in key}
    assert any(not torch.equal(head[key], warm[key]) for key in head), "nothing was trained"
    assert runs.read_json(f"{FOLDER.format(name)}/fold.json")["processes"] == (2 if name == "both" else 1)


def test_rows_that_processes_can_not_share_evenly_are_refused(place):
    from embed.finetune.processes import Processes
    from embed.finetune.training import FoldRun, TrainingOptions
    from store.errors import ConfigError
    from tests.finetune_runs import tiny_job

    workspace, (image, text, _) = place
    job = tiny_job(workspace, (image, text), "odd")
    with pytest.raises(ConfigError, match=r"3 processes can't share 16 rows .* multiple of 3"):
        FoldRun(job, 0, Processes(0, 3, torch.device("cpu")), TrainingOptions(), lambda line: None)


def _without_dropout(source: Path, target: Path) -> Path:
    """The same BERT as one that drops nothing out."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (target / "config.json").write_text(json.dumps(config))
    return target
