"""Heads and blend side by side: score, time, and how far each is from the blend on the same rows."""

from typing import Any

import numpy as np

from ensemble.blend import INTERVAL_LEVEL
from ensemble.groups import bootstrap_interval
from ensemble.report.rows import ReportRows
from store.metric import smape_rows
from store.workspace import Workspace

MEDIAN = "median of the other folds"


def leaderboard(workspace: Workspace, rows: ReportRows, seed: int) -> list[dict[str, Any]]:
    """The blend, every head and the median price, the best first.

    `difference` is SMAPE less the blend's on the same rows, above 0 where the blend is better, with its 95% interval
    over groups.
    """
    from ensemble.audit.shuffled import fold_medians

    training, record = rows.training, rows.record
    folders, weights = record["inputs"]["heads"], record["weights"]
    entries: list[dict[str, Any]] = []
    of_blend = rows.losses(rows.log_price)

    def add(name: str, kind: str, loss: np.ndarray, seconds: float | None, weight: float | None) -> None:
        apart = loss - of_blend
        same = not apart.any()
        entries.append(
            {
                "name": name,
                "kind": kind,
                "smape": float(loss.mean()),
                "interval": list(
                    bootstrap_interval(loss, training.group, seed, INTERVAL_LEVEL, counts=rows.counts)
                ),
                "difference": float(apart.mean()),
                "difference_interval": None
                if same
                else list(
                    bootstrap_interval(apart, training.group, seed, INTERVAL_LEVEL, counts=rows.counts)
                ),
                "weight": weight,
                "seconds": seconds,
            }
        )

    add("blend", "blend", of_blend, record.get("seconds"), None)
    for head, log_price in zip(training.heads, rows.head_log_prices().T, strict=True):
        report = workspace.read_json(f"{folders[head]}/head.json")["report"]
        add(head, "head", rows.losses(log_price), report.get("seconds"), weights.get(head))
    if len(training.heads) > 1:
        average = np.maximum(training.log_prices.mean(axis=1), rows.floor)
        add("plain average", "average", rows.losses(average), None, None)
    middle = np.maximum(fold_medians(training.log_actual, training.fold), rows.floor)
    add(MEDIAN, "median", rows.losses(middle), None, None)
    return sorted(entries, key=lambda entry: (entry["smape"], entry["kind"] != "blend"))


def duplicate_noise(rows: ReportRows) -> dict[str, Any] | None:
    """How far prices of rows with the same text differ: no model of the text can have a lower error on them.

    Returns:
        `n_rows` with another row of the same text and not the same price, `twin_smape` of pricing each by the median of
        the others, `floor`, the SMAPE of the best single price a text, and the blend's `smape`; None where they are
        fewer than 20.
    """
    found = rows.table["text"].combine_chunks().dictionary_encode()
    text = found.indices.fill_null(-1).to_numpy() + 1
    empty = [at + 1 for at, one in enumerate(found.dictionary.to_pylist()) if not one]
    log_actual, n_texts = rows.training.log_actual, int(text.max(initial=0)) + 1
    least, most = np.full(n_texts, np.inf), np.full(n_texts, -np.inf)
    np.minimum.at(least, text, log_actual)
    np.maximum.at(most, text, log_actual)
    shared = np.flatnonzero((most > least)[text] & ~np.isin(text, [0, *empty]))
    if len(shared) < 20:
        return None
    order = shared[np.argsort(text[shared], kind="stable")]
    ends = np.flatnonzero(np.diff(text[order])) + 1
    by_twins, at_best = [], []
    for members in np.split(order, ends):
        prices = log_actual[members]
        losses = smape_rows(prices[None, :], prices[:, None])
        at_best.append(losses.sum(axis=1).min())
        others = [np.median(np.delete(prices, i)) for i in range(len(prices))]
        by_twins.append(smape_rows(prices, np.array(others)).sum())
    return {
        "n_rows": len(shared),
        "twin_smape": float(np.sum(by_twins) / len(shared)),
        "floor": float(np.sum(at_best) / len(shared)),
        "smape": float(rows.loss[shared].mean()),
    }
