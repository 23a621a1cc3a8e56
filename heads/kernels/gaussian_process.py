"""`gaussian-process`: the sum of `additive` and a smooth function of fields, weighted by their relevance."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from heads.base import Head
from heads.features.blocks import Block, TermColumns, TermCounter, blocks_of, with_bare_numbers
from heads.features.ranks import FieldRanks
from heads.features.rows import Rows
from heads.kernels.relevance import FIELDS, FIELDS_AND_WORDS, Evidence, Relevance, rational_quadratic
from heads.linear.variances import INTERCEPT, block_scale, centred_kernel
from heads.params import MOST_SEED, param

REWEIGHTINGS = 3  # of rows, where residuals are bounded
BLOCK_ROWS = 2048  # predicted together
NEGLIGIBLE = 2e-4  # variance of a part over that of the noise


@dataclass(kw_only=True, eq=False)
class GaussianProcess(Head):
    """Log price as a sum over the blocks of `additive` and a smooth function of fields, alone and along with words.

    Each field has a precision of its own, so that fields without information on the price do not make rows distant.
    Variances and precisions are found together, by marginal likelihood on a sample of the rows fitted on. Rows far off
    then count less (Huber's weights), which is near to a median, as SMAPE asks for. Test rows: a refit with the mean
    of what the folds found.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", chapter 5.
    """

    name: ClassVar[str] = "gaussian-process"
    summary: ClassVar[str] = "the sum of additive and a smooth function of fields and words, fields weighed"
    texts: ClassVar[tuple[str, ...]] = ("full", "name")
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy")
    code_version: ClassVar[int] = 3
    side_by_side: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    tune_rows: int = param(
        1000, low=8, high=20_000
    )  # training rows that variances and precisions are found on
    most_rows: int = param(
        5000, low=8, high=50_000
    )  # training rows that it is fitted on, at most; of more, a sample
    prior: float = param(0.1, low=0, high=1e6)  # strength of the prior on each variance and precision
    huber_bend: float = param(
        1.0, low=0, high=1e6
    )  # residual from which rows count less, in robust standard deviations; 0: none
    random_state: int = param(42, low=0, high=MOST_SEED)  # seed of the samples

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        rows, log_price = self._sampled(with_bare_numbers(rows), log_price)
        self.counter_, counts = TermCounter.of(rows)
        blocks = {name: block.fit(rows, counts) for name, block in blocks_of(rows, list(counts)).items()}
        columns = {name: block.transform(rows, counts) for name, block in blocks.items()}
        self.scales_ = {name: block_scale(X) for name, X in columns.items()}
        self.blocks_ = {name: block for name, block in blocks.items() if self.scales_[name] > 0}
        self.ranks_ = FieldRanks().fit(rows)
        held, self.mean_ = self.ranks_.transform(rows), float(np.average(log_price, weights=rows.weight))
        noise = np.ones(len(rows)) if rows.weight is None else 1.0 / rows.weight
        target, words = log_price - self.mean_, [columns[name] for name in _of_words(self.blocks_)]
        self.relevance_: Relevance = vars(self).get("given_") or self._search(
            columns, held, words, target, noise
        )
        self.dual_ = self._solve(self._kernel(columns, held, words), target, noise)
        self.coefficients_ = {
            name: self._weight(name) * np.asarray(columns[name].T @ self.dual_, np.float64)
            for name in self.blocks_
        }
        self.intercept_ = self.mean_ + INTERCEPT**2 * float(self.dual_.sum())
        self.held_, self.held_words_ = held, words if FIELDS_AND_WORDS in self.relevance_.local else []

    def _predict(self, rows: Rows) -> np.ndarray:
        rows = with_bare_numbers(rows)
        counts, predicted = self.counter_.count(rows), self.intercept_ + self.local_part(rows)
        for name, block in self.blocks_.items():
            predicted += np.asarray(block.transform(rows, counts) @ self.coefficients_[name])
        return predicted

    def local_part(self, rows: Rows) -> np.ndarray:
        """What fields, alone and with words, add to the sum over columns, shape (n_rows,)."""
        found = np.zeros(len(rows))
        for start in range(0, len(rows), BLOCK_ROWS):
            part = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
            here, blocks = rows.subset(part), _of_words(self.blocks_) if self.held_words_ else {}
            counts = self.counter_.count(here) if blocks else {}
            words = [block.transform(here, counts) for block in blocks.values()]
            near = self._local(self.ranks_.transform(here), self.held_, (words, self.held_words_))
            found[part] = near @ self.dual_ if isinstance(near, np.ndarray) else near
        return found

    def learned(self) -> dict[str, Any]:
        return self.relevance_.to_json()

    def for_refit(self, learned: list[dict[str, Any]]) -> "GaussianProcess":
        """The geometric mean of what the folds found; nothing is searched again."""
        head = self.clone()
        vars(head)["given_"] = Relevance.mean(learned)
        return head

    def files(self) -> dict[str, bytes]:
        """`relevance.json`: the variance of each part and the precision of each field."""
        return {"relevance.json": json.dumps(self.learned(), indent=2).encode()}

    # ---- parts -----------------------------------------------------------------------------------

    def _sampled(self, rows: Rows, log_price: np.ndarray) -> tuple[Rows, np.ndarray]:
        if len(rows) <= self.most_rows:
            return rows, log_price
        kept = self._sample(len(rows), self.most_rows)
        return rows.subset(kept), log_price[kept]

    def _sample(self, n_rows: int, most: int) -> np.ndarray:
        return np.sort(np.random.default_rng(self.random_state).permutation(n_rows)[:most])

    def _search(
        self,
        columns: Mapping[str, Any],
        held: np.ndarray,
        words: list[Any],
        target: np.ndarray,
        noise: np.ndarray,
    ) -> Relevance:
        """The most likely variances and precisions, on a sample."""
        if not self.blocks_ and not self.ranks_.names_:
            return Relevance({}, {}, {})  # all rows have the same features: they get the mean price
        sample = self._sample(len(target), self.tune_rows)
        linear = {name: centred_kernel(columns[name][sample], self.scales_[name]) for name in self.blocks_}
        words = [X[sample] for X in words]
        evidence = Evidence(
            linear,
            held[sample],
            self.ranks_.owner_,
            self.ranks_.names_,
            _alike(words, words) if words else None,
            target[sample] - np.average(target[sample], weights=1.0 / noise[sample]),
            noise[sample],
            self.prior,
        )
        return evidence.find()

    def _weight(self, block: str) -> float:
        """Of products of a block's raw columns."""
        return self.relevance_.linear.get(block, 0.0) / self.scales_[block] ** 2

    def _local(
        self, left: np.ndarray, right: np.ndarray, words: tuple[list[Any], list[Any]]
    ) -> np.ndarray | float:
        """The parts that are no sum over columns, shape (n_left, n_right); 0 where there are no fields."""
        variance, precision = self.relevance_.local, self.relevance_.precision
        if not self.ranks_.names_ or not variance:
            return 0.0
        of_column = np.array([precision.get(name, 0.0) for name in self.ranks_.names_])[self.ranks_.owner_]
        near = rational_quadratic(left, right, of_column)
        factor: np.ndarray | float = variance.get(FIELDS, 0.0)
        if words[0] and variance.get(FIELDS_AND_WORDS, 0.0) > NEGLIGIBLE:
            factor = factor + variance[FIELDS_AND_WORDS] * _alike(*words)
        near *= factor
        return near

    def _kernel(self, columns: Mapping[str, Any], held: np.ndarray, words: list[Any]) -> np.ndarray:
        """Of the rows fitted on, an intercept among it."""
        kernel = np.full((len(held), len(held)), INTERCEPT**2)
        kernel += self._local(held, held, (words, words))
        for name in self.blocks_:
            if self.relevance_.linear.get(name, 0.0) > NEGLIGIBLE:
                kernel += self._weight(name) * _dense(columns[name] @ columns[name].T)
        return kernel

    def _solve(self, kernel: np.ndarray, target: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Dual weights of the rows; those far off have more noise, solved by the system of the given noise."""
        from scipy.linalg import cho_factor, cho_solve
        from scipy.sparse.linalg import LinearOperator, cg

        diagonal = np.diag_indices(len(target))
        system = kernel.copy()
        system[diagonal] += given
        factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        dual = cho_solve(factor, target, check_finite=False)
        shape = kernel.shape
        solved = LinearOperator(shape, lambda v: cho_solve(factor, v, check_finite=False), dtype=np.float64)
        for _ in range(REWEIGHTINGS if self.huber_bend else 0):
            apart = np.abs(target - kernel @ dual)
            bend = self.huber_bend * max(1.4826 * float(np.median(apart)), 1e-6)
            noise = given * np.maximum(1.0, apart / bend)

            def multiplied(v: np.ndarray, noise: np.ndarray = noise) -> np.ndarray:
                return kernel @ v.ravel() + noise * v.ravel()

            noisier = LinearOperator(shape, multiplied, dtype=np.float64)
            dual, _ = cg(noisier, target, dual, rtol=1e-5, maxiter=200, M=solved)
        return np.asarray(dual)


def _of_words(blocks: Mapping[str, Block]) -> dict[str, Block]:
    """The blocks of words, whose rows have length 1."""
    return {n: b for n, b in blocks.items() if isinstance(b, TermColumns) and b.terms.analyzer == "word"}


def _alike(left: list[Any], right: list[Any]) -> np.ndarray:
    """The mean cosine over blocks of words, shape (n_left, n_right)."""
    total = sum(_dense(a @ b.T) for a, b in zip(left, right, strict=True))
    return np.asarray(total / len(left))


def _dense(X: Any) -> np.ndarray:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, np.float64)
