"""Blocks of columns that a price is a sum over: words, characters, quantities, numbers, curves, categories, vector sets.

A block is fitted on training rows; texts are counted before, which fits nothing but a vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np

from heads.features.columns import COLUMNS, column_words, texts_of
from heads.features.design import FieldBlock, VectorBlock
from heads.features.rows import FieldTable, Rows
from heads.features.tfidf import Terms, Weighting, counts_of
from store.catalog.extremes import signed_log
from store.catalog.parse.cell_numbers import cell_numbers

BARE = tuple(
    f"bare number {place}" for place in (1, 2, 3)
)  # of the item name, without a unit, in their order
LEAST_OTHER = 0.05  # share of rows whose text is not the item name alone, for words of the text to be a block
MIN_ROWS = 2  # training rows that must hold a word or a category
MOST_FILLED = 0.1  # of a block that is multiplied faster as a sparse one
MOST_TERMS = 200_000  # of each family
# Begins of names of numbers that say how much is sold.
QUANTITIES = ("log_value", "log_pack_count", "log_quantity:")
REACH = 5.0  # standard deviations that a number counts for at most
LEAST_CURVE_ROWS, LEAST_KNOTS, KNOTS = 20, 4, 9

Counts = Mapping[Terms, Any]  # family -> counts, sparse of shape (n_rows, n_terms)


def with_bare_numbers(rows: Rows) -> Rows:
    """The rows with the numbers of the item name that stand without a unit, such as a vintage, as further fields."""
    if "name" not in rows.texts:  # of a plain matrix
        return rows
    known: dict[str, dict[str, float]] = {}
    X = np.full((len(rows), len(BARE)), np.nan)
    for at, name in enumerate(rows.text("name")):
        if name not in known:
            known[name] = cell_numbers(name)
        for place in range(len(BARE)):
            X[at, place] = known[name].get("plain" if place == 0 else f"plain {place + 1}", np.nan)
    fields = rows.fields
    logs = np.column_stack([fields.X, signed_log(X)])
    return replace(rows, fields=FieldTable((*fields.names, *BARE), logs, fields.categories, fields.notes))


def families_of(rows: Rows) -> list[Terms]:
    """Families of terms that these rows can be told apart by."""
    families, name, full = [], rows.texts.get("name", ()), rows.texts.get("full", ())
    if any(name):
        families += [Terms("name", "word", 1, 2), Terms("name", "word", 1, 1), Terms("name", "char_wb", 2, 5)]
    if any(full) and np.mean(full != name) > LEAST_OTHER:
        families.append(Terms("full", "word", 1, 2))
    if any(column_words(rows.fields)):
        families += [Terms(COLUMNS, "word", 1, 2), Terms(COLUMNS, "word", 1, 1)]
    return families


# ---- blocks --------------------------------------------------------------------------------------


class Block(Protocol):
    """Columns that share one prior variance."""

    def fit(self, rows: Rows, counts: Counts) -> Self: ...

    def transform(self, rows: Rows, counts: Counts) -> Any: ...


@dataclass
class TermColumns:
    """TF-IDF of one family of terms."""

    terms: Terms

    def fit(self, rows: Rows, counts: Counts) -> Self:
        self.weighting_ = Weighting.fit(counts[self.terms], MIN_ROWS, MOST_TERMS)
        return self

    @property
    def columns_(self) -> np.ndarray:
        """Columns of the counts that are kept."""
        return self.weighting_.columns

    def transform(self, rows: Rows, counts: Counts) -> Any:
        return self.weighting_.transform(counts[self.terms])


@dataclass
class TermPresence:
    """Whether a text holds a term, 1 or 0: an effect of a word that does not depend on how long the text is."""

    terms: Terms

    def fit(self, rows: Rows, counts: Counts) -> Self:
        self.columns_ = Weighting.fit(counts[self.terms], MIN_ROWS, MOST_TERMS).columns
        return self

    def transform(self, rows: Rows, counts: Counts) -> Any:
        X = counts[self.terms][:, self.columns_]
        X.data = np.ones_like(X.data)
        return X


@dataclass
class NumberColumns:
    """Numbers by their robust spread, clipped, and an indicator for each that may be missing.

    Args:
        quantities: only those that say how much is sold, or only the others.
    """

    quantities: bool

    def fit(self, rows: Rows, counts: Counts) -> Self:
        X = rows.fields.X
        telling = [
            name.startswith(QUANTITIES) is self.quantities and len(np.unique(column[np.isfinite(column)])) > 1
            for name, column in zip(rows.fields.names, X.T, strict=True)
        ]
        self.kept_ = np.flatnonzero(telling)
        X = X[:, self.kept_]
        self.middle_ = np.nanmedian(X, axis=0) if X.size else np.empty(0)
        low, high = np.nanpercentile(X, [1, 99], axis=0) if X.size else (np.empty(0), np.empty(0))
        within, whole = (np.nanstd(x, axis=0) if X.size else np.empty(0) for x in (np.clip(X, low, high), X))
        self.spread_ = np.where(within > 1e-9, within, whole)
        self.lacking_ = ~np.isfinite(X).all(axis=0)
        return self

    def transform(self, rows: Rows, counts: Counts) -> np.ndarray:
        X = rows.fields.X[:, self.kept_]
        missing = ~np.isfinite(X)
        scaled = np.where(missing, 0.0, (X - self.middle_) / self.spread_)
        return np.column_stack([np.clip(scaled, -REACH, REACH), missing[:, self.lacking_]]).astype(np.float32)


@dataclass
class CurveColumns:
    """Each number as a piecewise linear curve between quantiles of the training rows.

    Source: Gorishniy et al., "On embeddings for numerical features in tabular deep learning", 2022.
    """

    def fit(self, rows: Rows, counts: Counts) -> Self:
        self.knots_: list[tuple[int, np.ndarray]] = []
        for at, column in enumerate(rows.fields.X.T):
            present = column[np.isfinite(column)]
            if len(present) >= LEAST_CURVE_ROWS:
                knots = np.unique(np.quantile(present, np.linspace(0, 1, KNOTS), method="nearest"))
                if len(knots) >= LEAST_KNOTS:
                    self.knots_.append((at, knots))
        return self

    def transform(self, rows: Rows, counts: Counts) -> np.ndarray:
        parts = [np.empty((len(rows), 0), np.float32)]
        for at, knots in self.knots_:
            x = rows.fields.X[:, at, None]
            steps = np.clip((x - knots[:-1]) / np.diff(knots), 0.0, 1.0)
            parts.append(np.where(np.isfinite(x), steps, 0.5).astype(np.float32))
        return np.concatenate(parts, axis=1)


@dataclass
class CategoryColumns:
    """One column a level of each category, sparse where most of it is zero."""

    block_: FieldBlock = field(init=False, repr=False)

    def fit(self, rows: Rows, counts: Counts) -> Self:
        self.block_ = FieldBlock(min_count=MIN_ROWS).fit(_without_numbers(rows))
        return self

    def transform(self, rows: Rows, counts: Counts) -> Any:
        X = self.block_.levels_.sparse(rows.fields)
        return X if X.nnz < MOST_FILLED * np.prod(X.shape) else X.toarray()


@dataclass
class VectorColumns:
    """One vector set.

    Args:
        at: which of the rows'.
    """

    at: int

    def fit(self, rows: Rows, counts: Counts) -> Self:
        self.block_ = VectorBlock("block").fit(rows.matrices[self.at])
        return self

    def transform(self, rows: Rows, counts: Counts) -> np.ndarray:
        return self.block_.transform(rows.matrices[self.at])


def blocks_of(rows: Rows, families: list[Terms]) -> dict[str, Block]:
    """The unfitted blocks that these rows can have, by name."""
    blocks: dict[str, Block] = {}
    for terms in families:
        if terms.analyzer == "word" and terms.longest == 1:
            blocks[f"single words of {terms.composition}"] = TermPresence(terms)
        else:
            kind = "words" if terms.analyzer == "word" else "characters"
            blocks[f"{kind} of {terms.composition}"] = TermColumns(terms)
    if rows.fields.names:
        blocks |= {
            "quantities": NumberColumns(quantities=True),
            "numbers": NumberColumns(quantities=False),
            "curves": CurveColumns(),
        }
    if rows.fields.categories:
        blocks["categories"] = CategoryColumns()
    return blocks | {f"vectors {at + 1}": VectorColumns(at) for at in range(len(rows.matrices))}


def _without_numbers(rows: Rows) -> Rows:
    fields = FieldTable((), np.empty((len(rows), 0)), rows.fields.categories)
    return replace(rows, fields=fields)


# ---- counting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TermCounter:
    """The vocabulary of each family."""

    vectorizers: Mapping[Terms, Any]

    @classmethod
    def of(cls, rows: Rows) -> tuple["TermCounter", dict[Terms, Any]]:
        """Fitted on the rows, and their counts."""
        least = min(MIN_ROWS, len(rows))
        found = {terms: terms.count(texts_of(rows, terms.composition), least) for terms in families_of(rows)}
        return cls({terms: one for terms, (one, _) in found.items()}), {t: c for t, (_, c) in found.items()}

    def count(self, rows: Rows) -> dict[Terms, Any]:
        """Counts of further rows."""
        return {
            terms: counts_of(one, texts_of(rows, terms.composition))
            for terms, one in self.vectorizers.items()
        }
