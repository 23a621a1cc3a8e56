"""The score on rows set aside, which early stopping uses; each process scores its share of them."""

import numpy as np
import torch

from embed.finetune.feed import Feed
from embed.finetune.processes import Processes
from embed.finetune.step import Stepper
from embed.forward.prefetch import Prefetch
from store.metric import smape_rows


def inner_smape(
    stepper: Stepper, feed: Feed, processes: Processes, rows: np.ndarray, targets: np.ndarray
) -> float:
    """SMAPE of rows that are not augmented, percent; the same in every process.

    Args:
        rows: positions among the training rows, at least one.
        targets: of every training row as the stepper takes them, shape (n_train,).
    """
    order = rows[np.argsort(feed.lengths[rows], kind="stable")][processes.rank :: processes.n]
    size = stepper.micro_rows
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    sums = torch.zeros(2, dtype=torch.float64)
    with Prefetch(feed.batches(batches, None)) as prepared:
        for own, predicted in stepper.predict(iter(prepared)):
            sums[0] += float(smape_rows(targets[own], predicted).sum())
            sums[1] += len(own)
    total, count = (sums if processes.n == 1 else processes.sum(sums.to(processes.device))).tolist()
    return float(total / count)
