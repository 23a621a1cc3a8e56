"""Compares encoders on a sample of rows, each by a ridge regression on its vectors alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embed.encoders.base import Resolved, Sources
from embed.forward.devices import DeviceSettings
from embed.inputs.batch import RowWindow
from embed.job.catalog import CatalogSource
from embed.job.limits import FailureLimits
from embed.job.plan import plan_encoder
from embed.job.report import duration
from embed.job.request import find_requests
from embed.job.run import EmbedOptions, EncodeRequest, Runner, run
from embed.job.source import SplitKeys, WantedKeys
from store.catalog.images.links import known_links
from store.catalog.read import read_split
from store.config import Config
from store.errors import ConfigError
from store.folds.assign import ensure_folds, sample_of_groups
from store.metric import gain_and_error, smape_rows
from store.vectors.keys import key_array
from store.vectors.matrix import gather
from store.vectors.sets import VectorSet, columns_of, row_keys
from store.workspace import Workspace

SAMPLE_ROWS = 2000
LEAST_TIMED = 20  # contents embedded, below which a speed says nothing
ALPHAS = tuple(10.0 ** np.arange(-2, 6))
NORMAL_95 = 1.959964

Say = Callable[[str], None]


@dataclass(frozen=True)
class ComparedSet:
    """One vector set, compared with the first one that was named."""

    vectors: str
    dim: int
    smape: float  # out of fold, of a ridge regression on these vectors alone
    difference: float  # less that of the first set on the same rows: below 0 is better
    difference_interval: tuple[float, float] | None  # 95%, over groups; None: of the first set
    adds: float | None  # SMAPE that the first set gains with these vectors beside it
    adds_interval: tuple[float, float] | None
    without_vector: float  # share of the rows
    rows_per_second: float | None  # contents a second; None: too few were embedded here to tell
    n_missing: int  # contents of all rows that a full run would embed
    seconds: float | None  # that this would take
    n_rows: int


@dataclass(frozen=True)
class SampleSource:
    """Some training rows of a catalogue. Implements `embed.job.source.Source`."""

    whole: CatalogSource
    rows: pa.Table

    def wanted(self) -> WantedKeys:
        known = known_links(self.whole.workspace)
        sets = {}
        for vector_set in self.whole.vector_sets:
            keys = key_array(row_keys(vector_set, self.rows, known))
            distinct, counts = np.unique(keys, return_counts=True)
            sets[str(vector_set)] = {"train": SplitKeys(len(self.rows), len(keys), distinct, counts)}
        return WantedKeys(sets)

    def windows(self, missing: np.ndarray) -> Iterator[RowWindow]:
        return self.whole.windows(missing)


def compare_encoders(
    workspace: Workspace,
    config: Config,
    names: Sequence[str],
    n_rows: int = SAMPLE_ROWS,
    *,
    sources: Sources | None = None,
    precision: str = "auto",
    device: str = "auto",
    say: Say = lambda line: None,
) -> list[ComparedSet]:
    """Embed a sample of the training rows with each encoder and score a ridge regression on each one's vectors.

    Of a row with several images the first is embedded. Vectors of the sample go into the cache, where `embed run`
    finds them. The fingerprint that an encoder's name means, heads and blend are not changed.

    Args:
        names: encoders or vector sets; one of images and one of texts may be compared.
        n_rows: about how many training rows to look at, whole groups.

    Raises:
        ConfigError: fewer than two vector sets are named, or a composition is unknown.
        EncoderError: an unknown encoder, or its files are missing.
        CatalogError: nothing was ingested.
    """
    requests = find_requests(workspace, names, sources or Sources(None, False), precision)
    sets = [(request, one) for request in requests for one in _sets(request)]
    if len(sets) < 2:
        found = ", ".join(str(one) for _, one in sets) or "none"
        raise ConfigError(f"a comparison takes two vector sets or more, got {found}")
    rows = read_split(workspace, "train").combine_chunks()
    folds = ensure_folds(workspace, config, say).aligned(rows["sample_id"].combine_chunks())
    chosen = np.flatnonzero(sample_of_groups(folds.group, n_rows, config.seed))
    sample = rows.take(pa.array(chosen))
    fold = folds.fold[chosen]
    scored = fold > fold.min() if folds.looks_back else np.ones(len(fold), bool)
    group = folds.group[chosen][scored]
    log_price = np.log(sample["price"].to_numpy())
    limits = FailureLimits(config.embed.max_failures, 1.0)
    settings = DeviceSettings(tuple(device.split(",")))

    def load(resolved: Sequence[Resolved]) -> Sequence[Runner]:
        from embed.forward.fleet import load_engines

        return load_engines(workspace, resolved, settings)

    def loss_of(*blocks: np.ndarray) -> np.ndarray:
        predicted = _out_of_fold(blocks, log_price, fold, folds.looks_back)
        return smape_rows(log_price[scored], predicted[scored])

    outcomes = {}
    for request in requests:
        assert isinstance(request.source, CatalogSource)
        part = EncodeRequest(request.resolved, SampleSource(request.source, sample))
        options = EmbedOptions(limits, is_current=False)
        outcomes[request.resolved.spec.name] = run(workspace, [part], options, load, say)[0]
    first_X, first_loss = None, np.empty(0)
    known, compared = known_links(workspace), []
    for request, vector_set in sets:
        spec, outcome = request.resolved.spec, outcomes[request.resolved.spec.name]
        keys = row_keys(vector_set, sample.select(columns_of(vector_set)), known)
        read, has_vector = gather(workspace, spec, keys)
        X = np.asarray(read)
        X[~has_vector] = X[has_vector].mean(axis=0) if has_vector.any() else 0.0
        loss = loss_of(X)
        plan = plan_encoder(workspace, request.resolved, request.source, devices=settings.devices)
        speed = (
            outcome.n_embedded / outcome.seconds
            if outcome.n_embedded >= LEAST_TIMED
            else plan.rows_per_second
        )
        is_first = first_X is None
        adds = None
        if first_X is None:
            first_X, first_loss = X, loss
        else:
            adds = first_loss - loss_of(first_X, X)
        compared.append(
            ComparedSet(
                str(vector_set),
                spec.dim,
                float(loss.mean()),
                float((loss - first_loss).mean()),
                None if is_first else _interval(loss - first_loss, group),
                None if adds is None else float(adds.mean()),
                None if adds is None else _interval(adds, group),
                float(1 - has_vector.mean()),
                speed,
                len(plan.missing),
                len(plan.missing) / speed if speed else None,
                len(chosen),
            )
        )
    return compared


def compared_lines(found: Sequence[ComparedSet]) -> list[str]:
    """A table for people, and whether each encoder is worth it."""
    width = max(len("vectors"), *(len(one.vectors) for one in found))
    first = found[0].vectors
    lines = [
        f"{found[0].n_rows:,} rows, a ridge regression on the vectors alone, the same folds.",
        f"  {'vectors':<{width}}  {'dim':>5}  {'SMAPE':>7}  {'rows/s':>7}  full run",
    ]
    for one in found:
        speed = f"{one.rows_per_second:7.1f}" if one.rows_per_second else f"{'':>7}"
        if not one.n_missing:
            rest = "nothing to do"
        else:
            rest = f"{one.n_missing:,} to embed" + (f", about {duration(one.seconds)}" if one.seconds else "")
        lines.append(f"  {one.vectors:<{width}}  {one.dim:>5}  {one.smape:7.2f}  {speed}  {rest}")
    for one in found[1:]:
        assert one.difference_interval is not None
        low, high = one.difference_interval
        better = "better than" if high < 0 else "worse than" if low > 0 else "no certain difference from"
        lines.append(f"{one.vectors}: {one.difference:+.2f} ({low:+.2f} to {high:+.2f}), {better} {first}.")
        if one.adds is not None and one.adds_interval is not None:
            low, high = one.adds_interval
            certain = "an improvement" if low > 0 else "no certain improvement"
            lines.append(
                f"  together with {first}: {-one.adds:+.2f} ({-high:+.2f} to {-low:+.2f}), {certain}."
            )
    return lines


def _sets(request: EncodeRequest) -> tuple[VectorSet, ...]:
    assert isinstance(request.source, CatalogSource)
    return request.source.vector_sets


def _interval(values: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    mean, error = gain_and_error(values, group)
    return mean - NORMAL_95 * error, mean + NORMAL_95 * error


def _out_of_fold(
    blocks: Sequence[np.ndarray], log_price: np.ndarray, fold: np.ndarray, looks_back: bool
) -> np.ndarray:
    """Log price by ridge regression on blocks of equal weight, shape (n_rows,); the penalty is chosen inside folds.

    Args:
        looks_back: folds follow one another in time: each is predicted by earlier ones alone, the first is left NaN.
    """
    from sklearn.linear_model import RidgeCV

    predicted = np.full(len(log_price), np.nan)
    for held_out in np.unique(fold)[int(looks_back) :]:
        here = fold == held_out
        known = fold < held_out if looks_back else ~here
        parts = []
        for X in blocks:
            centred = X - X[known].mean(axis=0)
            parts.append(centred / max(float(np.sqrt((centred[known] ** 2).sum(axis=1).mean())), 1e-12))
        together = 100.0 * np.concatenate(parts, axis=1)
        model = RidgeCV(ALPHAS).fit(together[known], log_price[known])
        predicted[here] = model.predict(together[here])
    return predicted
