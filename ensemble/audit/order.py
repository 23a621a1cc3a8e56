"""Checks that a model of ids and row order alone is no better than the median price."""

import re

import numpy as np
import pyarrow as pa

from ensemble.audit.check import Check
from ensemble.audit.evidence import TrainingEvidence
from ensemble.audit.forest import forest_values
from ensemble.audit.shuffled import SURE, without_features
from ensemble.groups import gain_and_error
from store.metric import smape_rows

MIN_LEAF = 20  # rows
MATERIAL = 0.02  # share of the median's SMAPE; a smaller gain from the order is tolerated


def id_features(sample_id: pa.Array, position: np.ndarray) -> np.ndarray:
    """Row order, the id's number, its length and its first characters, shape (n_rows, 6)."""
    texts = [str(value) for value in sample_id.to_pylist()]
    numbers = [float("".join(re.findall(r"\d", text))[-15:] or -1) for text in texts]
    firsts = [[float(ord(text[i])) if len(text) > i else -1.0 for i in range(3)] for text in texts]
    lengths = [float(len(text)) for text in texts]
    return np.column_stack([position, numbers, lengths, np.array(firsts)])


def check_ids_and_order(rows: TrainingEvidence, seed: int) -> Check:
    """Random trees on ids and row order against the median."""
    X = id_features(rows.sample_id, rows.position)
    predicted = np.empty(len(rows.fold))
    for k in np.unique(rows.fold):
        here = rows.fold == k
        predicted[here] = forest_values(X, rows.log_actual, ~here, here, MIN_LEAF, seed)
    guess, of = without_features(rows.log_actual, rows.fold)
    median_loss = smape_rows(rows.log_actual, guess)
    loss = smape_rows(rows.log_actual, predicted)
    gain, error = gain_and_error(median_loss - loss, rows.group)
    figures = {
        "median_smape": float(median_loss.mean()),
        "order_smape": float(loss.mean()),
        "gain": gain,
        "gain_error": error,
        "n_rows": len(loss),
    }
    scores = f"{figures['order_smape']:.2f} against the {of}'s {figures['median_smape']:.2f}"
    if gain > SURE * error and gain > MATERIAL * figures["median_smape"]:
        return Check(
            "ids and order",
            "caution",
            f"Ids and row order alone tell prices (SMAPE {scores}): the catalogue is sorted, or comes in batches. "
            "Never feed ids to a head, and expect the honest score to hold only for test rows from the same batches.",
            figures,
        )
    return Check(
        "ids and order", "ok", f"Ids and row order tell nothing of the price (SMAPE {scores}).", figures
    )
