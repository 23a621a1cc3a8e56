"""Test rows whose prices the test file gave: the score of the submission on them. No model learns from these prices."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from ensemble.blend import INTERVAL_LEVEL
from ensemble.groups import MOST_SMAPE, bootstrap_interval
from ensemble.report.rows import ReportRows, expected_score
from ensemble.submission import price_test_rows
from store.catalog.ingest.publish import HOLDOUT_FILE, lost_holdout
from store.catalog.read import present_splits, read_split
from store.folds.relatives import read_relatives
from store.metric import smape_rows
from store.workspace import Workspace


def score_holdout(workspace: Workspace, rows: ReportRows, seed: int) -> dict[str, Any] | None:
    """The blend's score on test rows of known price; None where there are none.

    Returns:
        `n_rows`, `smape`, its `interval`, `expected` and `expected_interval` (what the honest score said before of so
        many rows), `is_as_expected`, `covered` (share of prices inside their interval) and its `stated` probability.

    Raises:
        WorkspaceError: there were some, and their file is gone.
    """
    if "test" not in present_splits(workspace):
        return None
    if not workspace.exists(HOLDOUT_FILE) and not lost_holdout(workspace):
        return None
    known = workspace.read_table(HOLDOUT_FILE)
    sample_id = read_split(workspace, "test", ["sample_id"])["sample_id"].combine_chunks()
    at = pc.index_in(known["sample_id"].combine_chunks(), value_set=sample_id)
    found = np.asarray(at.is_valid())
    if not found.any():
        return None
    place = at.drop_null().to_numpy()
    log_actual = np.log(known["price"].to_numpy()[found])
    record = rows.record
    prices = price_test_rows(workspace, record, sample_id)
    log_price, start, end = (
        np.maximum(z[place], rows.floor) for z in (prices.log_price, prices.low, prices.high)
    )
    loss = smape_rows(log_actual, log_price)
    relatives = read_relatives(workspace)
    product = relatives.product[relatives.n_train :][place]
    interval = bootstrap_interval(loss, product, seed, INTERVAL_LEVEL)
    expected, _ = expected_score(record)
    low, high = expected_of(rows, len(loss))
    return {
        "n_rows": len(loss),
        "smape": float(loss.mean()),
        "interval": list(interval),
        "expected": expected,
        "expected_interval": [low, high],
        "is_as_expected": bool(low <= loss.mean() <= high),
        "covered": float(((start <= log_actual) & (log_actual <= end)).mean()),
        "stated": record["intervals"]["coverage"],
    }


def expected_of(rows: ReportRows, n_new: int) -> tuple[float, float]:
    """The interval of the expected score, where the mean is of `n_new` rows and not of all test rows.

    Its variance is that of the known mean and that of the new one, which so much fewer rows make larger.
    """
    from scipy.stats import norm

    record = rows.record
    scores, n_test = record["scores"], record["n_test"]
    expected, (low, high) = expected_score(record)
    factor = scores.get("expected", {"test": {"size_factor": 1.0}})["test"]["size_factor"]
    mean = np.average(rows.loss, weights=rows.counts)
    spread = np.average((rows.loss - mean) ** 2, weights=rows.counts)
    more = 1 / n_new - (1 / n_test if n_test else 0.0)
    beyond = float(norm.ppf((1 + scores["interval_level"]) / 2)) * factor * np.sqrt(spread * more)
    reach = float(np.hypot(max(expected - low, high - expected), beyond))
    return max(expected - reach, 0.0), min(expected + reach, MOST_SMAPE)
