"""`sparse`: TF-IDF of words, word pairs and characters, then ridge.

Beside the words stand the further columns of the user's file, as numbers, categories and words; what is parsed out of
the text is left to its words.
"""

import io
import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from heads.base import FoldPredictions, Head
from heads.features.columns import COLUMNS, column_words, texts_of
from heads.features.design import FieldBlock
from heads.features.rows import Rows
from heads.features.tfidf import Terms, Weighting, counts_of
from heads.folds.nested import NestedPlan, Split
from heads.folds.parallel import each_on_a_core
from heads.linear.path import check_path
from heads.params import param
from store.errors import HeadError

TOLERANCE = 1e-3  # of the residual, relative: SMAPE moves by 0.001 or less
MAX_STEPS = 400


@dataclass(kw_only=True, eq=False)
class Sparse(Head):
    """Ridge regression of log price on TF-IDF of words, pairs of words, characters and further columns.

    Every penalty is solved at once, by conjugate gradients. Texts are cut and counted once; vocabulary and idf are
    those of the rows fitted on. The penalty of a fold is chosen by `NestedPlan`. Test rows: a refit on all rows.
    """

    name: ClassVar[str] = "sparse"
    code_version: ClassVar[int] = 2
    summary: ClassVar[str] = "TF-IDF of words, pairs and the name's characters, further columns, then ridge"
    vectors: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[tuple[str, ...]] = ("full", "name")
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy")
    takes_weights: ClassVar[bool] = True

    alpha_min: float = param(0.05, above=0, high=1e12, was="low")
    alpha_max: float = param(20.0, above=0, high=1e12, was="high")
    n_alphas: int = param(8, low=1, high=1000, was="n_penalties")
    n_inner_folds: int = param(
        1, low=1, high=2, was="n_neighbours"
    )  # inner folds that score the penalty of a fold
    words: int = param(2, low=0, high=8)  # longest sequence of words of the whole text; 0: none
    characters: int = param(5, low=0, high=16)  # longest sequence of characters of the name; 0: none
    min_df: int = param(2, low=1, high=1e9, was="min_rows")  # rows that must hold a term
    max_features: int = param(300_000, low=1, high=1e8, was="max_terms")  # terms of each kind, at most

    def _check_together(self) -> None:
        check_path(self.name, self.alpha_min, self.alpha_max)
        if self.characters == 1:
            raise HeadError(f"{self.name}: parameter characters must be 0 or at least 2, got 1")
        if not self.words and not self.characters:
            raise HeadError(f"{self.name}: words and characters are both 0: set one of them")

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        self._cross(rows, log_price, NestedPlan.for_fit(rows.group))

    def fit_predict_folds(
        self, train: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None
    ) -> FoldPredictions:
        """See `Head.fit_predict_folds`; the texts are counted once for all folds."""
        oof, chosen = self._cross(train, log_price, NestedPlan.of(fold, train.group, self.n_inner_folds))
        learned = [{"alpha": float(self.alphas[setting])} for setting in chosen]
        return FoldPredictions(oof, None if test is None else self.predict(test), learned, self)

    def _cross(self, rows: Rows, log_price: np.ndarray, plan: NestedPlan) -> tuple[np.ndarray, list[int]]:
        least = min(self.min_df, len(rows))
        counted = {
            terms: terms.count(texts_of(rows, terms.composition), least) for terms in self._families(rows)
        }
        self.vectorizers_ = {terms: vectorizer for terms, (vectorizer, _) in counted.items()}
        counts = [found for _, found in counted.values()]
        if not any(count.shape[1] for count in counts):
            raise HeadError(
                f"sparse: no word occurs in {self.min_df} or more of the {len(rows)} rows: name the text column by "
                "--text-column of 'shelfprice catalog ingest'"
            )
        further = further_rows(rows)
        splits = plan.inner_splits + [split for splits in plan.outer.values() for split in splits]
        predicted: dict[Split, np.ndarray] = {}

        def fit_and_predict(fitted: frozenset[int]) -> dict[Split, np.ndarray]:
            inside = np.isin(plan.cell, sorted(fitted))
            seen = [c[inside] for c in counts]
            model = _LinearModel.fit(self, seen, further.subset(inside), log_price[inside], self.alphas)
            cells = {split: plan.cell == split[1] for split in splits if split[0] == fitted}
            return {
                split: model.predict([c[cell] for c in counts], further.subset(cell))
                for split, cell in cells.items()
            }

        for found in each_on_a_core(fit_and_predict, sorted({fitted for fitted, _ in splits}, key=sorted)):
            predicted |= found
        inner = plan.inner_errors(log_price, predicted, rows.weight)
        chosen = {held: int(np.argmin(errors)) for held, errors in inner.items()}
        oof, best = np.empty(0), chosen.get(0, self.n_alphas // 2)
        if plan.outer:
            oof, errors = plan.collect(log_price, predicted, chosen)
            best = int(np.argmin(errors))
        self.penalty_ = float(self.alphas[best])
        self.model_ = _LinearModel.fit(self, counts, further, log_price, np.array([self.penalty_]))
        return oof, [chosen[held] for held in plan.folds]

    def _predict(self, rows: Rows) -> np.ndarray:
        counts = [counts_of(v, texts_of(rows, t.composition)) for t, v in self.vectorizers_.items()]
        return self.model_.predict(counts, further_rows(rows))[:, 0]

    def learned(self) -> dict[str, Any]:
        return {"alpha": self.penalty_}

    def files(self) -> dict[str, bytes]:
        """`sparse.npz`: coefficients, idf, mean and the scale of numbers; `sparse.json`: the term of each coefficient."""
        content, terms = io.BytesIO(), []
        for vectorizer, weighting in zip(self.vectorizers_.values(), self.model_.weightings, strict=True):
            names = vectorizer.get_feature_names_out() if len(weighting.columns) else np.empty(0, object)
            terms.append([str(names[i]) for i in weighting.columns])
        further = self.model_.further
        terms.append(further.names_)
        np.savez(
            content,
            coefficients=self.model_.coefficients[:, 0],
            idf=np.concatenate([weighting.idf for weighting in self.model_.weightings]),
            mean=self.model_.mean,
            number_mean=further.mean_,
            number_divisor=further.divisor_,
        )
        return {"sparse.npz": content.getvalue(), "sparse.json": json.dumps(terms).encode()}

    @property
    def alphas(self) -> np.ndarray:
        """The path, shape (n_alphas,): scikit-learn's alpha."""
        return np.geomspace(self.alpha_min, self.alpha_max, self.n_alphas)

    def _families(self, rows: Rows) -> list[Terms]:
        families = [Terms("full", "word", 1, self.words)] if self.words else []
        if self.words and any(column_words(rows.fields)):
            families.append(Terms(COLUMNS, "word", 1, self.words))
        return families + ([Terms("name", "char_wb", 2, self.characters)] if self.characters else [])


@dataclass(frozen=True)
class _LinearModel:
    weightings: list[Weighting]
    further: FieldBlock
    coefficients: np.ndarray  # (n_terms and further columns, n_penalties) float32
    mean: float

    @classmethod
    def fit(
        cls, head: Sparse, counts: list[Any], further: Rows, log_price: np.ndarray, alphas: np.ndarray
    ) -> "_LinearModel":
        weightings = [Weighting.fit(c, head.min_df, head.max_features) for c in counts]
        block = FieldBlock().fit(further)
        X = _side_by_side(weightings, counts, block, further)
        mean = float(np.average(log_price, weights=further.weight))
        target = log_price - mean
        if further.weight is not None:
            roots = np.sqrt(further.weight)
            X, target = X.multiply(roots[:, None].astype(np.float32)).tocsr(), target * roots
        dual = solve_dual(X, target, alphas)
        return cls(weightings, block, (X.T @ dual).astype(np.float32), mean)

    def predict(self, counts: list[Any], further: Rows) -> np.ndarray:
        """Shape (n_rows, n_penalties)."""
        X = _side_by_side(self.weightings, counts, self.further, further)
        return np.asarray(X @ self.coefficients, np.float64) + self.mean


def further_rows(rows: Rows) -> Rows:
    """The rows with the further columns of the user's file as all that they hold."""
    return replace(rows, matrices=(), folded=(), texts={}, fields=rows.fields.further())


def _side_by_side(weightings: list[Weighting], counts: list[Any], block: FieldBlock, further: Rows) -> Any:
    import scipy.sparse as sp

    blocks = [weighting.transform(count) for weighting, count in zip(weightings, counts, strict=True)]
    return sp.hstack([*blocks, sp.csr_matrix(block.transform(further))], format="csr")


def solve_dual(X: Any, target: np.ndarray, alphas: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """(X X' + alpha I)^-1 target for every alpha, shape (n_rows, n_alphas).

    Conjugate gradients for the smallest alpha; the others have the same Krylov space and follow from
    its scalars, so the products with X, which take nearly all of the time, are those of one penalty.

    Args:
        X: sparse, shape (n_rows, n_columns).
        target: shape (n_rows,).
        alphas: shape (n_alphas,), ascending, > 0.

    Source: Jegerlehner, "Krylov space solvers for shifted linear systems", hep-lat/9612014 (CG-M).
    """
    X = X.astype(np.float64)  # else every product converts it again
    transposed, shifts = X.T.tocsr(), alphas - alphas[0]
    residual, direction = target.astype(np.float64), target.astype(np.float64)
    directions = np.repeat(residual[:, None], len(alphas), axis=1)
    solution = np.zeros_like(directions)
    zeta = zeta_before = np.ones(len(alphas))
    step_before, ratio = 1.0, 0.0
    squared = float(residual @ residual)
    enough = squared * tolerance**2
    for _ in range(MAX_STEPS):
        if squared <= enough:
            break
        image = X @ (transposed @ direction) + alphas[0] * direction
        step = squared / float(direction @ image)
        live = zeta * zeta * squared > 1e-3 * enough  # the others have converged: leave them
        below = step * ratio * (zeta_before - zeta) + zeta_before * step_before * (1 + shifts * step)
        zeta_after = np.where(live, zeta * zeta_before * step_before / np.where(live, below, 1.0), zeta)
        steps = np.where(live, step * zeta_after / zeta, 0.0)
        solution += directions * steps
        residual -= step * image
        ratio = float(residual @ residual) / squared
        squared *= ratio
        ratios = np.where(live, ratio * zeta_after * steps / (zeta * step), 0.0)
        directions = directions * ratios + residual[:, None] * zeta_after
        direction = residual + ratio * direction
        zeta_before, zeta, step_before = zeta, zeta_after, step
    return solution
