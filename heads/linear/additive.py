"""`additive`: the log price as a sum over blocks of columns, each weighted by how much of the price it explains.

A price is mostly a unit price times a quantity, which is a sum in log price: words determine the first, numbers the
second.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import FoldPredictions, Head
from heads.features.blocks import MOST_FILLED, Block, Counts, TermCounter, blocks_of, with_bare_numbers
from heads.features.rows import Rows
from heads.folds.parallel import each_in_memory
from heads.linear.variances import BYTES_OF_SOLVER, block_scale, centred_kernel, find_weights, solve_blocks
from heads.params import MOST_SEED, param
from store.folds.assign import sample_of_groups
from store.metric import smape_rows

REWEIGHTINGS = 3  # of rows, where residuals are bounded
SCALES = (1.0, 0.5, 0.25, 0.125, 0.0625)  # of all weights together, that are compared on held-out rows
HELD_OUT = 0.25  # of the rows
ROUGHLY = 1e-2  # tolerance of the solver, where scales are compared
LEAST_HELD = 50  # rows; fewer tell nothing of a scale


@dataclass(frozen=True)
class BlockSum:
    """A fitted sum over blocks."""

    blocks: Mapping[str, Block]
    coefficients: Mapping[str, np.ndarray]  # block -> (n_columns,) float32
    offsets: Mapping[str, float]  # block -> mean of its part over the training rows, which is taken off
    weights: Mapping[str, float]  # block -> its variance over that of the noise
    mean: float

    @classmethod
    def fit(
        cls,
        rows: Rows,
        counts: Counts,
        log_price: np.ndarray,
        head: "Additive",
        weights: Mapping[str, float] | None = None,
    ) -> "BlockSum":
        """From training rows.

        Args:
            weights: of each block; None: they are found on these rows.
        """
        blocks = {name: block.fit(rows, counts) for name, block in blocks_of(rows, list(counts)).items()}
        columns = {name: compact(block.transform(rows, counts)) for name, block in blocks.items()}
        n_rows, group, weight = len(rows), rows.group, rows.weight
        del rows, counts  # as large as the columns, where nobody else holds them
        scales = {name: block_scale(X) for name, X in columns.items()}
        live = [name for name, scale in scales.items() if scale > 0]
        if weights is None and live:
            sample = np.sort(np.random.default_rng(head.random_state).permutation(n_rows)[: head.tune_rows])
            kernels = np.empty((len(live), len(sample), len(sample)))
            for at, name in enumerate(live):
                kernels[at] = centred_kernel(columns[name][sample], scales[name])
            noise = None if weight is None else 1.0 / weight[sample]
            found = find_weights(kernels, log_price[sample], head.prior, noise)
            factors = (np.sqrt(found) / np.array([scales[name] for name in live])).tolist()
            scale = held_out_scale(
                [columns[name] for name in live], factors, group, weight, log_price, head.random_state
            )
            weights = dict(zip(live, (scale * found).tolist(), strict=True))
        weights = weights or {}  # all rows have the same features: they get the mean price
        live = [name for name in live if weights.get(name, 0.0) > 0]
        factors = [np.sqrt(weights[name]) / scales[name] for name in live]
        X, mean = [columns[name] for name in live], float(np.average(log_price, weights=weight))
        given = np.ones(n_rows) if weight is None else weight
        row_weights = given
        for _ in range(1 + (REWEIGHTINGS if head.huber_bend else 0)):
            fitted, intercept = solve_blocks(X, factors, log_price - mean, row_weights)
            parts = [x @ coefficients for x, coefficients in zip(X, fitted, strict=True)]
            apart = np.abs(log_price - mean - intercept - sum(parts, np.zeros(n_rows)))
            bend = head.huber_bend * max(1.4826 * float(np.median(apart)), 1e-6)
            row_weights = given * np.minimum(1.0, bend / np.maximum(apart, 1e-9))
        offsets = {name: float(part.mean()) for name, part in zip(live, parts, strict=True)}
        return cls(
            {name: blocks[name] for name in live},
            dict(zip(live, fitted, strict=True)),
            offsets,
            {name: weights[name] for name in live},
            mean + intercept + sum(offsets.values()),
        )

    def parts(self, rows: Rows, counts: Counts) -> dict[str, np.ndarray]:
        """What each block adds to the mean, in log price, shape (n_rows,) each."""
        return {
            name: block.transform(rows, counts) @ self.coefficients[name].astype(np.float64)
            - self.offsets[name]
            for name, block in self.blocks.items()
        }

    def predict(self, rows: Rows, counts: Counts) -> np.ndarray:
        """Shape (n_rows,)."""
        return np.asarray(self.mean + sum(self.parts(rows, counts).values()), np.float64)


@dataclass(frozen=True)
class CountedRows:
    """Training rows whose texts are counted once, for fits on many parts of them."""

    rows: Rows
    counter: TermCounter
    counts: Counts

    @classmethod
    def of(cls, rows: Rows) -> "CountedRows":
        rows = with_bare_numbers(rows)
        return cls(rows, *TermCounter.of(rows))

    @property
    def bytes_of_fit(self) -> int:
        """About the memory that one fit takes: terms and vectors twice, as they are and as columns, and the solver's own."""
        terms = sum(one.data.nbytes + one.indices.nbytes for one in self.counts.values())
        vectors = sum(2 * 3 * matrix.X.size for matrix in self.rows.matrices)  # of 2 bytes, and of 4
        return 2 * terms + vectors + len(self.rows) * BYTES_OF_SOLVER

    def fit(
        self,
        index: np.ndarray,
        log_price: np.ndarray,
        head: "Additive",
        weights: Mapping[str, float] | None = None,
    ) -> BlockSum:
        """On the rows at `index` alone, counting aside; see `BlockSum.fit`."""
        return BlockSum.fit(
            self.rows.subset(index), taken(self.counts, index), log_price[index], head, weights
        )

    def predict(self, fitted: BlockSum, index: np.ndarray) -> np.ndarray:
        """Log price of the rows at `index`."""
        return fitted.predict(self.rows.subset(index), taken(self.counts, index))


@dataclass(kw_only=True, eq=False)
class Additive(Head):
    """Ridge regression of log price on blocks of features, each with a weight of its own.

    Blocks are words of the name, words of the text, characters, quantities, other numbers, curves of numbers, categories
    and each vector set. Words count twice: by TF-IDF, and by whether they are there at all, so that the effect of a word
    need not depend on how many others the name has. A block's weight is its variance over that of the noise: found by
    marginal likelihood on a sample of the rows fitted on, then scaled, all blocks alike, by what held-out rows say.
    Texts are counted once; vocabulary and idf are those of the rows fitted on. Test rows: a refit on all
    rows with the mean of the folds' weights.
    """

    name: ClassVar[str] = "additive"
    summary: ClassVar[str] = (
        "a sum over blocks: words, characters, quantities, numbers, curves, categories, each vector set"
    )
    texts: ClassVar[tuple[str, ...]] = ("full", "name")
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy")
    side_by_side: ClassVar[bool] = True
    code_version: ClassVar[int] = 3
    takes_weights: ClassVar[bool] = True

    tune_rows: int = param(1000, low=8, high=20_000)  # training rows that the weights are found on
    prior: float = param(0.1, low=0, high=1e6)  # strength of the prior on the weight of each block
    huber_bend: float = param(
        0.0, low=0, high=1e6
    )  # residual from which rows count less, in robust standard deviations; 0: none
    random_state: int = param(42, low=0, high=MOST_SEED)  # seed of the sample

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        counted = CountedRows.of(rows)
        self.counter_ = counted.counter
        self.sum_ = BlockSum.fit(counted.rows, counted.counts, log_price, self, vars(self).get("given_"))

    def _predict(self, rows: Rows) -> np.ndarray:
        rows = with_bare_numbers(rows)
        return self.sum_.predict(rows, self.counter_.count(rows))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`; the texts are counted once for all folds."""
        counted, folds = CountedRows.of(train), np.unique(fold).tolist()

        def one_fold(held: int) -> tuple[np.ndarray, dict[str, Any]]:
            fitted = counted.fit(np.flatnonzero(fold != held), log_price, self)
            return counted.predict(fitted, np.flatnonzero(fold == held)), described(fitted)

        oof, learned = np.empty(len(train)), []
        found = each_in_memory(one_fold, folds, counted.bytes_of_fit)
        for held, (predicted, chosen) in zip(folds, found, strict=True):
            oof[fold == held] = predicted
            learned.append(chosen)
        every = np.arange(len(train))
        self.take(counted, counted.fit(every, log_price, self, mean_weights(learned)))
        return FoldPredictions(oof, None if test is None else self._predict(test), learned, self)

    def take(self, counted: "CountedRows", fitted: BlockSum) -> "Additive":
        """Be the head of a sum that was fitted on counted rows."""
        self.counter_, self.sum_ = counted.counter, fitted
        return self

    def learned(self) -> dict[str, Any]:
        return described(self.sum_)

    def for_refit(self, learned: list[dict[str, Any]]) -> "Additive":
        """The geometric mean of the folds' weights; none are searched again."""
        head = self.clone()
        vars(head)["given_"] = mean_weights(learned)
        return head

    def files(self) -> dict[str, bytes]:
        """`additive.npz`: coefficients of each block; `additive.json`: weights, offsets, the terms of each family."""
        content, terms = io.BytesIO(), {}
        for family, vectorizer in self.counter_.vectorizers.items():
            held = getattr(vectorizer, "vocabulary_", None)
            names = vectorizer.get_feature_names_out() if held else np.empty(0, object)
            terms[f"{family.analyzer} of {family.composition}"] = names.tolist()
        np.savez(content, **self.sum_.coefficients)  # type: ignore[arg-type]
        record = {
            **described(self.sum_),
            "offsets": dict(self.sum_.offsets),
            "mean": self.sum_.mean,
            "terms": terms,
        }
        return {"additive.npz": content.getvalue(), "additive.json": json.dumps(record).encode()}


def held_out_scale(
    blocks: Sequence[Any],
    factors: Sequence[float],
    group: np.ndarray,
    weight: np.ndarray | None,
    log_price: np.ndarray,
    seed: int,
) -> float:
    """What the weights of all blocks are multiplied by: the least SMAPE of held-out rows, by models of the others.

    Args:
        factors: what the columns of each block are multiplied by, at a scale of 1.
        weight: what each row counts; None: all alike.
    """
    held = ~sample_of_groups(group, round((1 - HELD_OUT) * len(group)), seed)
    if not LEAST_HELD <= held.sum() < len(held):
        return 1.0
    given = np.ones(len(group)) if weight is None else weight
    mean = float(np.average(log_price[~held], weights=given[~held]))
    losses = []
    for scale in SCALES:
        scaled = [np.sqrt(scale) * factor for factor in factors]
        fitted, intercept = solve_blocks(blocks, scaled, log_price - mean, given * ~held, ROUGHLY)
        parts = sum(X @ of_block for X, of_block in zip(blocks, fitted, strict=True))
        predicted = mean + intercept + np.asarray(parts)[held]
        losses.append(float(np.average(smape_rows(log_price[held], predicted), weights=given[held])))
    return lowest_point(SCALES, losses)


def lowest_point(scales: Sequence[float], losses: Sequence[float]) -> float:
    """Where a parabola through the least loss and its neighbours is lowest, in log scale; the scale itself at an end."""
    at, lowest = np.log(scales), int(np.argmin(losses))
    if not 0 < lowest < len(at) - 1:
        return float(scales[lowest])
    near = slice(lowest - 1, lowest + 2)
    curve, slope, _ = np.polyfit(at[near], losses[near], 2)
    return float(np.exp(-slope / (2 * curve))) if curve > 0 else float(scales[lowest])


def compact(X: Any) -> Any:
    """Sparse where nearly all is zero: every step of the solver reads all that is kept."""
    import scipy.sparse as sp

    is_empty = isinstance(X, np.ndarray) and np.count_nonzero(X) < MOST_FILLED * X.size
    return sp.csr_matrix(X) if is_empty else X


def taken(counts: Counts, index: np.ndarray) -> dict[Any, Any]:
    """Counts of the chosen rows."""
    return {terms: found[index] for terms, found in counts.items()}


def described(fitted: BlockSum) -> dict[str, Any]:
    """What was chosen, as JSON."""
    return {"weights": {name: round(weight, 6) for name, weight in fitted.weights.items()}}


def mean_weights(learned: list[dict[str, Any]]) -> dict[str, float]:
    """The geometric mean of each block's weight over the folds that have it."""
    names = dict.fromkeys(name for fold in learned for name in fold["weights"])
    return {
        name: float(
            np.exp(np.mean([np.log(fold["weights"][name]) for fold in learned if name in fold["weights"]]))
        )
        for name in names
    }
