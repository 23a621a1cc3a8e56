"""Similarity of rows: distances of vectors and fields, TF-IDF cosines, and their mixture as one kernel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np

from heads.features.columns import COLUMNS, column_words, texts_of
from heads.features.design import FieldBlock, VectorBlock
from heads.features.products import ROWS, row_products
from heads.features.rows import Rows
from heads.features.tfidf import WordPairs

SAMPLED_ROWS = 1024  # pairs among so many rows give a median distance
COMMON_SHARE = 0.05  # words in a larger share of rows are multiplied as a dense block, which is faster then
JOINT, WORDS, LOCAL_WORDS, NAME, FIELDS = "joint", "words", "words x joint", "name", "fields"


class KernelSource(Protocol):
    """One kind of distance between rows, fitted on training rows: 0 for the same row, 1 for the median pair."""

    def fit(self, rows: Rows) -> Self: ...

    def features(self, rows: Rows) -> Any: ...

    def compare(self, left: Any, right: Any) -> np.ndarray: ...


@dataclass
class Distances:
    """Squared distances of dense features, over the median pair of training rows."""

    median_: float = field(init=False, default=1.0)

    def fit(self, rows: Rows) -> Self:
        self._fit(rows)
        step = max(1, len(rows) // SAMPLED_ROWS)
        sample = self.features(rows.subset(np.arange(0, len(rows), step)))
        apart = squared_distances(sample, sample)
        between = apart[np.triu_indices(len(sample), 1)]
        self.median_ = max(float(np.median(between)) if len(between) else 1.0, 1e-6)
        return self

    def _fit(self, rows: Rows) -> None:
        raise NotImplementedError

    def features(self, rows: Rows) -> np.ndarray:
        raise NotImplementedError

    def compare(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Shape (n_left, n_right) float32."""
        apart = squared_distances(left, right, self._right_norms(right) if len(left) <= ROWS else None)
        apart /= np.float32(self.median_)
        return apart

    def _right_norms(self, right: np.ndarray) -> np.ndarray:
        """Squared lengths of rows that are compared with a few others again and again."""
        known: tuple[np.ndarray, np.ndarray] | None = vars(self).get("_known")
        if known is None or known[0] is not right:
            known = vars(self)["_known"] = (right, squared_norms(right))
        return known[1]


@dataclass
class VectorDistances(Distances):
    """Of one vector set, less its mean; a row without a vector is at the mean, and apart by an indicator.

    Args:
        at: which set of the rows.
        unit: compare directions alone: length says little of a product.
    """

    at: int = 0
    unit: bool = True

    def _fit(self, rows: Rows) -> None:
        self.block_ = VectorBlock("block").fit(rows.matrices[self.at])

    def features(self, rows: Rows) -> np.ndarray:
        matrix = rows.matrices[self.at]
        X = self.block_.transform(matrix)
        if self.unit:
            vectors = X[:, : matrix.dim]
            vectors /= np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), 1e-6)[:, None]
        return X


@dataclass
class FieldDistances(Distances):
    """Of parsed fields: numbers in standard deviations, a rare category counting for more than a frequent one."""

    def _fit(self, rows: Rows) -> None:
        self.block_ = FieldBlock(min_count=3).fit(rows)
        levels = len(self.block_.levels_.names)
        held = self.block_.transform(rows)[:, len(self.block_.names_) - levels :].sum(axis=0)
        rarity = np.sqrt(np.log(len(rows) / np.maximum(held, 1)) + 1e-3)
        self.scale_ = np.concatenate([np.ones(len(self.block_.names_) - levels), rarity]).astype(np.float32)

    def features(self, rows: Rows) -> np.ndarray:
        return np.clip(self.block_.transform(rows), -4, 4) * self.scale_


@dataclass
class GaussianVectors:
    """Rows as vectors whose dot product is about a Gaussian of their distance, for what takes vectors alone.

    Args:
        distances: unfitted.
        components: columns; the dot product is off by about one over their square root.
        width: of the Gaussian, in median squared distances.

    Source: Rahimi and Recht, "Random features for large-scale kernel machines", 2007.
    """

    distances: Distances
    components: int = 256
    width: float = 0.3

    def fit(self, rows: Rows) -> Self:
        self.distances.fit(rows)
        rng, n_columns = np.random.default_rng(0), self.distances.features(rows.subset(np.arange(0))).shape[1]
        spread = 1.0 / np.sqrt(self.width * self.distances.median_)
        self.directions_ = (spread * rng.standard_normal((n_columns, self.components))).astype(np.float32)
        self.phases_ = rng.uniform(0.0, 2.0 * np.pi, self.components).astype(np.float32)
        return self

    def transform(self, rows: Rows) -> np.ndarray:
        """Shape (n_rows, components) float32."""
        angles = row_products(self.distances.features(rows).astype(np.float32), self.directions_)
        angles += self.phases_
        return np.asarray(np.cos(angles, out=angles) * np.float32(np.sqrt(2.0 / self.components)))


@dataclass
class Cosines:
    """Cosine of TF-IDF vectors of one text composition: words and pairs of words.

    Args:
        composition: text composition that the rows hold.
        min_rows: training rows that must hold a word.
    """

    composition: str
    min_rows: int = 2

    def fit(self, rows: Rows) -> Self:
        self.words_ = WordPairs()
        X = self.words_.fit_transform(texts_of(rows, self.composition), rows.tokens.get(self.composition))
        rows_with = np.bincount(X.indices, minlength=X.shape[1])
        common = rows_with > max(COMMON_SHARE * len(rows), 1)
        self.common_ = np.flatnonzero(common)
        self.rare_ = np.flatnonzero(~common & (rows_with >= self.min_rows))
        return self

    def features(self, rows: Rows) -> Any:
        X = self.words_.transform(texts_of(rows, self.composition), rows.tokens.get(self.composition))
        return X[:, self.common_].toarray(), X[:, self.rare_]

    def compare(self, left: Any, right: Any) -> np.ndarray:
        """Shape (n_left, n_right) float32, 0 to 1."""
        cosines: np.ndarray = left[0] @ right[0].T
        cosines += (left[1] @ right[1].T).toarray()
        return cosines


def squared_distances(
    left: np.ndarray, right: np.ndarray, right_norms: np.ndarray | None = None
) -> np.ndarray:
    """Between all rows of two arrays, shape (n_left, n_right) float32.

    Args:
        right_norms: `squared_norms` of the right rows, where they are known.
    """
    apart: np.ndarray = left @ right.T
    apart *= -2.0
    apart += squared_norms(left)[:, None]
    apart += (squared_norms(right) if right_norms is None else right_norms)[None, :]
    return np.maximum(apart, 0.0, out=apart)


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """Squared length of each row, shape (n_rows,)."""
    found: np.ndarray = np.einsum("ij,ij->i", rows, rows)
    return found


def sources_of(rows: Rows, *, unit: bool, texts: bool, fields: bool) -> dict[str, KernelSource]:
    """The unfitted sources that these rows can be compared by, name -> source; vector sets are numbered."""
    sources: dict[str, KernelSource] = {
        f"set {i + 1}": VectorDistances(at=i, unit=unit) for i in range(len(rows.matrices))
    }
    if texts:
        for name, composition in ((WORDS, "full"), (NAME, "name")):
            if any(rows.texts.get(composition, ())):
                sources[name] = Cosines(composition)
        if any(column_words(rows.fields)):
            sources[COLUMNS] = Cosines(COLUMNS)
    if fields and (rows.fields.names or rows.fields.categories):
        sources[FIELDS] = FieldDistances()
    return sources


@dataclass(frozen=True)
class Mixture:
    """A kernel: the weighted sum of terms, each a function of the distances of `sources_of`.

    Terms: one Gaussian a source of distances; `joint`, the product of all vector sets' Gaussians (alike in
    image and words at once); TF-IDF cosines; `words x joint`, their product with a wide joint one.
    """

    weights: Mapping[str, float]  # term -> weight
    widths: Mapping[str, float]  # source of distances -> width, in median squared distances

    @property
    def terms(self) -> list[str]:
        return [term for term, weight in self.weights.items() if weight > 0]

    def kernel(self, compared: Callable[[str], np.ndarray]) -> np.ndarray:
        """The kernel matrix; holds three matrices at a time.

        Args:
            compared: source name -> fresh array of `KernelSource.compare`, which is overwritten.
        """
        total: np.ndarray | None = None
        for term, values in iter_terms(self.terms, self.widths, compared):
            values *= np.float32(self.weights[term])
            total = values if total is None else np.add(total, values, out=total)
        assert total is not None, "a mixture has at least one term"
        return total


def default_terms(sources: Mapping[str, KernelSource]) -> list[str]:
    """Every term that these sources allow."""
    sets = [name for name in sources if name.startswith("set ")]
    terms = list(sources)
    if len(sets) > 1:
        terms.append(JOINT)
    if sets and WORDS in sources:
        terms.append(LOCAL_WORDS)
    return terms


def iter_terms(terms: list[str], widths: Mapping[str, float], compared: Callable[[str], np.ndarray]) -> Any:
    """Yields (term, fresh matrix) for each wanted term."""
    sets = [name for name in widths if name.startswith("set ")]
    exponent: np.ndarray | None = None  # of the joint Gaussian
    for name in sets if JOINT in terms or LOCAL_WORDS in terms else [s for s in sets if s in terms]:
        apart = compared(name)
        apart *= np.float32(-0.5 / widths[name])
        if JOINT in terms or LOCAL_WORDS in terms:
            exponent = apart.copy() if exponent is None else np.add(exponent, apart, out=exponent)
        if name in terms:
            yield name, np.exp(apart, out=apart)
        del apart
    if JOINT in terms and exponent is not None:
        yield JOINT, np.exp(exponent)
    if WORDS in terms or LOCAL_WORDS in terms:
        cosines = compared(WORDS)
        if LOCAL_WORDS in terms and exponent is not None:
            exponent *= np.float32(1 / 3)
            np.exp(exponent, out=exponent)
            exponent *= cosines
            yield LOCAL_WORDS, exponent
        exponent = None
        if WORDS in terms:
            yield WORDS, cosines
    for name in (NAME, COLUMNS):
        if name in terms:
            yield name, compared(name)
    if FIELDS in terms:
        apart = compared(FIELDS)
        apart *= np.float32(-0.5 / widths[FIELDS])
        yield FIELDS, np.exp(apart, out=apart)
