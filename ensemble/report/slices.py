"""The score of each slice of the rows, and which slices are significantly worse, or priced too high or too low.

A slice is marked where its mean loss, or its mean log error, is further from that of the rest than the most extreme
slice would be in 99 of 100 catalogues whose rows were dealt to the slices at random: whole groups are dealt out anew
and the largest statistic over all slices is kept (Westfall and Young 1993), so that looking at many slices marks no
more of them. Findings are then taken one by one, each on the rows that the ones before did not explain.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ensemble.groups import MOST_SMAPE, gain_and_error
from ensemble.report.dimensions import Dimension, cut
from store.metric import smape_rows

LEVEL = 0.99  # of catalogues without any fault, in which no slice is marked
NORMAL_95 = 1.959964
MIN_GROUPS = 10  # of a slice, and of the rest, for a mark
MOST_FINDINGS = 12
MOST_DEALS, LEAST_DEALS = 1000, 300
_WORK = 4e8  # deals times entries
_DEALS_PER_BLOCK = 50

Kind = Literal["worse", "too high", "too low"]


@dataclass(frozen=True)
class Slice:
    """Rows that share something."""

    dimension: str
    label: str
    n_rows: int
    n_groups: int
    smape: float
    interval: tuple[float, float]  # of that, 95%
    rest: float  # SMAPE of all other rows
    bias: float  # median of predicted over true price, less 1: 0.3 is 30% too high
    covered: float | None  # share of rows inside their interval
    marks: tuple[Kind, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class SliceFinding:
    """A slice that something is surely wrong with, and that no other finding explains."""

    slice: Slice
    kind: Kind
    # Of the whole score, that would go if the slice were as good as the rest, or of prices off by its middle error.
    points: float

    def to_json(self) -> dict[str, Any]:
        return self.slice.to_json() | {"kind": self.kind, "points": self.points, "words": self.words}

    @property
    def words(self) -> str:
        """One sentence."""
        one = self.slice
        score = f"SMAPE {one.smape:.1f} against {one.rest:.1f} of the rest"
        off = f"priced {abs(one.bias):.0%} too {'high' if one.bias > 0 else 'low'}"
        if self.kind != "worse":
            said = f"{off}; {score}"
        else:
            said = f"{score}; {off}" if set(one.marks) - {"worse"} else score
        return f"{cut(one.dimension)} {cut(one.label)!r}: {said} ({one.n_rows:,} rows)"


@dataclass(frozen=True)
class _Member:
    """One slice by its rows, and by groups."""

    dimension: Dimension
    label: str
    rows: np.ndarray  # positions


def score_slices(
    dimensions: Sequence[Dimension],
    loss: np.ndarray,
    error: np.ndarray,
    group: np.ndarray,
    seed: int,
    inside: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> tuple[dict[str, list[Slice]], list[SliceFinding]]:
    """Every slice with its score and marks, and the findings, the costliest first.

    Whether a slice is priced too high is told by SMAPE with the sign of the error, which no single row can decide.

    Args:
        loss: SMAPE of each row, shape (n_rows,).
        error: log of predicted over true price, shape (n_rows,).
        group: shape (n_rows,): rows of one group are one draw.
        inside: whether the true price lies in the row's interval, shape (n_rows,), NaN where there is none; None: not known.
        weight: what each row counts in the whole score, > 0, shape (n_rows,), by which findings have their points;
            None: all alike.
    """
    counts = np.ones(len(loss)) if weight is None else weight
    index = np.unique(group, return_inverse=True)[1]
    members = [
        _Member(one, label, np.flatnonzero(one.codes == at))
        for one in dimensions
        for at, label in enumerate(one.labels)
        if (one.codes == at).any()
    ]
    tested = [at for at, one in enumerate(members) if one.dimension.is_tested and _is_large(one.rows, index)]
    signed = np.copysign(loss, error)
    least = _critical([members[at].rows for at in tested], loss, signed, index, seed)
    everything = np.ones(len(loss), bool)
    marks: dict[int, tuple[Kind, ...]] = {}
    for at in tested:
        by_kind = _statistics(members[at].rows, everything, loss, signed, index)
        marks[at] = tuple(kind for kind, value in by_kind.items() if value > least)
    scored = [_score(one, loss, error, index, inside, marks.get(at, ())) for at, one in enumerate(members)]
    found = _findings([(at, members[at].rows, scored[at]) for at in tested], least, loss, signed, index)
    found = [
        (at, replace(one, points=_points(one, members[at].rows, loss, error, counts))) for at, one in found
    ]
    found = [
        (at, one) for at, one in found if one.points > 0
    ]  # worse than what is left may be better than all
    for at, one in found:  # the first ones may have hidden it
        scored[at] = replace(scored[at], marks=tuple(dict.fromkeys((*scored[at].marks, one.kind))))
    by_dimension: dict[str, list[Slice]] = {one.name: [] for one in dimensions}
    for piece in scored:
        by_dimension[piece.dimension].append(piece)
    findings = [replace(one, slice=scored[at]) for at, one in found]
    return by_dimension, sorted(findings, key=lambda one: -one.points)


def _points(
    one: SliceFinding, rows: np.ndarray, loss: np.ndarray, error: np.ndarray, counts: np.ndarray
) -> float:
    """What mending a slice would take off the whole score."""
    own = counts[rows] / counts.sum()
    if one.kind == "worse":
        rest = np.delete(np.arange(len(loss)), rows)
        left = np.average(loss[rest], weights=counts[rest])
    else:
        left = smape_rows(np.zeros(len(rows)), error[rows] - np.median(error[rows]))
    return float(own @ (loss[rows] - left))


def _is_large(rows: np.ndarray, index: np.ndarray) -> bool:
    """Whether a slice and the rest hold enough groups to tell anything."""
    n_here = len(np.unique(index[rows]))
    outside = np.ones(len(index), bool)
    outside[rows] = False
    return n_here >= MIN_GROUPS and len(np.unique(index[outside])) >= MIN_GROUPS


def _score(
    one: _Member,
    loss: np.ndarray,
    error: np.ndarray,
    index: np.ndarray,
    inside: np.ndarray | None,
    marks: tuple[Kind, ...],
) -> Slice:
    rows = one.rows
    known = None if inside is None else inside[rows][~np.isnan(inside[rows].astype(float))]
    mean, deviation = gain_and_error(loss[rows], index[rows])
    n_rest = len(loss) - len(rows)
    rest = (loss.sum() - loss[rows].sum()) / n_rest if n_rest else mean
    reach = NORMAL_95 * deviation
    return Slice(
        one.dimension.name,
        one.label,
        len(rows),
        len(np.unique(index[rows])),
        mean,
        (max(mean - reach, 0.0), min(mean + reach, MOST_SMAPE)),
        float(rest),
        float(np.expm1(np.median(error[rows]))),
        None if known is None or not len(known) else float(known.mean()),
        marks,
    )


def _statistics(
    rows: np.ndarray, left: np.ndarray, loss: np.ndarray, signed: np.ndarray, index: np.ndarray
) -> dict[Kind, float]:
    """How many standard errors a slice is worse, too high and too low, among the rows that are `left`."""
    here = np.zeros(len(loss), bool)
    here[rows] = True
    here &= left
    rest = left & ~here
    found: dict[Kind, float] = {"worse": _distance(loss, here, left, index)}
    apart = _distance(signed, here, left, index)
    # Of a slice and its complement, which are equally far apart, the one is at fault that is further from no error.
    is_at_fault = abs(np.median(signed[here])) > abs(np.median(signed[rest])) if rest.any() else False
    found["too high"] = apart if is_at_fault else 0.0
    found["too low"] = -apart if is_at_fault else 0.0
    return found


def _distance(values: np.ndarray, here: np.ndarray, left: np.ndarray, index: np.ndarray) -> float:
    """Sum over the slice of what its rows are above the mean, in standard errors.

    The error is the larger one of two: as if groups were dealt out at random, and by the slice's own spread.
    """
    above = values - values[left].mean()
    n_groups = int(index.max()) + 1
    counts = np.bincount(index[here], minlength=n_groups).astype(float)
    sums = np.bincount(index[here], above[here], minlength=n_groups)
    of_group = np.bincount(index[left], above[left], minlength=n_groups)
    size = np.bincount(index[left], minlength=n_groups)
    present = size > 0
    total, spread = _spreads(
        counts[present][None, :], (of_group[present] / size[present])[:, None], sums[present][None, :]
    )
    return float(total[0, 0] / spread[0, 0]) if spread[0, 0] > 0 else 0.0


def _spreads(counts: Any, dealt: np.ndarray, sums: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Total of each slice above the mean and its standard error, both of shape (n_slices, n_deals).

    Args:
        counts: rows of each group in each slice, shape (n_slices, n_groups), dense or sparse.
        dealt: mean of each group, shape (n_groups, n_deals), of mean 0.
        sums: what the groups add up to in the slices, shape (n_slices, n_groups); None: counts times means.
    """
    squares = counts.multiply(counts) if hasattr(counts, "multiply") else counts * counts
    dealt = dealt - dealt.mean(axis=0)
    n_groups = dealt.shape[0]
    n_rows = np.asarray(counts.sum(axis=1)).reshape(-1, 1)
    of_squares = np.asarray(squares.sum(axis=1)).reshape(-1, 1)
    if sums is None:
        total = np.asarray(counts @ dealt)
        own = np.asarray(squares @ dealt**2)
        crossed = np.asarray(squares @ dealt)
    else:
        total = sums.sum(axis=1, keepdims=True)
        own = (sums**2).sum(axis=1, keepdims=True)
        crossed = (sums * counts).sum(axis=1, keepdims=True)
    mean = total / np.maximum(n_rows, 1)
    own_variance = np.maximum(own - 2 * mean * crossed + mean**2 * of_squares, 0.0)
    dealt_variance = (dealt**2).sum(axis=0) / max(n_groups - 1, 1) * (of_squares - n_rows**2 / n_groups)
    return total, np.sqrt(np.maximum(own_variance, np.maximum(dealt_variance, 0.0)))


def _critical(
    slices: Sequence[np.ndarray], loss: np.ndarray, signed: np.ndarray, index: np.ndarray, seed: int
) -> float:
    """The distance that no slice reaches in `LEVEL` of the catalogues without fault."""
    from scipy.sparse import csr_matrix

    if not slices:
        return np.inf
    n_groups = int(index.max()) + 1
    which = np.repeat(np.arange(len(slices)), [len(rows) for rows in slices])
    at = index[np.concatenate(slices)]
    counts = csr_matrix((np.ones(len(at)), (which, at)), shape=(len(slices), n_groups))
    size = np.bincount(index)
    means = [np.bincount(index, values - values.mean()) / size for values in (loss, signed)]
    n_deals = int(np.clip(_WORK / counts.nnz, LEAST_DEALS, MOST_DEALS))
    generator = np.random.default_rng(seed)
    largest = []
    for start in range(0, n_deals, _DEALS_PER_BLOCK):
        n_here = min(_DEALS_PER_BLOCK, n_deals - start)
        deal = np.stack([generator.permutation(n_groups) for _ in range(n_here)], axis=1)
        distances = []
        for values, two_sided in ((means[0], False), (means[1], True)):
            total, spread = _spreads(counts, values[deal])
            distance = np.divide(total, spread, out=np.zeros_like(total), where=spread > 0)
            distances.append(np.abs(distance) if two_sided else distance)
        largest.append(np.max(np.concatenate(distances), axis=0))
    ordered = np.sort(np.concatenate(largest))
    return float(ordered[min(int(np.ceil(LEVEL * (n_deals + 1))) - 1, n_deals - 1)])


def _findings(
    slices: Sequence[tuple[int, np.ndarray, Slice]],
    least: float,
    loss: np.ndarray,
    signed: np.ndarray,
    index: np.ndarray,
) -> list[tuple[int, SliceFinding]]:
    """Findings and the positions of their slices, most certain first; each counts only rows of no earlier one."""
    left = np.ones(len(loss), bool)
    open_ = {at: (rows, one) for at, rows, one in slices}
    found: list[tuple[int, SliceFinding]] = []
    while len(found) < MOST_FINDINGS:
        best: tuple[float, int, Kind] | None = None
        for at, (rows, _) in list(open_.items()):
            if len(np.unique(index[rows[left[rows]]])) < MIN_GROUPS:
                del open_[at]
                continue
            for kind, value in _statistics(rows, left, loss, signed, index).items():
                if value > least and (best is None or value > best[0]):
                    best = value, at, kind
        if best is None:
            break
        rows, one = open_.pop(best[1])
        found.append((best[1], SliceFinding(one, best[2], 0.0)))
        left[rows] = False
    return found
