"""The learning curve: heads trained on nested parts of the rows, and what more rows would bring."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ensemble.groups import MOST_SMAPE
from ensemble.report.refit import (
    AT_WORST,
    Progress,
    Refitted,
    each_refit,
    inputs_of,
    out_of_fold,
    quick_heads,
    within,
)
from ensemble.report.rows import ReportRows
from store.errors import MissingVectorsError
from store.workspace import Workspace

MEASURED = (0.25, 0.5, 0.75)  # of the rows, beside all of them
SHOWN = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
N_DRAWS = 500
NORMAL_95 = 1.959964
_DRAWS_PER_BLOCK = 50


def learning_curve(
    workspace: Workspace, rows: ReportRows, seconds: float, seed: int, progress: Progress = lambda said: None
) -> dict[str, Any]:
    """The score that is to be expected at 25 to 200% of the rows.

    The quickest heads are trained on 25, 50 and 75% of the groups, each part within the next, and predict every row
    of the fold left out; with all rows they were trained before. Their average follows a power law of the number of
    rows, by which the blend's score is taken further.

    Args:
        seconds: that training may take, by what it took before.

    Returns:
        `points` (share, n_rows, smape, interval, measured), `heads`, `law` and `skipped`: why there is no curve.
    """
    heads = quick_heads(workspace, rows)
    # A head's training is a refit on all rows as well as its folds, parts have no refit of all rows.
    chosen = within(heads, seconds, lambda one: sum(MEASURED) * one.seconds)
    if not chosen:
        return {"skipped": _why_not(heads, seconds), "points": [], "heads": []}
    try:
        inputs = inputs_of(workspace, chosen)
    except MissingVectorsError as error:
        return {"skipped": str(error), "points": [], "heads": []}
    part = nested_parts(inputs.train.group, seed)
    progress(f"learning curve: {', '.join(one.name for one in chosen)} on parts of the rows")

    def trained(asked: tuple[float, Refitted]) -> np.ndarray:
        share, one = asked
        return out_of_fold(one, inputs.train, inputs, part < share)

    found = each_refit(trained, list(product(MEASURED, chosen)), chosen)
    of_shares = np.reshape(found, (len(MEASURED), len(chosen), -1))
    losses = [rows.losses(log_prices.mean(axis=0)[rows.position]) for log_prices in of_shares]
    losses.append(rows.losses(np.mean([one.log_price for one in chosen], axis=0)))
    return curve_of(losses, rows.losses(rows.log_price), rows.training.group, seed) | {
        "heads": [one.name for one in chosen],
        "is_complete": len(chosen) == len(heads),
        "skipped": None,
    }


def nested_parts(group: np.ndarray, seed: int) -> np.ndarray:
    """For each row, of shape (n_rows,), the share of the rows from which on it is among those fitted on.

    Groups stay whole; those of a share are among those of every larger one.
    """
    index = np.unique(group, return_inverse=True)[1]
    size = np.bincount(index)
    order = np.random.default_rng(seed).permutation(len(size))
    before = np.empty(len(size))
    before[order] = (np.cumsum(size[order]) - size[order]) / len(group)
    return before[index]


def curve_of(
    losses: Sequence[np.ndarray], blend_loss: np.ndarray, group: np.ndarray, seed: int
) -> dict[str, Any]:
    """Power law through the mean losses at `MEASURED` and at all rows, drawn anew by groups for its interval.

    The interval adds the law's own misfit to what drawing other groups changes.
    """
    index = np.unique(group, return_inverse=True)[1]
    columns = [*losses, blend_loss]
    sums = np.stack([np.bincount(index, loss) for loss in columns] + [np.bincount(index)], axis=1)
    shares, shown = np.log((*MEASURED, 1.0)), np.log(SHOWN)
    total = sums.sum(axis=0)
    expected, slope, misfit = _extended(total[None, :], shares, shown)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, N_DRAWS, _DRAWS_PER_BLOCK):
        weight = generator.poisson(1.0, (min(_DRAWS_PER_BLOCK, N_DRAWS - start), len(sums)))
        drawn.append(_extended(weight @ sums, shares, shown)[0])
    spread = np.std(np.log(np.concatenate(drawn)), axis=0)
    # Standard error of the line at each share, from how far the measured points lie off it.
    apart = shares - shares.mean()
    reach_of_misfit = misfit[0] * np.sqrt(1 / len(shares) + (shown - shares.mean()) ** 2 / (apart**2).sum())
    reach = np.sqrt((NORMAL_95 * spread) ** 2 + (STUDENT_2 * reach_of_misfit) ** 2)
    ratio = float(total[len(losses)] / total[len(losses) - 1])
    points: list[dict[str, Any]] = [
        {
            "share": share,
            "n_rows": round(share * len(group)),
            "smape": float(middle),
            "interval": [float(middle * np.exp(-far)), min(float(middle * np.exp(far)), MOST_SMAPE)],
            "measured": None,
        }
        for share, middle, far in zip(SHOWN, expected[0], reach, strict=True)
    ]
    found = dict(zip((*MEASURED, 1.0), (total[: len(losses)] / total[-1] * ratio).tolist(), strict=True))
    for point in points:
        point["measured"] = found.get(point["share"])
    return {"points": points, "law": {"exponent": float(slope[0]), "misfit": float(misfit[0])}}


STUDENT_2 = 4.302653  # 97.5% quantile with two degrees of freedom: four points, two parameters


def _extended(
    sums: np.ndarray, shares: np.ndarray, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The blend's score at the shares shown, shape (n_draws, n_shown), the exponent and the misfit of each draw.

    Args:
        sums: of the losses at each measured share, of the blend's and of rows, shape (n_draws, n_measured + 2).
    """
    n = len(shares)
    log_mean = np.log(sums[:, :n] / sums[:, -1:])
    apart = shares - shares.mean()
    slope = np.minimum((log_mean * apart).sum(axis=1) / (apart**2).sum(), 0.0)  # more rows do no harm
    middle = log_mean.mean(axis=1)
    off = log_mean - (middle[:, None] + slope[:, None] * apart)
    misfit = np.sqrt((off**2).sum(axis=1) / max(n - 2, 1))
    line = middle[:, None] + slope[:, None] * (shown - shares.mean())
    at_all_rows = middle + slope * (shares[-1] - shares.mean())
    blend = np.log(sums[:, n] / sums[:, -1]) - at_all_rows
    return np.exp(line + blend[:, None]), slope, misfit


def _why_not(heads: Sequence[Refitted], seconds: float) -> str:
    if not heads:
        return "no head of the blend can be trained again with the same parameters"
    takes = sum(MEASURED) * heads[0].seconds
    return f"even {heads[0].name} would take about {takes:.0f} s, more than {AT_WORST:.0f} times the {seconds:.0f} s that were given"
