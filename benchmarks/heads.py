"""Heads on 75,000 x 2,432 made-up fp16 vectors, 5 folds: ridge, lightgbm, mlp-layernorm; seconds, memory, peers.

The peers would take hours, so each is timed on a part and extrapolated: XGBoost on its first trees, the
DataLoader on the same epochs. Errors of the boosters are compared on fewer rows, both trained to the end.
Folds, early stopping and the refit count for the heads; the peers are one fit a fold.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Result, main
from benchmarks.vectors import Drawn, draw
from heads.base import Head
from heads.features.rows import Rows
from heads.folds.crossfit import crossfit
from store.metric import smape_log

ROWS, COLUMNS, FOLDS = 75_000, 2_432, 5
BASELINE = {"max_depth": 7, "learning_rate": 0.05, "tree_method": "hist"}  # the winning system's XGBoost
BASELINE_TREES, TIMED_TREES = 1_000, 10
ERROR_ROWS = 4_000
WARM_ROWS = 300
EPOCHS, BATCH_ROWS = 8, 512  # as the head takes for so many rows
MOST_SECONDS, MOST_GIGABYTES, BOOSTER_RATIO, LOADER_RATIO = 20.0, 6.0, 5.0, 3.0


def measure(data: Path, rows: int | None) -> list[Result]:
    """Our heads first, one after the other in this process, for its peak memory; then the peers."""
    from heads.linear.ridge import Ridge
    from heads.networks.mlp import MlpLayerNorm
    from heads.trees.lightgbm import LightGBM

    drawn = draw(rows or ROWS, COLUMNS, FOLDS)
    floor = smape_log(drawn.log_price, drawn.signal)
    shape = {"rows": len(drawn.X), "columns": COLUMNS, "folds": FOLDS}
    ridge, ridge_smape = _seconds_and_smape(Ridge(), drawn)
    boosted, boosted_smape = _seconds_and_smape(LightGBM(), drawn)
    recipe = {"epochs": EPOCHS, "patience": EPOCHS, "seeds": 1}
    before = _loader_seconds(drawn)
    network, network_smape = _seconds_and_smape(MlpLayerNorm(**recipe), drawn)
    loader = (before + _loader_seconds(drawn)) / 2
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    trees, rate = _baseline_seconds(drawn)
    errors = _errors(min(ERROR_ROWS, len(drawn.X)))
    return [
        Result.at_most("ridge seconds", ridge, MOST_SECONDS, smape=ridge_smape, floor_smape=floor, **shape),
        Result.at_least(
            "lightgbm over the baseline's XGBoost settings",
            trees / boosted,
            BOOSTER_RATIO,
            f"XGBoost's seconds are those of {TIMED_TREES} trees of one fold, times {rate:.0f}",
            seconds=boosted,
            peer_seconds=trees,
            smape=boosted_smape,
            floor_smape=floor,
        ),
        Result.at_most(
            "lightgbm's error over the baseline's",
            errors["smape"] / errors["peer_smape"],
            1.0,
            f"one fold of {ERROR_ROWS} rows held out, {BASELINE_TREES} trees of XGBoost",
            **errors,
        ),
        Result.at_least(
            "mlp-layernorm over a DataLoader fold by fold",
            loader / network,
            LOADER_RATIO,
            f"{EPOCHS} epochs of both, {BATCH_ROWS} rows a step; the DataLoader's seconds are those of one epoch of one fold, before and after, times {EPOCHS * FOLDS}",
            seconds=network,
            peer_seconds=loader,
            smape=network_smape,
        ),
        Result.at_most(
            "peak gigabytes of the three heads",
            gigabytes,
            MOST_GIGABYTES,
            "whole process, the vectors included",
        ),
    ]


def _seconds_and_smape(head: Head, drawn: Drawn) -> tuple[float, float]:
    """Of all folds and a refit where the head makes one, once its libraries are loaded."""
    head.clone().fit(Rows.from_array(drawn.X[:WARM_ROWS]), drawn.log_price[:WARM_ROWS])
    table = Rows.from_array(drawn.X)
    started = time.perf_counter()
    result = crossfit(head, table, drawn.log_price, drawn.fold)
    seconds = time.perf_counter() - started
    print(f"{head.name}: {seconds:.1f} s", file=sys.stderr)
    return seconds, smape_log(drawn.log_price, result.oof)


def _baseline_seconds(drawn: Drawn) -> tuple[float, float]:
    """Seconds of 1,000 trees a fold as the winning system asks for them, and what the timed ones were multiplied by."""
    import xgboost

    inside = drawn.fold != 0
    X, y = drawn.X[inside].astype(np.float32), np.log1p(np.exp(drawn.log_price[inside]))
    started = time.perf_counter()
    binned = xgboost.QuantileDMatrix(X, label=y)
    binning = time.perf_counter() - started
    xgboost.train(BASELINE, binned, num_boost_round=1)
    started = time.perf_counter()
    xgboost.train(BASELINE, binned, num_boost_round=TIMED_TREES)
    times = BASELINE_TREES / TIMED_TREES * FOLDS
    return FOLDS * binning + times * (time.perf_counter() - started), times


def _loader_seconds(drawn: Drawn) -> float:
    """Seconds of the same epochs and folds, trained as most code does: rows one by one through a DataLoader."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from heads.networks.layers import layer_norm_mlp
    from heads.networks.losses import huber_log_loss

    inside = np.flatnonzero(drawn.fold != 0)
    X, y = drawn.X[inside], drawn.log_price[inside].astype(np.float32)
    mean, spread = X[:BATCH_ROWS].mean(axis=0, dtype=np.float32), X[:BATCH_ROWS].std(axis=0, dtype=np.float32)

    class Vectors(Dataset):
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
            row = (X[i].astype(np.float32) - mean) / spread
            return torch.from_numpy(row), torch.tensor(y[i] - 3.0)

    network = layer_norm_mlp(COLUMNS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    started = time.perf_counter()
    for features, target in DataLoader(Vectors(), BATCH_ROWS, shuffle=True):
        loss = huber_log_loss(network(features)[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return (time.perf_counter() - started) * EPOCHS * FOLDS


def _errors(n_rows: int) -> dict[str, float]:
    """SMAPE of one held-out fold of fewer rows: lightgbm and the baseline's 1,000 trees."""
    import xgboost

    from heads.trees.lightgbm import LightGBM

    few = draw(n_rows, COLUMNS, FOLDS)
    inside, outside = np.flatnonzero(few.fold != 0), np.flatnonzero(few.fold == 0)
    rows, actual = Rows.from_array(few.X), few.log_price[outside]
    head = LightGBM().fit(rows.subset(inside), few.log_price[inside])
    X, y = few.X[inside].astype(np.float32), np.log1p(np.exp(few.log_price[inside]))
    booster = xgboost.train(BASELINE, xgboost.QuantileDMatrix(X, label=y), num_boost_round=BASELINE_TREES)
    peer = booster.inplace_predict(few.X[outside].astype(np.float32)).astype(np.float64)
    return {
        "smape": smape_log(actual, head.predict(rows.subset(outside))),
        "peer_smape": smape_log(actual, np.log(np.maximum(np.expm1(peer), 0.01))),
        "floor_smape": smape_log(actual, few.signal[outside]),
        "rows": n_rows,
    }


if __name__ == "__main__":
    main(measure)
