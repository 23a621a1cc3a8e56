"""Tiny encoders on a small demo catalogue, ready to be tuned; and one run in a process of its own, to be killed.

python -m tests.finetune_runs WORKSPACE NAME [SAVE_STEPS]
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embed.encoders.base import Sources
from embed.finetune.job import FinetuneJob, check_configuration, prepare_job
from embed.finetune.processes import open_processes
from embed.finetune.recipe import FinetuneRecipe
from embed.finetune.run import FinetuneOutcome, finetune
from embed.finetune.training import FoldRun, TrainingOptions
from embed.forward.devices import DeviceSettings
from embed.forward.fleet import load_engines
from embed.job.limits import FailureLimits
from embed.job.request import find_requests
from embed.job.run import EmbedOptions
from embed.job.run import run as run_embed
from store.config import Config, EmbedConfig, FoldConfig, HeadConfig, save_config
from store.workspace import Workspace
from tests.fake_models import save_tiny_bert

PARAMS = {
    "fusion": {
        "projected": 16,
        "hidden": [16],
        "dropout": 0.0,
        "fields": False,
        "batch_rows": 32,
        "precision": "fp32",
    }
}
TINY: dict[str, Any] = {
    "epochs": 2,
    "warmup_epochs": 2,
    "batch_rows": 16,
    "image_rate": 1e-3,
    "text_rate": 1e-3,
    "precision": "fp32",
    "patience": 9,
}


def with_one_thread() -> Iterator[None]:
    """Threads cost tiny models more than they bring, most of all on a busy machine. For an autouse fixture."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_tiny_efficientnet(folder: Path, seed: int = 0) -> Path:
    """An EfficientNet of 0.3 million parameters, 32 pixels."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(seed)
    cfg = {"input_size": (3, 32, 32), "crop_pct": 0.875, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model = timm.create_model(
        "test_efficientnet", num_classes=7, pretrained_cfg_overlay={**cfg, "num_classes": 7}
    )
    for module in model.modules():  # as pretrained statistics would, or nothing of an image comes through
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(16, 3, 32, 32))
    save_for_hf(model.eval(), str(folder), safe_serialization=True)
    return folder


def demo_workspace(root: Path, train: int = 150, test: int = 30, k: int = 2) -> Workspace:
    """An ingested demo catalogue with the configuration of the tests."""
    from store.catalog.demo.generate import make_demo
    from store.catalog.ingest.run import ingest

    make_demo(root / "demo", 3, train, test)
    workspace = Workspace(root / "workspace")
    demo = root / "demo"
    ingest(workspace, str(demo / "train.csv"), str(demo / "test.csv"), images=str(demo / "images"))
    config = Config(embed=EmbedConfig(vectors=()), folds=FoldConfig(k=k), heads=HeadConfig(params=PARAMS))
    save_config(workspace, config)
    return workspace


def embedded(workspace: Workspace, *encoders: str, precision: str = "fp32") -> Workspace:
    """The workspace with these encoders' vectors in the cache."""
    requests = find_requests(workspace, encoders, Sources(offline=True), precision)
    settings = DeviceSettings(("cpu",))
    options = EmbedOptions(FailureLimits(1.0, 1.0))
    run_embed(workspace, requests, options, lambda r: load_engines(workspace, r, settings), lambda line: None)
    return workspace


def tiny_models(root: Path) -> tuple[str, str]:
    """Addresses of a tiny EfficientNet and a tiny BERT."""
    image, text = (
        save_tiny_efficientnet(root / "image"),
        save_tiny_bert(root / "text", hidden_dropout_prob=0.1),
    )
    return str(image), f"{text}?max_tokens=24@structured"


def tiny_job(workspace: Workspace, encoders: tuple[str, ...], name: str, **changes: Any) -> FinetuneJob:
    """A run of tiny encoders."""
    from store.config import load_config

    recipe = FinetuneRecipe(**{**TINY, **changes}).check()
    sources = Sources(offline=True)
    return prepare_job(workspace, load_config(workspace), encoders, name, recipe, sources, lambda line: None)


def tune(job: FinetuneJob, folds: tuple[int, ...] = (), **options: Any) -> FinetuneOutcome:
    """Run it here."""
    lines: list[str] = []
    outcome = finetune(job, folds, open_processes("cpu"), TrainingOptions(**options), "cpu", lines.append)
    assert outcome is not None
    return outcome


def one_fold(
    root: str,
    name: str,
    encoders: list[str],
    changes: dict[str, Any],
    warm_up_only: bool = False,
    **options: int,
) -> None:
    """Tune without fold 0, nothing embedded afterwards."""
    import torch

    torch.set_num_threads(1)
    job = tiny_job(Workspace(root), tuple(encoders), name, **changes)
    processes = open_processes("cpu")
    if processes.writes:
        check_configuration(job, False, lambda line: None)
    processes.wait()
    fold = FoldRun(job, 0, processes, TrainingOptions(**options), lambda line: None)
    if not warm_up_only:
        fold.run()
    processes.close()


def start(root: str, run: dict[str, Any], environment: dict[str, str]) -> int:
    """Fork a child that does a run; its process id."""
    child = os.fork()
    if child == 0:
        os.environ |= environment
        status = 1
        try:
            one_fold(root, **run)
            status = 0
        except Exception:  # noqa: BLE001 - a forked child must never run on as its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def main(root: str, runs: str) -> None:
    """Each run on as many processes as it says, killed once a checkpoint of the step it says is there."""
    for run in json.loads(runs):
        n, kill_at = run.pop("processes", 1), run.pop("kill_at", None)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        children = [
            start(root, run, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(n)
        ]
        if kill_at is not None:
            folder = Path(root) / f"finetune/{run['name']}/fold-0"
            while not any(int(p.stem.split("-")[1]) >= kill_at for p in folder.glob("step-*.safetensors")):
                time.sleep(0.002)
            os.kill(children[0], signal.SIGKILL)
            os.waitpid(children[0], 0)
            assert not (folder / "fold.json").exists(), "it ended before it was killed"
            continue
        for child in children:
            assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
