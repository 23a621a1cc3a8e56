"""A run that is killed goes on and ends with the same weights; two processes do what one does."""

import json
import os
import signal
import subprocess
import sys
import time

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
    "rise": 0.2,
    "warmup_epochs": 1,
}
FOLDER = "finetune/{}/fold-0"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    models = tiny_models(root)
    return embedded(demo_workspace(root, 120, 0), *models), models


def command(workspace: Workspace, name: str, models: tuple[str, str], changes: dict, save: int) -> list[str]:
    arguments = [workspace.root, name, json.dumps(models), json.dumps(changes), str(save)]
    return ["-m", "tests.finetune_runs", *arguments]


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, timeout=300)


def end_of(workspace: Workspace, name: str) -> dict[str, torch.Tensor]:
    last = latest_checkpoint(workspace, FOLDER.format(name))
    assert last is not None
    return read_tensors(workspace, last)[0]


def test_a_run_killed_twice_ends_with_the_same_bits_as_one_left_alone(place):
    workspace, models = place
    run(*command(workspace, "whole", models, CHANGES, 2))
    killed, folder = command(workspace, "killed", models, CHANGES, 2), FOLDER.format("killed")
    for at_least in (2, 6):
        child = subprocess.Popen([sys.executable, *killed])
        while child.poll() is None and _last_step(workspace, folder) < at_least:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not workspace.exists(f"{folder}/fold.json"), "it ended before it was killed"
    run(*killed)
    whole, again = end_of(workspace, "whole"), end_of(workspace, "killed")
    assert whole.keys() == again.keys()
    assert any(name.startswith("optimizer/") for name in whole)
    assert any(name.startswith("mean/") for name in whole)
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
    best = [workspace.read_bytes(f"{FOLDER.format(n)}/best.safetensors") for n in ("whole", "killed")]
    assert best[0] == best[1]


def test_two_processes_take_the_steps_that_one_takes(place):
    workspace, models = place
    changes = {"epochs": 1, "warmup_epochs": 1, "text_rate": 1e-3}
    whole = [path.replace("/text?", "/still?") for path in models]
    _without_dropout(models[1], whole[1])
    embedded(workspace, *whole)
    _set_head_without_dropout(workspace)
    run(*command(workspace, "alone", tuple(whole), changes, 200))
    elastic = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run(*elastic, *command(workspace, "both", tuple(whole), changes, 200))
    alone, both = end_of(workspace, "alone"), end_of(workspace, "both")
    for name, tensor in alone.items():
        if name.startswith("parameter/"):
            torch.testing.assert_close(tensor, both[name], rtol=1e-3, atol=2e-5, msg=name)
    moved = read_tensors(workspace, f"{FOLDER.format('alone')}/warm.safetensors")[0]
    head = {name.removeprefix("parameter/head."): t for name, t in alone.items() if "/head." in name}
    assert any(not torch.equal(head[name], moved[name]) for name in head), "nothing was trained"


def test_rows_that_processes_can_not_share_evenly_are_refused(place, monkeypatch):
    from embed.finetune.processes import Processes
    from embed.finetune.training import FoldRun, Options
    from store.errors import ConfigError
    from tests.finetune_runs import tiny_job

    workspace, models = place
    job = tiny_job(workspace, models, "odd")
    with pytest.raises(ConfigError, match=r"3 processes can't share 16 rows .* multiple of 3"):
        FoldRun(job, 0, Processes(0, 3, torch.device("cpu")), Options(), lambda line: None)


def _last_step(workspace: Workspace, folder: str) -> int:
    last = latest_checkpoint(workspace, folder)
    return int(last.rpartition("step-")[2].split(".")[0]) if last else 0


def _without_dropout(address: str, target: str) -> None:
    """The same BERT, in the folder of another address, as one that drops nothing out."""
    import shutil
    from pathlib import Path

    source, folder = Path(address.partition("?")[0]), Path(target.partition("?")[0])
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))


def _set_head_without_dropout(workspace: Workspace) -> None:
    import dataclasses

    from store.config import load_config, save_config

    config = load_config(workspace)
    params = {"fusion": {**config.heads.params["fusion"], "dropout": 0.0}}
    save_config(
        workspace, dataclasses.replace(config, heads=dataclasses.replace(config.heads, params=params))
    )
