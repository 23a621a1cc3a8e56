"""The frozen phase: while encoders are frozen their vectors are constant, so the head trains on cached ones."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from embed.finetune.checkpoint import WARM, publish_tensors, read_tensors
from embed.finetune.job import FinetuneJob, TrainingPart
from embed.finetune.processes import Processes
from heads.networks.head import NetworkHead, NetworkParts
from heads.networks.training import predict_network, seeded, train_network


@dataclass(frozen=True)
class Warm:
    """The head after its warm-up."""

    head: NetworkHead  # whose features are fitted on the training part
    parts: NetworkParts  # `parts.network` holds the warm weights
    mean: float  # log price that outputs are added to
    smape: float | None  # on the rows set aside; None: no row was
    frozen_oof: (
        np.ndarray
    )  # (n_fold,) log price of the held-out fold's rows by frozen vectors, for comparison


def warm_up(job: FinetuneJob, fold: int, part: TrainingPart, processes: Processes) -> Warm:
    """Train the head on cached vectors, or take the weights of an earlier start of this run.

    Raises:
        HeadError: the loss is no longer finite.
    """
    head = job.head()
    parts = head.parts(part.rows)
    path = f"{job.fold_folder(fold)}/{WARM}"
    if processes.writes and not job.workspace.exists(path):
        _train(job, fold, part, head, parts, path)
    processes.wait()
    tensors, record = read_tensors(job.workspace, path)
    oof = tensors.pop("frozen_oof").numpy()
    parts.network.load_state_dict(tensors)
    return Warm(head, parts, record["mean"], record["smape"], oof)


def _train(
    job: FinetuneJob, fold: int, part: TrainingPart, head: NetworkHead, parts: NetworkParts, path: str
) -> None:
    recipe, mean, smape, epochs = job.recipe, float(part.log_price[~part.aside].mean()), None, 0
    network = parts.network
    if recipe.warmup_epochs:
        own = dataclasses.replace(
            parts.recipe, epochs=recipe.warmup_epochs, aside=recipe.aside, loss=recipe.loss
        )
        with seeded(job.seed):
            trained = train_network(
                recipe.head, network, head.batch_of(part.rows), part.log_price, part.rows.group, own, job.seed
            )
        network, mean, smape, epochs = trained.network, trained.mean, trained.smape, trained.epochs
    held_out = np.flatnonzero(job.inputs.fold == fold)
    batch = head.batch_of(job.inputs.train.subset(held_out))
    oof = predict_network(network, batch, np.arange(len(held_out)), parts.recipe.precision) + mean
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    record = {"mean": mean, "smape": smape, "epochs": epochs}
    publish_tensors(job.workspace, path, {**tensors, "frozen_oof": torch.from_numpy(oof)}, record)
