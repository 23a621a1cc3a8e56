"""The run of one fold: epochs of steps, early stopping on rows set aside, checkpoints, going on after a kill."""

import hashlib
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from embed.finetune.checkpoint import (
    BEST,
    check_room,
    latest_checkpoint,
    publish_checkpoint,
    publish_tensors,
    read_tensors,
    restore,
)
from embed.finetune.feed import Feed, epoch_batches
from embed.finetune.history import HISTORY_FILE, History, publish_curve
from embed.finetune.inner import inner_smape
from embed.finetune.job import FinetuneJob, Log, TrainingPart
from embed.finetune.network import TunedNetwork
from embed.finetune.processes import Processes
from embed.finetune.record import DONE
from embed.finetune.step import Losses, Stepper
from embed.finetune.warmup import Warm, warm_up
from embed.forward.devices import decodes_in_processes
from embed.forward.prefetch import Prefetch
from heads.networks.schedule import RateSchedule
from heads.networks.training import seeded
from store.errors import ConfigError, HeadError
from store.metric import smape_log

STALE_EPOCHS = 2  # without a better inner score after which a plateau halves the rates


@dataclass(frozen=True)
class TrainingOptions:
    """Options of training that change the weights by rounding at most."""

    micro_rows: int = 32  # rows that enter the model at once, of each process
    save_steps: int = 200  # a checkpoint every so many steps, and after each epoch


@dataclass
class Position:
    """The progress of a run: all of its state except tensors."""

    epoch: int = 0  # finished
    step: int = 0  # taken in the epoch under way
    steps: int = 0  # taken in all
    best_epoch: int = 0  # 0: the warm-up
    best_smape: float | None = None
    best_sha256: str | None = None  # of the file of the best state; None: a checkpoint of version 0.1.0
    seconds: float = 0.0


class FoldRun:
    """Tunes encoders and head without one fold."""

    def __init__(
        self, job: FinetuneJob, fold: int, processes: Processes, options: TrainingOptions, log: Log
    ) -> None:
        self.job, self.fold, self.processes, self.options, self.log = job, fold, processes, options, log
        recipe = job.recipe
        if recipe.batch_rows % processes.n:
            raise ConfigError(
                f"{processes.n} processes can't share {recipe.batch_rows} rows a step evenly: pass --batch-rows as a "
                f"multiple of {processes.n}"
            )
        self.folder = job.fold_folder(fold)
        self.part: TrainingPart = job.training_part(fold)
        self.warm: Warm = warm_up(job, fold, self.part, processes)
        encoders = job.load_encoders()
        with seeded(job.seed):
            network = TunedNetwork(encoders, self.warm.parts, self.warm.parts.network, recipe)
        network.to(processes.device)
        if recipe.batch_rows // processes.n < network.least_rows:
            raise ConfigError(
                f"{recipe.head} takes statistics over the rows of a step, of which each process has "
                f"{recipe.batch_rows // processes.n}: pass --batch-rows of at least {2 * processes.n}"
            )
        self.stepper = Stepper(
            network, recipe, processes, self._targets(), self._fields(), options.micro_rows, log
        )
        if processes.writes:
            check_room(job.workspace, self.stepper)
        valid = [matrix.valid for matrix in job.inputs.train.matrices]
        kind = processes.device.type
        self.feed = Feed(
            job.workspace,
            job.towers,
            encoders,
            valid,
            job.seed,
            processes=decodes_in_processes(kind),
            pins=kind == "cuda",
        )
        self.trained_rows = self.part.positions[~self.part.aside]
        self.aside_rows = self.part.positions[self.part.aside]
        self.steps_per_epoch = max(1, len(self.trained_rows) // recipe.batch_rows)
        n_steps = recipe.epochs * self.steps_per_epoch
        self.schedule = RateSchedule(recipe.schedule, n_steps, recipe.warmup, STALE_EPOCHS)
        self.position = Position(best_smape=self.warm.smape)
        self.history = History(fold)

    def _targets(self) -> np.ndarray:
        """Of every training row, less the mean; NaN where the model may not see it, so that a mistake shows."""
        targets = np.full(len(self.job.inputs.log_price), np.nan)
        targets[self.part.positions] = self.part.log_price - self.warm.mean
        return targets

    def _fields(self) -> np.ndarray | None:
        block = self.warm.parts.design.field_block_
        return None if block is None or not block.names_ else block.transform(self.job.inputs.train)

    # ---- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """To the end, from the last checkpoint if there is one.

        Raises:
            HeadError: the loss is no longer finite; names the step. What was best stays.
            WorkspaceError: a checkpoint can't be written; the one before it stays.
        """
        self._begin()
        recipe, position = self.job.recipe, self.position
        began = time.perf_counter() - position.seconds
        bar: tqdm[Any]
        with tqdm(
            total=recipe.epochs * self.steps_per_epoch * recipe.batch_rows,
            initial=position.steps * recipe.batch_rows,
            desc=f"fold {self.fold}",
            unit=" rows",
            disable=None if self.processes.writes else True,
            smoothing=0.05,
        ) as bar:
            while position.epoch < recipe.epochs and not self._is_over():
                self._epoch(bar, began)
                position.seconds = time.perf_counter() - began
                self._end_epoch()
        if self.processes.writes:
            self._finish()
        self.processes.wait()

    def _begin(self) -> None:
        torch.manual_seed(self.job.seed + 1000 * (self.fold + 1) + self.processes.rank)
        workspace, latest = self.job.workspace, latest_checkpoint(self.job.workspace, self.folder)
        self.processes.wait()
        if latest is not None:
            tensors, record = read_tensors(workspace, latest)
            restore(self.stepper, self.processes, tensors, record)
            self.position = Position(**record["position"])
            self.schedule.load(record["schedule"])
            self.stepper.micro_rows = min(self.stepper.micro_rows, record["micro_rows"])
            history = f"{self.folder}/{HISTORY_FILE}"
            self.history = History.read(workspace, history, self.fold, self.position.steps)
            self.log(
                f"fold {self.fold}: goes on from step {self.position.steps} (epoch {self.position.epoch + 1})"
            )
        elif self.processes.writes:
            self._publish_best()
        if self.warm.smape is not None and not self.history.rows:
            self.history.add(epoch=0, step=0, inner_smape=self.warm.smape)

    def _is_over(self) -> bool:
        """No better inner score for as many epochs as patience lasts; the frozen ones don't count."""
        last = max(self.position.best_epoch, self.job.recipe.augmented_warmup)
        return self.position.best_smape is not None and self.position.epoch - last >= self.job.recipe.patience

    def _epoch(self, bar: "tqdm[Any]", began: float) -> None:
        job, position, recipe = self.job, self.position, self.job.recipe
        self.stepper.network.frozen = position.epoch < recipe.augmented_warmup
        seed = job.seed + 1000 * (self.fold + 1)
        batches = epoch_batches(
            self.trained_rows, self.feed.lengths, recipe.batch_rows, seed, position.epoch
        )[position.step :]
        own = [rows[self.processes.rank :: self.processes.n] for rows in batches]
        augmented = position.epoch if recipe.augment else None
        pending: tuple[int, Losses, float] | None = None
        with Prefetch(self.feed.batches(own, augmented)) as prepared:
            for one in prepared:
                share = self.schedule.share(position.steps)
                losses = self.stepper.step(one, share)
                position.step += 1
                position.steps += 1
                if pending is not None:
                    self._record(*pending, bar=bar, began=began)
                pending = (position.steps, losses, share)
                if position.steps % self.options.save_steps == 0 and position.step < self.steps_per_epoch:
                    self._record(*pending, bar=bar, began=began)
                    pending = None
                    position.seconds = time.perf_counter() - began
                    self._save()
        if pending is not None:
            self._record(*pending, bar=bar, began=began)

    def _record(self, step: int, losses: Losses, share: float, *, bar: "tqdm[Any]", began: float) -> None:
        """Look at a step's loss, one step later, so that a GPU is never waited for."""
        loss, smape = losses.numbers()
        if not math.isfinite(loss):
            best = (
                "the warm-up"
                if self.position.best_epoch == 0
                else f"that of epoch {self.position.best_epoch}"
            )
            raise HeadError(
                f"fine-tuning without fold {self.fold} diverged at step {step} (epoch {self.position.epoch + 1}): its "
                f"loss is {loss}; the best state, {best}, is kept in "
                f"{self.job.workspace.path(f'{self.folder}/{BEST}')}: lower the rates and run with --restart"
            )
        elapsed = time.perf_counter() - began
        rows = self.job.recipe.batch_rows
        self.history.add(
            epoch=self.position.epoch + 1,
            step=step,
            loss=loss,
            smape=smape,
            rate=self.job.recipe.head_rate * share,
            rows_per_second=round(step * rows / max(elapsed, 1e-9), 3),
        )
        bar.set_postfix(loss=f"{loss:.4f}", smape=f"{smape:.2f}", refresh=False)
        bar.update(rows)

    def _end_epoch(self) -> None:
        position = self.position
        score = self._inner_smape()
        position.epoch, position.step = position.epoch + 1, 0
        is_best = score is None or position.best_smape is None or score < position.best_smape
        if is_best:
            position.best_epoch, position.best_smape = position.epoch, score
        if score is not None:
            self.schedule.observe(score)
            self.history.add(epoch=position.epoch, step=position.steps, inner_smape=score)
        if is_best and self.processes.writes:
            self._publish_best()
        self._save()
        if self.processes.writes:
            publish_curve(self.job)
        told = "" if score is None else f", SMAPE {score:.3f} on {len(self.aside_rows)} rows set aside"
        self.log(
            f"fold {self.fold}: epoch {position.epoch} of {self.job.recipe.epochs}{told}"
            + (" (best)" if is_best and score is not None else "")
        )

    def _inner_smape(self) -> float | None:
        if not len(self.aside_rows):
            return None
        smape = inner_smape(self.stepper, self.feed, self.processes, self.aside_rows, self._targets())
        if not math.isfinite(smape):
            raise HeadError(
                f"fine-tuning without fold {self.fold} diverged in epoch {self.position.epoch + 1} (step "
                f"{self.position.steps}): it predicts no finite price; the best state is kept: lower the rates and run "
                "with --restart"
            )
        return smape

    # ---- writing ---------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.processes.writes:
            self.history.publish(self.job.workspace, f"{self.folder}/{HISTORY_FILE}")
        record = {
            "position": vars(self.position),
            "schedule": self.schedule.state(),
            "micro_rows": self.stepper.micro_rows,
        }
        publish_checkpoint(
            self.job.workspace, self.folder, self.stepper, self.processes, self.position.steps, record
        )

    def _publish_best(self) -> None:
        with self.stepper.mean.applied():
            state = self.stepper.network.state()
        record = {"epoch": self.position.best_epoch, "mean": self.warm.mean}
        self.position.best_sha256 = publish_tensors(
            self.job.workspace, f"{self.folder}/{BEST}", state, record
        )

    def _finish(self) -> None:
        position, held_out = self.position, self.job.inputs.fold == self.fold
        weights = position.best_sha256
        if weights is None:
            best = self.job.workspace.read_bytes(f"{self.folder}/{BEST}")
            weights = hashlib.sha256(best).hexdigest()
        frozen = smape_log(self.job.inputs.log_price[held_out], self.warm.frozen_oof)
        self.job.workspace.publish_json(
            f"{self.folder}/{DONE}",
            {
                "fold": self.fold,
                "weights_sha256": weights,
                "epochs": position.epoch,
                "best_epoch": position.best_epoch,
                "inner_smape": position.best_smape,
                "warm_inner_smape": self.warm.smape,
                "frozen_smape": frozen,
                "steps": position.steps,
                "seconds": round(position.seconds, 3),
                "precision": self.stepper.precision,
                "processes": self.processes.n,
            },
        )
