"""`kernel-ridge`: ridge in the space of a mixture of kernels, exact while the matrix fits, Nystroem beyond."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.products import blocks_of
from heads.features.rows import Rows
from heads.kernels.mixture import (
    COLUMNS,
    FIELDS,
    JOINT,
    LOCAL_WORDS,
    NAME,
    WORDS,
    KernelSource,
    Mixture,
    VectorDistances,
    default_terms,
    iter_terms,
    sources_of,
)
from heads.params import MOST_SEED, param
from store.errors import HeadError
from store.metric import smape_log

BLOCK_ROWS = 2048
ALPHAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
WIDTH_STEPS = (0.5, 2.0)
WEIGHT_STEPS = (0.0, 0.5, 2.0, 4.0)
START_WIDTHS = {FIELDS: 0.5}
START_WIDTH = 0.3
START_WEIGHTS = {JOINT: 1.0, WORDS: 1.0, LOCAL_WORDS: 1.0, NAME: 0.25, COLUMNS: 0.25, FIELDS: 0.5}
SCORED_SHARE = 4  # one in so many rows is held out to score the choices


@dataclass(frozen=True)
class KernelChoice:
    """What is chosen inside the training rows."""

    mixture: Mixture
    alpha: float  # penalty, where the kernel of a row with itself is about 1


@dataclass(kw_only=True, eq=False)
class KernelRidge(Head):
    """Kernel ridge regression of log price on a weighted sum of kernels, chosen by SMAPE on held-out groups.

    Exact: the kernel of n training rows takes 4 n^2 bytes in float32, three to four times that while it is
    built: 2.3 GB at 12,000 rows. Beyond `exact_rows` the solution is sought among the kernels of `landmarks`
    training rows (Nystroem), about 20 * landmarks^2 bytes whatever the number of rows.

    Source: Williams and Seeger, "Using the Nystroem method to speed up kernel machines", NIPS 2000.
    """

    name: ClassVar[str] = "kernel-ridge"
    summary: ClassVar[str] = "ridge on a mixture of kernels: each vector set, all jointly, TF-IDF, fields"
    texts: ClassVar[tuple[str, ...]] = ("full", "name")
    libraries: ClassVar[tuple[str, ...]] = ("scipy", "scikit-learn")
    side_by_side: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    exact_rows: int = param(12_000, low=0, high=200_000)  # training rows up to which the solution is exact
    landmarks: int = param(
        4096, low=1, high=100_000
    )  # training rows that the approximation for more rows is based on
    tune_rows: int = param(  # training rows that widths, weights and penalty are chosen on
        4000, low=1, high=100_000
    )
    unit: bool = True  # compare vectors by direction only
    lexical: bool = True  # use TF-IDF of the text and the item name
    fields: bool = True  # use parsed fields
    random_state: int = param(42, low=0, high=MOST_SEED)  # seed of the landmarks and the held-out groups

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        given: KernelChoice | None = vars(self).get("given_")
        self.choice_ = given or self._choose(rows, log_price)
        self.mean_ = float(np.average(log_price, weights=rows.weight))
        needed = _sources_needed(self.choice_.mixture)
        self.sources_ = {name: s.fit(rows) for name, s in self._sources(rows).items() if name in needed}
        target = (log_price - self.mean_).astype(np.float32)
        if len(rows) <= self.exact_rows:
            self.held_id_, self.held_ = rows.sample_id, self._features(rows)
            kernel = self._kernel(self.held_, self.held_)
            self.dual_ = solve(kernel, target, _penalties(self.choice_.alpha, rows.weight), self.name)
        else:
            self._fit_landmarks(rows, target)

    def _predict(self, rows: Rows) -> np.ndarray:
        predicted = np.empty(len(rows))
        for start in range(0, len(rows), BLOCK_ROWS):
            part = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
            features = self._features(rows.subset(part))
            for block, positions in blocks_of(len(part)):
                chosen = {name: _rows_at(found, positions) for name, found in features.items()}
                kernel = self._kernel(chosen, self.held_)
                predicted[part[block]] = (kernel @ self.dual_)[: block.stop - block.start]
        return predicted + self.mean_

    def prepared(self, rows: Rows) -> Rows:
        """See `Head.prepared`; texts are cut into words once for all folds."""
        return rows.with_tokens(self.texts) if self.lexical else rows

    def learned(self) -> dict[str, Any]:
        mixture = self.choice_.mixture
        return {
            "weights": {term: round(w, 4) for term, w in mixture.weights.items() if w},
            "widths": {name: round(w, 4) for name, w in mixture.widths.items()},
            "alpha": self.choice_.alpha,
        }

    def for_refit(self, learned: list[dict[str, Any]]) -> "KernelRidge":
        """Means of what the folds chose; nothing is searched again."""
        terms = dict.fromkeys(term for fold in learned for term in fold["weights"])
        weights = {t: float(np.mean([fold["weights"].get(t, 0.0) for fold in learned])) for t in terms}
        widths = {
            name: float(np.exp(np.mean([np.log(fold["widths"][name]) for fold in learned])))
            for name in learned[0]["widths"]
        }
        head = self.clone()
        alpha = float(np.exp(np.mean([np.log(fold["alpha"]) for fold in learned])))
        vars(head)["given_"] = KernelChoice(Mixture(weights, widths), alpha)
        return head

    def files(self) -> dict[str, bytes]:
        """`kernels.json`: weights, widths and penalty."""
        return {"kernels.json": json.dumps(self.learned(), indent=2).encode()}

    def fitted_state(self) -> dict[str, Any]:
        """See `Head.fitted_state`; what is made of vectors alone is left out."""
        held = {name: one for name, one in self.held_.items() if name not in self._of_vectors()}
        return super().fitted_state() | {"held_": held}

    def restore(self, state: dict[str, Any], rows: Callable[[pa.Array], Rows]) -> None:
        """See `Head.restore`."""
        super().restore(state, rows)
        for name, held in self.held_.items():
            if isinstance(held, tuple):  # words: turned once, not for every product
                self.held_[name] = (held[0], held[1].tocsc())
        if of_vectors := self._of_vectors():
            held = rows(self.held_id_)
            self.held_ |= {name: self.sources_[name].features(held) for name in of_vectors}

    def _of_vectors(self) -> list[str]:
        return [name for name, source in self.sources_.items() if isinstance(source, VectorDistances)]

    # ---- parts -----------------------------------------------------------------------------------

    def _sources(self, rows: Rows) -> dict[str, KernelSource]:
        sources = sources_of(rows, unit=self.unit, texts=self.lexical, fields=self.fields)
        if not sources:
            raise HeadError(
                f"{self.name} needs vectors or texts: name vector sets in heads.vectors of shelfprice.toml"
            )
        return sources

    def _features(self, rows: Rows) -> dict[str, Any]:
        return {name: source.features(rows) for name, source in self.sources_.items()}

    def _kernel(self, left: dict[str, Any], right: dict[str, Any]) -> np.ndarray:
        return self.choice_.mixture.kernel(lambda name: self.sources_[name].compare(left[name], right[name]))

    def _across(self, rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Part by part, which rows these are and their kernel with the rows held, shape (n_part, n_held)."""
        for start in range(0, len(rows), BLOCK_ROWS):
            part = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
            yield part, self._kernel(self._features(rows.subset(part)), self.held_)

    def _choose(self, rows: Rows, log_price: np.ndarray) -> KernelChoice:
        """Coordinate search by SMAPE on held-out groups of a sample of the training rows."""
        rng = np.random.default_rng(self.random_state)
        sources = self._sources(rows)
        widths = {n: START_WIDTHS.get(n, START_WIDTH) for n in sources if n not in (WORDS, NAME, COLUMNS)}
        weights = {term: START_WEIGHTS.get(term, 0.25) for term in default_terms(sources)}
        start = KernelChoice(_normalised(weights, widths), 0.03)
        scored, fitted = _split(rows.group, self.tune_rows, rng)
        if len(scored) < 2 or len(fitted) < 8:
            return start
        there, here = rows.subset(fitted), rows.subset(scored)
        trial = KernelTrial.of(sources, there, here, log_price[fitted], log_price[scored])
        return trial.search(start)

    def _fit_landmarks(self, rows: Rows, target: np.ndarray) -> None:
        """Nystroem: dual weights of the landmarks from sums over blocks of rows."""
        rng = np.random.default_rng(self.random_state)
        chosen = np.sort(rng.choice(len(rows), min(self.landmarks, len(rows)), replace=False))
        held = rows.subset(chosen)
        self.held_id_, self.held_ = held.sample_id, self._features(held)
        among = self._kernel(self.held_, self.held_)
        gram = self.choice_.alpha * among.astype(np.float64)
        products = np.zeros(len(chosen))
        for part, across in self._across(rows):
            weighted = across if rows.weight is None else across * rows.weight[part, None].astype(np.float32)
            gram += weighted.T @ across
            products += weighted.T @ target[part]
        jitter = 1e-9 * float(np.trace(gram))
        self.dual_ = solve(gram, products, jitter, self.name).astype(np.float32)


@dataclass(frozen=True)
class KernelTrial:
    """Compared rows, so that a choice is scored by one Cholesky factorisation."""

    fitted: dict[str, np.ndarray]  # source -> compared (n_fitted, n_fitted)
    across: dict[str, np.ndarray]  # source -> compared (n_scored, n_fitted)
    target: np.ndarray  # (n_fitted,) log price
    actual: np.ndarray  # (n_scored,) log price
    weight: np.ndarray | None = None  # (n_fitted,)
    scored_weight: np.ndarray | None = None  # (n_scored,)

    @classmethod
    def of(
        cls,
        sources: Mapping[str, KernelSource],
        there: Rows,
        here: Rows,
        target: np.ndarray,
        actual: np.ndarray,
    ) -> "KernelTrial":
        fitted, across = {}, {}
        for name, source in sources.items():
            known = source.fit(there).features(there)
            fitted[name] = source.compare(known, known)
            across[name] = source.compare(source.features(here), known)
        return cls(fitted, across, target, actual, there.weight, here.weight)

    def search(self, start: KernelChoice) -> KernelChoice:
        """Widths with the starting weights, then weights, then the penalty; each step keeps what is best."""
        best, lowest = start, self.error(start)
        for name in start.mixture.widths:
            for step in WIDTH_STEPS:
                widths = {**best.mixture.widths, name: start.mixture.widths[name] * step}
                trial = dataclasses.replace(best, mixture=Mixture(best.mixture.weights, widths))
                best, lowest = self._better(trial, best, lowest)
        terms = self._terms(best.mixture)
        for term in start.mixture.weights:
            at = best.mixture.weights
            for step in WEIGHT_STEPS:
                mixture = _normalised({**at, term: at[term] * step}, best.mixture.widths)
                trial = dataclasses.replace(best, mixture=mixture)
                best, lowest = self._better(trial, best, lowest, terms)
        for alpha in ALPHAS:
            trial = dataclasses.replace(best, alpha=alpha)
            best, lowest = self._better(trial, best, lowest, terms)
        return best

    def error(
        self, choice: KernelChoice, terms: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
    ) -> float:
        """SMAPE of the scored rows; infinite where the system can't be solved."""
        weights = choice.mixture.weights
        if terms is None:
            kernel = choice.mixture.kernel(_copy_of(self.fitted))
            across = choice.mixture.kernel(_copy_of(self.across))
        else:
            kernel, across = (_weighted_sum(weights, terms, i) for i in (0, 1))
        mean, alpha = (
            float(np.average(self.target, weights=self.weight)),
            _penalties(choice.alpha, self.weight),
        )
        try:
            dual = solve(kernel, (self.target - mean).astype(np.float32), alpha, "kernel-ridge")
        except HeadError:
            return np.inf
        return smape_log(self.actual, across @ dual + mean, self.scored_weight)

    def _better(
        self, trial: KernelChoice, best: KernelChoice, lowest: float, terms: Any = None
    ) -> tuple[KernelChoice, float]:
        if not trial.mixture.terms:
            return best, lowest
        error = self.error(trial, terms)
        return (trial, error) if error < lowest - 1e-4 else (best, lowest)

    def _terms(self, mixture: Mixture) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Every term once, at chosen widths, so that weights are tried by sums alone."""
        both = [
            dict(iter_terms(list(mixture.weights), mixture.widths, _copy_of(part)))
            for part in (self.fitted, self.across)
        ]
        return {term: (both[0][term], both[1][term]) for term in mixture.weights}


def solve(kernel: np.ndarray, target: np.ndarray, alpha: float | np.ndarray, name: str) -> np.ndarray:
    """Dual weights (kernel + alpha I)^-1 target, shape (n_rows,); overwrites `kernel`.

    Args:
        alpha: penalty, of all rows or of each.

    Raises:
        HeadError: not positive definite even so: alpha is too small for float32.
    """
    from scipy.linalg import cho_solve

    from heads.linear.lapack import cholesky

    kernel[np.diag_indices(len(kernel))] += np.asarray(alpha, kernel.dtype)
    if not cholesky(kernel):
        raise HeadError(
            f"{name}: the kernel matrix of {len(kernel)} rows is not positive definite at penalty {np.min(alpha):g}: "
            "raise the penalty, or leave constant vector sets out"
        )
    dual: np.ndarray = cho_solve((kernel.T, True), target, check_finite=False)
    return dual


def _penalties(alpha: float, weight: np.ndarray | None) -> float | np.ndarray:
    """The penalty of each row: a row of more weight has less noise."""
    return alpha if weight is None else alpha / weight


def _rows_at(features: Any, positions: np.ndarray) -> Any:
    """The chosen rows of what a source made of rows."""
    if isinstance(features, tuple):
        return tuple(_rows_at(part, positions) for part in features)
    return features[positions]


def _weighted_sum(
    weights: Mapping[str, float], terms: dict[str, tuple[np.ndarray, np.ndarray]], at: int
) -> np.ndarray:
    held = [term for term, weight in weights.items() if weight > 0]
    total: np.ndarray = np.float32(weights[held[0]]) * terms[held[0]][at]
    for term in held[1:]:
        total += np.float32(weights[term]) * terms[term][at]
    return total


def _copy_of(parts: Mapping[str, np.ndarray]) -> Callable[[str], np.ndarray]:
    return lambda name: parts[name].copy()


def _normalised(weights: Mapping[str, float], widths: Mapping[str, float]) -> Mixture:
    total = sum(weights.values()) or 1.0
    return Mixture({term: weight / total for term, weight in weights.items()}, dict(widths))


def _sources_needed(mixture: Mixture) -> set[str]:
    needed = set(mixture.terms) - {JOINT, LOCAL_WORDS}
    if {JOINT, LOCAL_WORDS} & set(mixture.terms):
        needed |= {name for name in mixture.widths if name.startswith("set ")}
    return needed | ({WORDS} if LOCAL_WORDS in mixture.terms else set())


def _split(group: np.ndarray, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions (scored, fitted) of whole groups, at most `most` rows together, whatever the row order."""
    unique, inverse = np.unique(group, return_inverse=True)
    rank = rng.permutation(len(unique))[inverse]
    order = np.argsort(rank, kind="stable")
    kept = order[: min(most, len(order))]
    held = rank[kept] % SCORED_SHARE == 0
    return np.sort(kept[held]), np.sort(kept[~held])
