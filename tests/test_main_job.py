"""Heads and blend together, on prices that depend on the rows and on random prices."""

import numpy as np
import pytest

from ensemble.blend import run_blend
from heads.run import run_heads
from store.config import Config, HeadConfig, save_config
from store.metric import smape_rows
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

N_ROWS = 400
KINDS = ["tea", "coffee", "soap", "oil", "salt"]


def blended(tmp_path, *, shuffled):
    """Log prices, and what the blend of three heads says of them; kind and vector decide an unshuffled price."""
    random = np.random.default_rng(0)
    kind, X = random.integers(len(KINDS), size=N_ROWS), random.standard_normal((N_ROWS, 8))
    log_price = 2 + 0.5 * kind + 0.5 * X[:, 0] + random.normal(0, 0.1, N_ROWS)
    if shuffled:
        log_price = random.permutation(log_price)
    rows = [
        {"sample_id": i, "text": f"{KINDS[kind[i]]} {i}", "name": KINDS[kind[i]], "price": float(np.exp(y))}
        for i, y in enumerate(log_price)
    ]
    workspace = Workspace(tmp_path / "w")
    publish_catalog(workspace, catalog_table(rows))
    publish_vectors(workspace, VectorSet("fake", "full"), {"train": X})
    config = Config(heads=HeadConfig(run=("ridge", "neighbours", "sparse"), vectors=("fake@full",)))
    save_config(workspace, config)
    assert [head.status for head in run_heads(workspace, config)] == ["trained"] * 3
    return log_price, run_blend(workspace)["scores"]


@pytest.mark.parametrize("shuffled", [False, True])
def test_only_prices_that_mean_something_are_blended_better_than_their_median(tmp_path, shuffled):
    log_price, scores = blended(tmp_path, shuffled=shuffled)
    of_median = smape_rows(log_price, np.full(N_ROWS, np.median(log_price)))
    noise = 2 * of_median.std() / np.sqrt(N_ROWS)
    if shuffled:
        assert scores["nested"] > of_median.mean() - noise
        assert scores["naive"] > of_median.mean() - noise
    else:
        assert scores["nested"] < of_median.mean() / 2
