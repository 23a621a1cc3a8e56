"""The whole run: each fold tuned, then its vectors and prices; what is done already is not done again."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from embed.finetune.history import CURVE_FILE, publish_curve
from embed.finetune.job import FinetuneJob, Log, check_configuration
from embed.finetune.predictions import FoldPrices, predict_fold, publish_prices
from embed.finetune.processes import Processes
from embed.finetune.record import DONE, run_lock
from embed.finetune.training import FoldRun, TrainingOptions
from embed.finetune.vectors import embed_fold, finished_folds


@dataclass(frozen=True)
class FinetuneOutcome:
    """The result of a run."""

    prices: tuple[FoldPrices, ...]  # of the folds done so far
    missing: tuple[int, ...]  # folds not tuned yet
    folder: str | None  # predictions; None until every fold is done
    smape: float | None  # out of fold over all rows, percent
    frozen_smape: float | None  # of the warm-up's head on frozen vectors, the same rows
    curve: str


def finetune(
    job: FinetuneJob,
    folds: Sequence[int],
    processes: Processes,
    options: TrainingOptions,
    device: str,
    log: Log,
    restart: bool = False,
) -> FinetuneOutcome | None:
    """Tune the chosen folds, embed every row by each fold's model, and publish prices once all folds are done.

    Args:
        folds: to be worked on now; none: all.

    Returns:
        None in a process other than the first: that one alone embeds and publishes.

    Raises:
        ConfigError: there is no such fold, or the run began with another configuration.
        HeadError: the loss is no longer finite.
        WorkspaceError: the disk is full.
    """
    chosen = job.chosen_folds(folds)
    with _alone(job, processes, log):
        if processes.writes:
            check_configuration(job, restart, log)
        processes.wait()
        _tune_folds(job, chosen, processes, options, log)
        processes.close()
        return _results(job, device, log) if processes.writes else None


def _alone(job: FinetuneJob, processes: Processes, log: Log) -> AbstractContextManager[None]:
    """One run of a name at a time: two would use each other's checkpoints."""
    if not processes.writes:
        return nullcontext()
    waiting = f"another run of {job.name} is at work here: waiting for it"
    return job.workspace.lock(run_lock(job.name), lambda: log(waiting))


def _tune_folds(
    job: FinetuneJob, folds: Sequence[int], processes: Processes, options: TrainingOptions, log: Log
) -> None:
    for fold in folds:
        if job.workspace.exists(f"{job.fold_folder(fold)}/{DONE}"):
            log(f"fold {fold}: tuned already")
            continue
        one = FoldRun(job, fold, processes, options, log)
        try:
            one.run()
        finally:
            one.feed.close()


def _results(job: FinetuneJob, device: str, log: Log) -> FinetuneOutcome:
    done = finished_folds(job)
    publish_curve(job)
    for fold in done:
        embed_fold(job, fold, device, log)
    prices = [predict_fold(job, fold) for fold in done]
    missing = tuple(k for k in job.all_folds if k not in done)
    curve = job.workspace.path(f"{job.folder}/{CURVE_FILE}")
    if missing:
        return FinetuneOutcome(tuple(prices), missing, None, None, None, curve)
    folder, report = publish_prices(job, prices)
    return FinetuneOutcome(tuple(prices), (), folder, report["smape"], report["frozen_smape"], curve)
