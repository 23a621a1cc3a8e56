"""Checks that features predict prices; where they don't, prices are probably assigned to the wrong rows."""

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import TrainingEvidence, compress
from ensemble.audit.shuffled import N_COMPONENTS, SURE, fold_medians, out_of_fold
from ensemble.groups import gain_and_error
from store.metric import smape_rows

LEAST_GAIN = 0.01  # of the median's score


def check_signal(rows: TrainingEvidence, seed: int) -> Check:
    """Ridge on the cached vectors and fields against the median."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(inside: np.ndarray) -> np.ndarray:
        return compress(list(rows.blocks.values()), inside, N_COMPONENTS, seed)

    if rows.blocks.keys() <= {"fields"}:
        return Check(
            "signal", "skipped", "No vectors of the training rows: what they tell of prices can't be seen."
        )
    predicted = out_of_fold(
        lambda: make_pipeline(StandardScaler(), Ridge(30.0)), features, rows.log_actual, rows.fold
    )
    median_loss = smape_rows(rows.log_actual, fold_medians(rows.log_actual, rows.fold))
    loss = smape_rows(rows.log_actual, predicted)
    gain, error = gain_and_error(median_loss - loss, rows.group)
    figures = {"median_smape": float(median_loss.mean()), "ridge_smape": float(loss.mean()), "gain": gain,
               "gain_error": error, "n_rows": len(loss)}  # fmt: skip
    scores = f"ridge {figures['ridge_smape']:.2f}, median {figures['median_smape']:.2f}, gain {gain:+.2f} ± {error:.2f}"
    if gain <= SURE * error or gain <= LEAST_GAIN * figures["median_smape"]:
        words = (
            f"Features tell nothing of the price ({scores}): prices may stand in other rows than their own, as after a "
            "shuffle or a wrong join, or the vectors are of another catalogue."
        )
        return Check("signal", "caution", words, figures)
    return Check("signal", "ok", f"Features tell the price ({scores}).", figures)
