"""Test rows whose prices the test file gave: the score of the submission on them. No model learns from these prices."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from ensemble.blend import INTERVAL_LEVEL, PRICE_FLOOR
from ensemble.groups import bootstrap_interval
from ensemble.report.rows import expected_score
from ensemble.submission import price_test_rows
from store.catalog.ingest.publish import HOLDOUT_FILE
from store.catalog.read import present_splits, read_split
from store.metric import smape_rows
from store.workspace import Workspace


def score_holdout(workspace: Workspace, record: dict[str, Any], seed: int) -> dict[str, Any] | None:
    """The blend's score on test rows of known price; None where there are none.

    Args:
        record: blend.json with its folder.

    Returns:
        `n_rows`, `smape`, its `interval`, `expected` and `expected_interval` (what the honest score said before),
        `is_as_expected`, `covered` (share of prices inside their interval) and its `stated` probability.
    """
    if "test" not in present_splits(workspace) or not workspace.exists(HOLDOUT_FILE):
        return None
    known = workspace.read_table(HOLDOUT_FILE)
    sample_id = read_split(workspace, "test", ["sample_id"])["sample_id"].combine_chunks()
    at = pc.index_in(known["sample_id"].combine_chunks(), value_set=sample_id)
    found = np.asarray(at.is_valid())
    if not found.any():
        return None
    place = at.drop_null().to_numpy()
    log_actual = np.log(known["price"].to_numpy()[found])
    prices = price_test_rows(workspace, record, sample_id)
    lowest = np.log(record["inputs"].get("price_floor", PRICE_FLOOR))
    log_price, half_width = np.maximum(prices.log_price[place], lowest), prices.half_width[place]
    loss = smape_rows(log_actual, log_price)
    interval = bootstrap_interval(loss, np.arange(len(loss)), seed, INTERVAL_LEVEL)
    expected, (low, high) = expected_score(record)
    return {
        "n_rows": len(loss),
        "smape": float(loss.mean()),
        "interval": list(interval),
        "expected": expected,
        "expected_interval": [low, high],
        "is_as_expected": bool(low <= loss.mean() <= high),
        "covered": float((np.abs(log_price - log_actual) <= half_width).mean()),
        "stated": record["intervals"]["coverage"],
    }
